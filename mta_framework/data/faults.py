"""Collects the faults of a data set, so that all are reported at once but a broken file does not fill the screen."""

from __future__ import annotations

from mta_framework.errors import Fault, InputError

MAX_LISTED = 20


class FaultList:
    """Faults of one data set: the first ``MAX_LISTED`` are listed one by one, the others are only counted.

    Args:
        where: Field of the spec that names the data set, e.g. ``data.train``.
    """

    def __init__(self, where: str):
        self._where = where
        self._faults: list[Fault] = []
        self._unlisted = 0

    def add(self, fault: Fault) -> None:
        """Add a fault to the list."""
        if len(self._faults) < MAX_LISTED:
            self._faults.append(fault)
        else:
            self._unlisted += 1

    def raise_any(self) -> None:
        """Raise the faults, if any were added.

        Raises:
            InputError: At least one fault was added.
        """
        if self._unlisted:
            rest = f"{self._unlisted} more rows are faulty"
            self._faults.append(Fault(self._where, rest, f"the first {MAX_LISTED} are listed", "Correct those first."))
        if self._faults:
            raise InputError(self._faults)
