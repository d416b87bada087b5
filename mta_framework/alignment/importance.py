"""Token weights of both models, as an importance estimator gives them, each worked out once per micro-batch."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from mta_framework.alignment.checked_importance import CheckedImportance
from mta_framework.alignment.pooling import normalise
from mta_framework.types import Batch, SpanIndex, States


def both_weights(
    guard: CheckedImportance, student: States, teacher: States, batch: Batch
) -> tuple[TokenWeights, TokenWeights]:
    """The student's and the teacher's: the same where the estimator weighs by the teacher and tokens are shared."""
    of_teacher = TokenWeights(guard, teacher, batch.teacher or batch, "teacher", batch.number_B)
    if guard.by_teacher and batch.teacher is None:
        return of_teacher, of_teacher
    return TokenWeights(guard, student, batch, "student", batch.number_B), of_teacher


class TokenWeights:
    """How much the tokens of one micro-batch count to one model.

    Args:
        guard: Has them weighed, when they are first asked for.
        states: Of the model.
        batch: The texts in the model's tokens.
        model: Which it is.
        number_B: What the texts are called.
    """

    def __init__(
        self,
        guard: CheckedImportance,
        states: States,
        batch: Batch,
        model: Literal["student", "teacher"],
        number_B: Tensor | None,
    ):
        self._guard = guard
        self._states = states
        self._mask_BT = batch.attention_mask_BT
        self._model: Literal["student", "teacher"] = model
        self._number_B = number_B
        self._found: dict[int, Tensor] = {}

    @torch.no_grad()
    def at(self, layer: int, index: SpanIndex) -> Tensor:
        """Flat weights at a layer, (B * T,), that sum to 1 over the memberships of each text.

        Raises:
            RunError: The estimator fails, or gives another shape.
        """
        asked = 0 if self._guard.by_teacher else layer
        if asked not in self._found:
            self._found[asked] = self._guard.weigh(self._states, layer, self._mask_BT, self._model, self._number_B)
        return normalise(self._found[asked], index)
