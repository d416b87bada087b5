"""Token weights of both models by an importance estimator, each computed once per micro-batch."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from mta_framework.alignment.checked_importance import CheckedImportance
from mta_framework.alignment.pooling import normalise
from mta_framework.types import Batch, SpanIndex, States


def token_weights(
    importance: CheckedImportance, student: States, teacher: States, batch: Batch
) -> tuple[TokenWeights, TokenWeights]:
    """Make the token weights of student and teacher, to be computed when they are first needed.

    They are the same object where the estimator is ``BY_TEACHER`` and both models have the same tokens.
    """
    of_teacher = TokenWeights(importance, teacher, batch.teacher or batch, "teacher", batch.index_B)
    if importance.by_teacher and batch.teacher is None:
        return of_teacher, of_teacher
    return TokenWeights(importance, student, batch, "student", batch.index_B), of_teacher


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
