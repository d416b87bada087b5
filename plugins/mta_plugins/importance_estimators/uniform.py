"""Every token counts the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mta_framework import ImportanceEstimator, States

if TYPE_CHECKING:
    from torch import Tensor


class Uniform(ImportanceEstimator):
    """Weight 1 on every token (the paper's ablation without weights)."""

    NAME = "uniform"

    def weigh(self, states: States, layer: int, mask_BT: Tensor) -> Tensor:
        """1 on tokens, 0 on padding; float32."""
        return mask_BT.float()
