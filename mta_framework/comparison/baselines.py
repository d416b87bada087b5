"""What every row of a table is compared to."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mta_framework.comparison.grouping import Group, what_counts
from mta_framework.errors import Fault, InputError, nearest


def with_baselines(groups: Sequence[Group], given: Mapping[str, str] | str | None) -> list[Group]:
    """Give every row the one that it is compared to, and put it below that one.

    Args:
        groups: Methods; references may follow them.
        given: Label -> label of its baseline; or the baseline of all; or None: the same base loss without alignment,
            and where no row has such a baseline, the first row.

    Raises:
        InputError: A given label is no row's.
    """
    if given is None:
        chosen = [_against_base(entry, groups) for entry in groups]
        if not any(entry.baseline for entry in chosen):
            chosen = [_against(entry, groups[0].label) for entry in groups]
    else:
        labels = [entry.label for entry in groups]
        wanted = [given] if isinstance(given, str) else [*given, *given.values()]
        faults = [_unknown(name, labels) for name in dict.fromkeys(wanted) if name not in labels]
        if faults:
            raise InputError(faults)
        by_label = dict.fromkeys(labels, given) if isinstance(given, str) else given
        chosen = [_against(entry, by_label.get(entry.label)) for entry in groups]
    return _ordered(chosen)


def _against(entry: Group, baseline: str | None) -> Group:
    free = entry.reference or baseline == entry.label
    return entry if free else dataclasses.replace(entry, baseline=baseline)


def _against_base(entry: Group, groups: Sequence[Group]) -> Group:
    own = entry.runs[0].report.spec
    if entry.reference or not own.get("alignment") or "base_loss" not in own:
        return entry
    bases = [other for other in groups if not other.reference and _is_base(other.runs[0].report.spec, own)]
    beyond = [tuple(_beyond_alignment(other.runs[0].report.spec, own)) for other in bases]
    if len(bases) > 1:
        exact = [number for number, fields in enumerate(beyond) if not fields]
        bases, beyond = [bases[number] for number in exact], [() for _ in exact]
    if len(bases) != 1:
        return entry
    return dataclasses.replace(entry, baseline=bases[0].label, beyond_alignment=beyond[0])


def _is_base(spec: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether ``spec`` is ``other`` without alignment, by its base loss and models."""
    if spec.get("alignment") or "base_loss" not in spec:
        return False
    alike = all(spec.get(section) == other.get(section) for section in ("teacher", "student"))
    return alike and spec["base_loss"]["name"] == other["base_loss"]["name"]


def _beyond_alignment(spec: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[str]:
    first, second = (what_counts(entry) for entry in (spec, other))
    for name in dict.fromkeys([*first, *second]):
        if first.get(name) != second.get(name) and name.split(".")[0] != "alignment":
            yield name


def _unknown(name: str, labels: Sequence[str]) -> Fault:
    hint = nearest(name, labels) or "Choose one of them."
    return Fault("--baseline", f"no row is called {name!r} (got {name!r})", f"rows: {', '.join(labels)}", hint)


def _ordered(groups: Sequence[Group]) -> list[Group]:
    """References first, then every baseline with its rows below it."""
    below = {entry.label: [other for other in groups if other.baseline == entry.label] for entry in groups}
    ordered = [entry for entry in groups if entry.reference]
    for entry in groups:
        if entry.baseline is None and not entry.reference:
            ordered += _with_all_below(entry, below)
    placed = {entry.label for entry in ordered}
    return [*ordered, *(entry for entry in groups if entry.label not in placed)]


def _with_all_below(entry: Group, below: Mapping[str, Sequence[Group]]) -> list[Group]:
    return [entry, *(row for other in below[entry.label] for row in _with_all_below(other, below))]
