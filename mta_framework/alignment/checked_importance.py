"""Asks an importance estimator, which may be anyone's code, and does not believe it blindly."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from mta_framework.errors import RunError, as_plugin_error
from mta_framework.interfaces import ImportanceEstimator
from mta_framework.types import States


class CheckedImportance:
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

    def weigh(
        self,
        states: States,
        layer: int,
        mask_BT: Tensor,
        model: Literal["student", "teacher"],
        number_B: Tensor | None = None,
    ) -> Tensor:
        """The estimator's weights; those of a text that has a negative one or one that isn't finite are all NaN.

        Args:
            states: As the estimator gets them.
            layer: Likewise.
            mask_BT: Likewise.
            model: Whose states they are.
            number_B: What messages call the texts; -1, or None for all: unknown.

        Raises:
            RunError: It fails, or gives another shape.
        """
        with as_plugin_error(self._plugin):
            weight_BT = self._importance.weigh(states, layer, mask_BT)
        if weight_BT.shape != mask_BT.shape:
            shapes = f"got {tuple(weight_BT.shape)} for texts and tokens {tuple(mask_BT.shape)}"
            raise RunError(f"{self._plugin} gives weights of another shape ({shapes})")
        wrong_BT = (~(weight_BT >= 0) | weight_BT.isinf()) & mask_BT.bool()
        number_B = torch.full_like(mask_BT[:, 0], -1) if number_B is None else number_B
        self._note(f"{model}, layer {layer}", weight_BT, wrong_BT, number_B)
        return torch.where(wrong_BT.any(1, keepdim=True), torch.nan, weight_BT)

    def _note(self, place: str, weight_BT: Tensor, wrong_BT: Tensor, number_B: Tensor) -> None:
        """Whether there is a wrong weight; text, token and value of the first; the first note of a place stays."""
        first = wrong_BT.flatten().int().argmax()
        length = wrong_BT.shape[1]
        value = weight_BT.take(first)
        row = first // length
        found = wrong_BT.any(), row, number_B.take(row), first % length, value
        note = torch.stack([item.float() for item in found])
        known = self._found.get(place, note)
        self._found[place] = torch.where(known[0] > 0, known, note)

    def fault(self) -> str | None:
        """The first unsound weight since the beginning, as a sentence; None: there was none."""
        for place, note in self._found.items():
            found, row, number, token, value = note.tolist()
            if found:
                text = f"text {number:.0f} of the data set" if number >= 0 else f"text {row:.0f} of a micro-batch"
                where = f"{place}, token {token:.0f} of {text}"
                must = "must give finite weights that are not negative"
                return f"I{self._plugin[1:]} {must} (got {value} for {where})."
        return None
