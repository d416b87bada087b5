"""Pads prompts on the left, so that the latest tokens of all rows stand in the same column."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def pad_left(rows: Sequence[Sequence[int]], padding: int) -> Tensor:
    """Align rows of token ids on the right.

    Args:
        rows: At least one row, at least one token each.
        padding: Stands where a row has no token.

    Returns:
        int64, (rows, length of the longest row), on the CPU.
    """
    width = max(map(len, rows))
    return torch.tensor([[padding] * (width - len(row)) + list(row) for row in rows])
