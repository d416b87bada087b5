"""Token weights by an importance estimator, asked once per layer and checked; span weights and span vectors by them."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from mta_framework.alignment.unchanged_inputs import unchanged_inputs
from mta_framework.errors import RunError, as_plugin_error
from mta_framework.interfaces import ImportanceEstimator
from mta_framework.types import Batch, SpanIndex, States


class TokenWeights:
    """Token weights of one micro-batch by the states of one model, layer by layer.

    Args:
        importance: Estimator, called once per layer, or once in all if it is ``BY_TEACHER``.
        states: Hidden states of the model.
        batch: The texts in the model's tokens.
        model: Whose states they are, for messages.
        index_B: int64, the index of each text in the data set, for messages; None: unknown.
    """

    def __init__(
        self,
        importance: CheckedImportance,
        states: States,
        batch: Batch,
        model: Literal["student", "teacher"],
        index_B: Tensor | None,
    ):
        self._importance = importance
        self._states = states
        self._mask_BT = batch.attention_mask_BT
        self._model: Literal["student", "teacher"] = model
        self._index_B = index_B
        self._weights: dict[int, Tensor] = {}

    @torch.no_grad()
    def at(self, layer: int, index: SpanIndex) -> Tensor:
        """Flat weights at a 1-based layer, (B * T,), that sum to 1 over the memberships of each text.

        Raises:
            RunError: The estimator fails, or returns weights of another shape.
        """
        key = 0 if self._importance.by_teacher else layer
        if key not in self._weights:
            arguments = self._states, layer, self._mask_BT, self._model, self._index_B
            self._weights[key] = self._importance.weigh(*arguments)
        return normalise(self._weights[key], index)


class CheckedImportance:
    """Calls an importance estimator and turns unsound weights into NaN, which stops the step.

    A weight is unsound if it is negative, NaN or infinite. The first one of each model and layer is recorded on the
    device; nothing is copied from it until ``fault`` is called.

    Args:
        importance: Estimator to call.
    """

    def __init__(self, importance: ImportanceEstimator):
        self.estimator = importance
        self._plugin = f"importance estimator {importance.NAME!r}"
        self._records: dict[str, Tensor] = {}

    @property
    def by_teacher(self) -> bool:
        """The estimator's ``BY_TEACHER``."""
        return self.estimator.BY_TEACHER

    def weigh(
        self,
        states: States,
        layer: int,
        mask_BT: Tensor,
        model: Literal["student", "teacher"],
        index_B: Tensor | None = None,
    ) -> Tensor:
        """Call the estimator; all weights of a text that has an unsound one become NaN.

        Args:
            states: Hidden states of ``model``, passed on to the estimator.
            layer: 1-based key layer, passed on to the estimator.
            mask_BT: 1 on tokens and 0 on padding, passed on to the estimator.
            model: Whose states they are, for ``fault``.
            index_B: int64, the index of each text in the data set, for ``fault``; -1, or None for all: unknown.

        Returns:
            weight_BT as the estimator returned it, except for the NaN, in float32 (float64 beside such states).

        Raises:
            RunError: The estimator fails, or its weights have another shape than ``mask_BT``.
        """
        with as_plugin_error(self._plugin), unchanged_inputs(self._plugin, states=states, mask_BT=mask_BT):
            weight_BT = self._floats(self.estimator.weigh(states, layer, mask_BT), mask_BT, states.final_BTD.dtype)
        unsound_BT = (~(weight_BT >= 0) | weight_BT.isinf()) & mask_BT.bool()
        # Divided by a sum that overflows, all weights of a text would become 0.
        overflows_B = torch.where(mask_BT.bool(), weight_BT, 0.0).sum(1).isinf() & ~unsound_BT.any(1)
        unsound_BT |= overflows_B[:, None] & mask_BT.bool()
        index_B = torch.full_like(mask_BT[:, 0], -1) if index_B is None else index_B
        self._record(f"{model}, layer {layer}", weight_BT, unsound_BT, index_B)
        return torch.where(unsound_BT.any(1, keepdim=True), torch.nan, weight_BT)

    def _floats(self, weight_BT: Any, mask_BT: Tensor, dtype: torch.dtype) -> Tensor:
        """The returned weights in float32; in float64 beside states of that."""
        if not isinstance(weight_BT, Tensor):
            raise RunError(f"{self._plugin} must return a tensor of weights (got {type(weight_BT).__name__})")
        if weight_BT.shape != mask_BT.shape:
            shapes = f"got {tuple(weight_BT.shape)} for a mask of {tuple(mask_BT.shape)}"
            raise RunError(f"{self._plugin} must return weights of the shape of its mask ({shapes})")
        kind = weight_BT.dtype, weight_BT.layout, weight_BT.device
        if weight_BT.is_complex() or weight_BT.layout != torch.strided or weight_BT.device != mask_BT.device:
            got = ", ".join(map(str, kind))
            raise RunError(f"{self._plugin} must return real, dense weights on {mask_BT.device} (got {got})")
        return weight_BT.to(torch.promote_types(dtype, torch.float32))

    def _record(self, label: str, weight_BT: Tensor, unsound_BT: Tensor, index_B: Tensor) -> None:
        """Record if a weight is unsound, with row, index, token and value of the first; keep a label's first record."""
        first = unsound_BT.flatten().int().argmax()
        length = unsound_BT.shape[1]
        value = weight_BT.take(first)
        row = first // length
        fields = unsound_BT.any(), row, index_B.take(row), first % length, value
        record = torch.stack([field.float() for field in fields])
        known = self._records.get(label, record)
        self._records[label] = torch.where(known[0] > 0, known, record)

    def fault(self) -> str | None:
        """Describe the first unsound weight so far in a sentence; None if there was none."""
        for label, record in self._records.items():
            unsound, row, index, token, value = record.tolist()
            if unsound:
                text = f"text {index:.0f} of the data set" if index >= 0 else f"text {row:.0f} of a micro-batch"
                where = f"{label}, token {token:.0f} of {text}"
                must = "must give weights that are not negative and have a finite sum"
                return f"I{self._plugin[1:]} {must} (got {value} for {where})."
        return None


def normalise(weight_BT: Tensor, index: SpanIndex) -> Tensor:
    """Scale token weights to sum to 1 over all (token, span) memberships of each text.

    Args:
        weight_BT: Weights by an importance estimator, on any scale per text.
        index: Spans of the batch.

    Returns:
        Flat weights, (B * T,), float32, to be indexed by ``token_M`` and ``token_U``. A text whose weights are all 0
        keeps zeros.
    """
    texts, length = weight_BT.shape
    contribution_U = weight_BT.flatten()[index.token_U] * index.multiplicity_U
    total_B = weight_BT.new_zeros(texts).index_add(0, index.token_U // length, contribution_U)
    return (weight_BT / _positive(total_B)[:, None]).flatten()


def span_weights(weight: Tensor, index: SpanIndex) -> Tensor:
    """Sum the weights of each span's tokens to weight_S.

    Args:
        weight: Flat token weights, (B * T,).
        index: Spans of the batch.

    Source: MTA (arXiv 2605.01374v2), Eq. 9, with the teacher's normalised weights.
    """
    return weight.new_zeros(len(index.text_S)).index_add(0, index.span_M, weight[index.token_M])


def span_vectors(hidden_BTD: Tensor, weight: Tensor, index: SpanIndex) -> Tensor:
    """Pool hidden states to span vectors ``U_k = sum_t w_t h_t / sum_t w_t`` over the tokens of each span.

    Args:
        hidden_BTD: Hidden states in any dtype; they get gradients.
        weight: Flat token weights, (B * T,), on any scale per text; no gradient.
        index: Spans of the batch.

    Returns:
        vector_SD in at least float32. A span whose weights are all 0 has a zero vector without gradient.

    Source: MTA (arXiv 2605.01374v2), Eq. 8.
    """
    share_M = weight[index.token_M] / _positive(span_weights(weight, index))[index.span_M]
    hidden_MD = upcast(hidden_BTD.flatten(0, 1).index_select(0, index.token_M))
    pooled_MD = hidden_MD * share_M[:, None]
    return pooled_MD.new_zeros(len(index.text_S), hidden_BTD.shape[-1]).index_add(0, index.span_M, pooled_MD)


def upcast(values: Tensor) -> Tensor:
    """Upcast to float32 (float64 stays): in 16 bits small differences of angles would be lost."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _positive(total: Tensor) -> Tensor:
    return total.clamp_min(torch.finfo(total.dtype).tiny)
