"""The contract of importance estimators."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from mta_framework.types import (
    States,
)

if TYPE_CHECKING:
    from torch import Tensor
from mta_framework.interfaces.plugin import Plugin


class ImportanceEstimator(Plugin):
    """Weighs the tokens of a text.

    Attributes:
        BY_TEACHER: Whether it weighs by what the teacher makes of the text in the end, whatever the key layer: then it
            is asked once for each micro-batch, with the teacher's states, and the student's tokens get the same
            weights. A student with a tokenizer of its own has other tokens, which are weighed by its own states.
    """

    BY_TEACHER: ClassVar[bool] = False

    @abstractmethod
    def weigh(self, states: States, layer: int, mask_BT: Tensor) -> Tensor:
        """Importance of every token.

        Args:
            states: Of the model whose tokens are weighed, student or teacher.
            layer: The 1-based key layer at hand; of no importance with ``BY_TEACHER``.
            mask_BT: 1 on tokens, 0 on padding.

        Returns:
            weight_BT, float32, non-negative, 0 on padding, without gradient. Its scale per text is free: pooling
            normalises.
        """
