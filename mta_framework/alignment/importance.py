"""Token weights of both models, as an importance estimator gives them, each worked out once per micro-batch."""

from __future__ import annotations

import torch
from torch import Tensor

from mta_framework.alignment.pooling import normalise
from mta_framework.errors import RunError
from mta_framework.interfaces import ImportanceEstimator
from mta_framework.types import Batch, SpanIndex, States


def both_weights(
    importance: ImportanceEstimator, student: States, teacher: States, batch: Batch
) -> tuple[TokenWeights, TokenWeights]:
    """The student's and the teacher's: the same where the estimator weighs by the teacher and tokens are shared."""
    of_teacher = TokenWeights(importance, teacher, batch.teacher or batch)
    if importance.BY_TEACHER and batch.teacher is None:
        return of_teacher, of_teacher
    return TokenWeights(importance, student, batch), of_teacher


class TokenWeights:
    """How much the tokens of one micro-batch count to one model.

    Args:
        importance: Weighs them, when they are first asked for.
        states: Of the model.
        batch: The texts in the model's tokens.
    """

    def __init__(self, importance: ImportanceEstimator, states: States, batch: Batch):
        self._importance = importance
        self._states = states
        self._mask_BT = batch.attention_mask_BT
        self._found: dict[int, Tensor] = {}

    @torch.no_grad()
    def at(self, layer: int, index: SpanIndex) -> Tensor:
        """Flat weights at a layer, (B * T,), that sum to 1 over the memberships of each text.

        Raises:
            RunError: The estimator gives another shape.
        """
        asked = 0 if self._importance.BY_TEACHER else layer
        if asked not in self._found:
            self._found[asked] = self._weigh(layer)
        return normalise(self._found[asked], index)

    def _weigh(self, layer: int) -> Tensor:
        weight_BT = self._importance.weigh(self._states, layer, self._mask_BT)
        if weight_BT.shape != self._mask_BT.shape:
            shapes = f"got {tuple(weight_BT.shape)} for texts and tokens {tuple(self._mask_BT.shape)}"
            raise RunError(f"importance estimator {self._importance.NAME}: gives weights of another shape ({shapes})")
        return weight_BT
