"""Asks an importance estimator, which may be anyone's code, and does not believe it blindly."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from mta_framework.errors import RunError, naming
from mta_framework.interfaces import ImportanceEstimator
from mta_framework.types import States


class Guard:
    """Turns unsound weights into NaN, which stops the step, and knows afterwards whose they were.

    Nothing is asked of the device before that: what is found stays there until ``fault`` is called.

    Args:
        importance: The estimator.
    """

    def __init__(self, importance: ImportanceEstimator):
        self._importance = importance
        self._plugin = f"importance estimator {importance.NAME!r}"
        self._found: dict[str, Tensor] = {}

    @property
    def by_teacher(self) -> bool:
        """The estimator's ``BY_TEACHER``."""
        return self._importance.BY_TEACHER

    def weigh(self, states: States, layer: int, mask_BT: Tensor, model: Literal["student", "teacher"]) -> Tensor:
        """The estimator's weights; those of a text that has a negative one or one that isn't finite are all NaN.

        Raises:
            RunError: It fails, or gives another shape.
        """
        with naming(self._plugin):
            weight_BT = self._importance.weigh(states, layer, mask_BT)
        if weight_BT.shape != mask_BT.shape:
            shapes = f"got {tuple(weight_BT.shape)} for texts and tokens {tuple(mask_BT.shape)}"
            raise RunError(f"{self._plugin} gives weights of another shape ({shapes})")
        wrong_BT = (~(weight_BT >= 0) | weight_BT.isinf()) & mask_BT.bool()
        self._note(f"{model}, layer {layer}", weight_BT, wrong_BT)
        return torch.where(wrong_BT.any(1, keepdim=True), torch.nan, weight_BT)

    def _note(self, place: str, weight_BT: Tensor, wrong_BT: Tensor) -> None:
        """Whether there is a wrong weight, text, token and value of the first; the first note of a place stays."""
        first = wrong_BT.flatten().int().argmax()
        length = wrong_BT.shape[1]
        value = weight_BT.flatten()[first]
        note = torch.stack([item.float() for item in (wrong_BT.any(), first // length, first % length, value)])
        known = self._found.get(place, note)
        self._found[place] = torch.where(known[0] > 0, known, note)

    def fault(self) -> str | None:
        """The first unsound weight since the beginning, as a sentence; None: there was none."""
        for place, note in self._found.items():
            found, text, token, value = note.tolist()
            if found:
                where = f"{place}, token {token:.0f} of text {text:.0f} of a micro-batch"
                must = "must give finite weights that are not negative"
                return f"I{self._plugin[1:]} {must} (got {value} for {where})."
        return None
