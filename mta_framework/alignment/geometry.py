"""How the spans of texts lie to each other, to be looked at: cosines, and how far two models agree on them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

_LEAST = 3
"""Pairs of spans: two lie on a line whatever they are."""
_ALIKE = 1e-9
"""Cosines that differ by less differ by rounding."""


def cosines(vector_SD: Tensor) -> NDArray[np.float64]:
    """Cosine similarities of all spans of one text, (S, S); a zero vector is similar to nothing."""
    direction_SD = functional.normalize(vector_SD.detach().double().cpu(), dim=-1)
    found: NDArray[np.float64] = (direction_SD @ direction_SD.T).numpy()
    return found


def agreement(own: Sequence[NDArray[np.float64]], other: Sequence[NDArray[np.float64]]) -> float | None:
    """Pearson correlation of two models' similarities over all pairs of two spans of one text.

    Args:
        own: For each text its cosines, as ``cosines`` gives them.
        other: The other model's, of the same texts and spans.

    Returns:
        None where there are fewer than three pairs, or where one of the models has all spans alike.
    """
    one, two = (np.concatenate([text[np.triu_indices(len(text), 1)] for text in texts]) for texts in (own, other))
    if len(one) < _LEAST or min(np.ptp(one), np.ptp(two)) < _ALIKE:
        return None
    return float(np.corrcoef(one, two)[0, 1])
