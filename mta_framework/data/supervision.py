"""Which tokens of a conversation are supervised, where several of its turns are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mta_framework.types import Span


def supervised_tokens(
    offset_T2: NDArray[np.int32], ranges: Sequence[Span], length: int, marker_T: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Mark the tokens that lie within character ranges.

    Args:
        offset_T2: Half-open character range of each token.
        ranges: Half-open character ranges of the supervised turns.
        length: Number of tokens; those beyond the offsets are an added end token, which is supervised.
        marker_T: Whether each token is a special one or ends a turn.

    Returns:
        (length,) mask. A token that reaches beyond its turn is not supervised, unless it is a marker: some
        take the white space behind them.
    """
    mask_T = np.ones(length, dtype=np.bool_)
    start_T, end_T = offset_T2.T
    mask_T[: len(offset_T2)] = False
    for start, end in ranges:
        inside_T = (end_T > start) & ((end_T <= end) | marker_T)
        # A token without characters, as those of white space may be, belongs to the turn that has begun before it.
        mask_T[: len(offset_T2)] |= (start_T >= start) & (start_T < end) & inside_T
    return mask_T
