"""The values that travel between the stages of a run. No torch at run time: annotations only.

Shape suffixes, used throughout the project:

    B  texts of a batch                     T  tokens of a text, padded
    D  width of the hidden states           V  size of the vocabulary
    N  supervised positions                 A  attended tokens: all but padding
    S  spans of one granularity in a batch  M  (token, span) memberships
    U  distinct tokens that lie in a span   R  matched positions of two tokenizations

A flat position is ``b * T + t``: token t of text b in a tensor of shape (B, T) that is flattened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from mta_framework.types.layers import LayerPair as LayerPair
from mta_framework.types.layers import LayerSimilarity as LayerSimilarity
from mta_framework.types.layers import ModelShape as ModelShape
from mta_framework.types.metric_values import Generations as Generations
from mta_framework.types.metric_values import Likelihood as Likelihood
from mta_framework.types.metric_values import MeanKind as MeanKind
from mta_framework.types.metric_values import ScoreSet as ScoreSet
from mta_framework.types.teacher_records import RecordedQuantity as RecordedQuantity
from mta_framework.types.teacher_records import RecordSlot as RecordSlot
from mta_framework.types.teacher_records import TopTokens as TopTokens

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

Span = tuple[int, int]
"""Half-open ``[start, end)`` range of character offsets into a text."""

SpanSet = Mapping[str, Sequence[Span]]
"""The spans of one text by granularity, e.g. ``{"words": [(0, 3)], "phrases": []}``."""

Overlap = Literal["none", "nested", "any", "repeated"]
"""How two spans of a text may overlap: not at all; only one inside the other; in any way; even the same range twice.

From the strictest on: each permits what those before it do.
"""

TOKENS = "tokens"
"""Unit of a loss term: supervised positions of the batch."""

TEXTS = "texts"
"""Unit of a loss term: texts of the batch with at least one supervised position."""

ATTENDED_TOKENS = "attended tokens"
"""Unit of a loss term: tokens of the batch that are not padding, prompts included."""

MATCHED_POSITIONS = "matched positions"
"""Unit of a loss term: positions of a response up to which two different tokenizations cover the same text, so that
student and teacher predict the same continuation."""

CHUNKS = "chunks"
"""Unit of a loss term: segments of text between consecutive matched positions of a response, each of which has whole
tokens of both tokenizations. What a tokenization cut off after the last matched position is none."""

TEXTS_BY_STUDENT = "texts by the student"
"""Unit of a loss term: texts with at least one supervised position whose response the student wrote."""

TEXTS_BY_OTHERS = "texts by others"
"""Unit of a loss term: texts with at least one supervised position whose response the student did not write."""

Responder = Literal["student", "teacher"]
"""The model that writes a response during training."""


def texts_with_spans(granularity: str, fewest: Literal[1, 4] = 1) -> str:
    """Unit of a loss term: texts with at least one span of ``granularity`` (that of Hid), or at least four (CKA).

    Another number is a ``ValueError``: such texts are not counted.
    """
    if fewest not in (1, 4):
        raise ValueError(f"a batch counts the texts with at least 1 or 4 spans (got {fewest})")
    return f"texts with {granularity}" if fewest == 1 else f"texts with {fewest} {granularity} or more"


def texts_with_span_pairs(granularity: str) -> str:
    """Unit of a loss term: texts with at least two spans of ``granularity`` (that of DSA)."""
    return f"texts with pairs of {granularity}"


def span_memberships(granularity: str) -> str:
    """Unit of a loss term: (token, span) memberships of ``granularity``, in the student's tokens."""
    return f"memberships in {granularity}"


@dataclass(frozen=True)
class Head:
    """The map from final hidden states h to next-token logits: ``cap(scale * (h W^T + b))``.

    Args:
        weight_VD: Output embedding W; it gets a gradient if it requires one.
        bias_V: Bias b, or None.
        scale: Factor on the logits; 1 for most models.
        softcap: Bound c of the cap ``c * tanh(logits / c)`` (Gemma 2), or None for no cap.
    """

    weight_VD: Tensor
    bias_V: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None


@dataclass(frozen=True)
class FinalLayers:
    """The modules between the last decoder block and the head.

    Args:
        shape: Shape of the model.
        norm: Final norm, or None if the architecture has none or it was not found.
        projection: Map from the width of the hidden states to that of the head (some OPT models), or None.
    """

    shape: ModelShape
    norm: Callable[[Tensor], Tensor] | None = None
    projection: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True)
class States:
    """Hidden states of one model on one batch.

    Args:
        final_BTD: Hidden states after the final norm, to which the head is applied.
        layers: hidden_BTD after a decoder block, by 1-based layer; the last layer is read after the final norm.
        head: Head of the model.
        final_layers: Modules before the head, for losses that apply the head to intermediate layers; never None during
            training.
        input_ids_BT: int64, the tokens that the model read; never None during training.
        attended_A: int64, flat positions of the tokens that are not padding (``Batch.attended_A``); never None during
            training.
        records: What was kept of a teacher on this batch (``Batch.teacher_records``), where it was not run. Then
            ``final_BTD`` is NaN but at supervised positions, ``layers`` has those layers alone that a base loss reads,
            and these are NaN on padding.
        top_tokens: What is known of a teacher behind a server, in the order of ``Batch.position_N``; None for any other
            model. Then there are no states: ``final_BTD`` and the head are NaN.
    """

    final_BTD: Tensor
    layers: Mapping[int, Tensor]
    head: Head
    final_layers: FinalLayers | None = None
    input_ids_BT: Tensor | None = None
    attended_A: Tensor | None = None
    records: Mapping[RecordSlot, Tensor] | None = None
    top_tokens: TopTokens | None = None


@dataclass(frozen=True)
class SpanIndex:
    """The spans of one granularity in a batch as ragged indices, without padding to the longest list.

    Tokens are flat positions ``b * T + t``. Spans are numbered text by text: those of one text are a slice.

    Args:
        token_M: int64, the token of each (token, span) membership.
        span_M: int64, the span of each membership, ascending.
        text_S: int64, the text of each span, ascending.
        token_U: int64, the distinct tokens of ``token_M``, ascending.
        multiplicity_U: float32, the number of spans that contain each of them.
        spans_per_text: Number of spans of each of the B texts, as plain integers: reading them does not wait for the
            device.
    """

    token_M: Tensor
    span_M: Tensor
    text_S: Tensor
    token_U: Tensor
    multiplicity_U: Tensor
    spans_per_text: tuple[int, ...]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> SpanIndex:
        """Copy to ``device``."""
        return _copy_to(self, device, non_blocking)


@dataclass(frozen=True)
class Example:
    """One text as tokens.

    Args:
        input_ids: int32, the tokens of prompt and response.
        prompt_length: Number of tokens of the prompt; the tokens after it are supervised.
        spans: (K, 2) int32 half-open token ranges by granularity.
        by_student: Whether the student wrote the response during training.
        prompt_text: Text of the prompt.
        prompt_offsets: (prompt_length, 2) int32, the character range of each token of the prompt.
        teacher: The same text in the teacher's tokens, with the same spans in the same order; None where the models
            share a tokenizer.
        matched_R2: int32, pairs of a token of this text and a token of ``teacher`` that are predicted from the same
            text; None where the models share a tokenizer.
        truncated: Whether this text or ``teacher`` was cut off at its maximum length, so that they may end at different
            characters; False where the models share a tokenizer.
        prompt_boundaries: Character offsets at which prompt and response are cut into pieces that are parsed one by
            one; empty: the text is parsed as a whole.
        supervised_T: bool, whether each token is supervised, where not all tokens after the prompt are: other turns may
            stand between several answers; None: they all are.
        index: 0-based position of the text in its data set, for messages; -1 where it is unknown. A response that is
            written during training has the index of its prompt.
        log_probs: float32, the log-probability of each token after the prompt in the distribution that it was drawn
            from when the student wrote it; further tokens have none. None: no token has one.
        teacher_name: Name of the text's teacher where there are several; empty where there is one, or none.
    """

    input_ids: NDArray[np.int32]
    prompt_length: int
    spans: Mapping[str, NDArray[np.int32]]
    by_student: bool = False
    prompt_text: str = ""
    prompt_offsets: NDArray[np.int32] | None = None
    teacher: Example | None = None
    matched_R2: NDArray[np.int32] | None = None
    truncated: bool = False
    prompt_boundaries: tuple[int, ...] = ()
    supervised_T: NDArray[np.bool_] | None = None
    index: int = -1
    log_probs: NDArray[np.float32] | None = None
    teacher_name: str = ""

    @property
    def prompt_ids(self) -> NDArray[np.int32]:
        """The tokens of the prompt."""
        return self.input_ids[: self.prompt_length]


@dataclass(frozen=True)
class Batch:
    """A micro-batch: token ids padded on the right, supervised positions and span indices.

    Args:
        input_ids_BT: int64, token ids.
        attention_mask_BT: int64, 1 on tokens and 0 on padding.
        position_N: int64, flat positions ``b * T + t`` whose next token is supervised.
        target_N: int64, the token that follows each of them.
        spans: Span index by granularity; empty without alignment.
        counts: Number of tokens, texts etc. in this micro-batch, by unit. A loss term names the unit that it is
            averaged over, so that the trainer can divide by the count of the global batch, which it knows before the
            first forward pass.
        by_student_B: bool, whether the student wrote the response; None: it wrote none of them.
        teacher: The same texts in the teacher's tokens, with the same spans in the same order; None where the models
            share a tokenizer.
        matched_R: int64, flat positions of this batch that predict the same continuation as ``matched_teacher_R``; None
            where the models share a tokenizer.
        matched_teacher_R: int64, flat positions of ``teacher``, likewise.
        index_B: int64, ``Example.index`` of each text; None: all are unknown.
        chunk_N: int64, the chunk that each supervised token belongs to, by the index of the matched position at which
            it begins; R for tokens in none. ``teacher.chunk_N`` has the same chunks. None where the models share a
            tokenizer.
        log_prob_N: float32, the log-probability of each of ``target_N`` in the distribution that it was drawn from
            when the student wrote it (``Example.log_probs``); NaN where there is none. None: there is none at all.
        teacher_records: What is kept of the teacher on these texts, by slot; None: the teacher has to be run.
    """

    input_ids_BT: Tensor
    attention_mask_BT: Tensor
    position_N: Tensor
    target_N: Tensor
    spans: Mapping[str, SpanIndex] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    by_student_B: Tensor | None = None
    teacher: Batch | None = None
    matched_R: Tensor | None = None
    matched_teacher_R: Tensor | None = None
    index_B: Tensor | None = None
    chunk_N: Tensor | None = None
    log_prob_N: Tensor | None = None
    teacher_records: Mapping[RecordSlot, Tensor] | None = None

    @property
    def text_N(self) -> Tensor:
        """int64, the text (row of the batch) of each supervised position."""
        return self.position_N // self.input_ids_BT.shape[1]

    # To make one of these indices on a device, the host would have to wait for its length: ``to`` makes them before.

    @cached_property
    def attended_A(self) -> Tensor:
        """int64, the flat positions ``b * T + t`` that are not padding, ascending."""
        return self.attention_mask_BT.flatten().nonzero().squeeze(1)

    @cached_property
    def row_by_student(self) -> Tensor:
        """int64, the rows of ``position_N`` and ``target_N`` in responses that the student wrote, ascending."""
        return self._by_student_N.nonzero().squeeze(1)

    @cached_property
    def row_by_others(self) -> Tensor:
        """int64, the other rows of ``position_N`` and ``target_N``, ascending."""
        return (~self._by_student_N).nonzero().squeeze(1)

    @property
    def _by_student_N(self) -> Tensor:
        if self.by_student_B is None:
            return self.position_N.new_zeros(self.position_N.shape).bool()
        return self.by_student_B[self.text_N]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """Copy to ``device``.

        Args:
            device: Device of the copy.
            non_blocking: Whether the host goes on before all is copied, through pinned memory; from the CPU to CUDA.
        """
        copy: Batch = _copy_to(self, device, non_blocking)
        for name in ("attended_A", "row_by_student", "row_by_others"):
            vars(copy)[name] = _moved(getattr(self, name), device, non_blocking)
        return copy


@dataclass(frozen=True)
class MixedBatch:
    """A micro-batch of texts of several teachers, as one batch for each teacher.

    Args:
        parts: Name of a teacher -> its texts; teachers without a text here are absent.
        counts_by_teacher: Name of each teacher of the run -> counts of its texts here by unit (``Batch.counts``);
            those of absent teachers are 0, so that all processes have the same.
    """

    parts: Mapping[str, Batch]
    counts_by_teacher: Mapping[str, Mapping[str, int]]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> MixedBatch:
        """Copy to ``device``; arguments as for ``Batch.to``."""
        parts = {name: part.to(device, non_blocking) for name, part in self.parts.items()}
        return MixedBatch(parts, self.counts_by_teacher)


@dataclass(frozen=True)
class LossTerm:
    """One term of the loss on one micro-batch.

    Args:
        name: Name in the log, e.g. ``kl`` or ``dsa``; terms of the same name (one per key layer) are logged as one.
        sum: Scalar float32 tensor with gradient: the sum over the micro-batch, not the mean.
        unit: Unit whose count in the global batch the sum is divided by, a key of ``Batch.counts``.
        weight: Factor in the total loss; a term of weight 0 is only logged and observed.
        teacher_name: Name of the teacher whose texts the sum is over, where there are several; set by the framework.
    """

    name: str
    sum: Tensor
    unit: str
    weight: float = 1.0
    teacher_name: str = ""


LossTerms = tuple[LossTerm, ...]
"""Terms of the loss. The total is the sum of ``weight * sum / (count of the unit in the global batch)`` over them."""


@dataclass(frozen=True)
class Progress:
    """How far training has come, for schedules inside a loss or a batch policy.

    Args:
        step: Number of finished optimiser steps.
        total_steps: Number of optimiser steps of the whole training.
        epoch: Finished epochs, with fractions.
    """

    step: int
    total_steps: int
    epoch: float


def _copy_to(value: Any, device: torch.device | str, non_blocking: bool) -> Any:
    def copy(item: Any) -> Any:
        if hasattr(item, "to"):
            return _moved(item, device, non_blocking)
        return {key: copy(entry) for key, entry in item.items()} if isinstance(item, Mapping) else item

    return type(value)(**{entry.name: copy(getattr(value, entry.name)) for entry in fields(value)})


def _moved(value: Any, device: torch.device | str, non_blocking: bool) -> Any:
    # The host waits for a copy out of memory that is not pinned, whatever ``non_blocking`` says.
    source = value.pin_memory() if non_blocking and hasattr(value, "pin_memory") else value
    return source.to(device, non_blocking=non_blocking)
