"""The same importance for every token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mta_framework import ImportanceEstimator, States

if TYPE_CHECKING:
    from torch import Tensor


class Uniform(ImportanceEstimator):
    """Weight 1 on every token: span vectors are plain means, and a span weighs as much as it has tokens."""

    NAME = "uniform"

    def weigh(self, states: States, layer: int, mask_BT: Tensor) -> Tensor:
        """Return weight_BT in float32: 1 on tokens, 0 on padding."""
        return mask_BT.float()
