"""Collects the faults of a data set, so that all are told at once but a broken file does not fill the screen."""

from __future__ import annotations

from mta_framework.errors import Fault, InputError

MOST_TOLD = 20


class FaultList:
    """The faults of one data set: the first are told one by one, the others are counted.

    Args:
        where: What the data set is called in the spec, e.g. ``data.train``.
    """

    def __init__(self, where: str):
        self._where = where
        self._faults: list[Fault] = []
        self._untold = 0

    def add(self, fault: Fault) -> None:
        """Note a fault."""
        if len(self._faults) < MOST_TOLD:
            self._faults.append(fault)
        else:
            self._untold += 1

    def raise_any(self) -> None:
        """Raise what was noted.

        Raises:
            InputError: At least one fault was noted.
        """
        if self._untold:
            rest = f"{self._untold} more rows are faulty"
            self._faults.append(Fault(self._where, rest, f"the first {MOST_TOLD} are listed", "Mend those first."))
        if self._faults:
            raise InputError(self._faults)
