"""The contract of importance estimators."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from mta_framework.interfaces.plugin import Plugin, fingerprint
from mta_framework.types import States

if TYPE_CHECKING:
    from torch import Tensor


class ImportanceEstimator(Plugin):
    """Weighs the tokens of a text by a model's hidden states.

    Attributes:
        BY_TEACHER: Whether weights follow from the teacher's output, whatever the key layer. Then ``weigh`` is called
            once per micro-batch, with the teacher's states, and the student's tokens get the same weights. A student
            with a tokenizer of its own has other tokens; those are weighed by its own states.
        VERSION: Change it when the same states give other weights than before: what is kept of a teacher is then made
            anew.
    """

    BY_TEACHER: ClassVar[bool] = False
    VERSION: ClassVar[str] = "1"

    @abstractmethod
    def weigh(self, states: States, layer: int, mask_BT: Tensor) -> Tensor:
        """Compute the importance of every token.

        Args:
            states: Hidden states of the model whose tokens are weighed, student or teacher.
            layer: 1-based key layer, a key of ``states.layers``; to be ignored if ``BY_TEACHER``.
            mask_BT: int64, 1 on tokens and 0 on padding.

        Returns:
            weight_BT, float32, finite and non-negative, 0 on padding, without gradient. Each text may have its own
            scale: pooling normalises weights per text. A text whose weights are all 0 adds nothing to the alignment;
            where that is so of every text, the run warns. Inputs must not be changed in place.
        """

    def fingerprint(self) -> str:
        """Return as JSON whatever the weights depend on besides the states.

        That is name, ``VERSION`` and options, and the content of a file given by ``-p``. What is kept of a teacher
        (``teacher.cache``) is used again only where it is equal.
        """
        return fingerprint(self, self.VERSION)
