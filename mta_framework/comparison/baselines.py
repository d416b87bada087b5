"""The row that each row of a table is compared with."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from mta_framework.comparison.grouping import Group, what_counts
from mta_framework.errors import require_known

_MODELS = ("teacher", "teachers", "student")


def with_baselines(groups: Sequence[Group], given: Mapping[str, str] | str | None) -> list[Group]:
    """Give every row its baseline, and put it below that one.

    Args:
        groups: Methods, then references.
        given: Label -> label of its baseline; or the baseline of all; or None: the same base loss without alignment,
            and where no row has such a baseline, the first row.

    Raises:
        InputError: There is no row of a given label.
    """
    if given is None:
        chosen = [_against_base(group, groups) for group in groups]
        if not any(group.baseline for group in chosen):
            chosen = [_against(group, groups[0].label) for group in groups]
    else:
        labels = [group.label for group in groups]
        wanted = [given] if isinstance(given, str) else [*given, *given.values()]
        require_known("--baseline", "row", wanted, labels)
        by_label = dict.fromkeys(labels, given) if isinstance(given, str) else given
        chosen = [_against(group, by_label.get(group.label)) for group in groups]
    return _ordered(chosen)


def _against(group: Group, baseline: str | None) -> Group:
    free = group.reference or baseline == group.label
    return group if free else dataclasses.replace(group, baseline=baseline)


def _against_base(group: Group, groups: Sequence[Group]) -> Group:
    """With the row of the same base loss and models without alignment as its baseline, if there is one such row.

    Of several, that which differs in the alignment alone.
    """
    spec = group.runs[0].spec
    if group.reference or not spec.get("alignment") or "base_loss" not in spec:
        return group
    bases = {
        each.label: _beyond_alignment(each.runs[0].spec, spec)
        for each in groups
        if not each.reference and _is_base(each.runs[0].spec, spec)
    }
    if len(bases) > 1:
        bases = {label: fields for label, fields in bases.items() if not fields}
    if len(bases) != 1:
        return group
    ((baseline, fields),) = bases.items()
    return dataclasses.replace(group, baseline=baseline, beyond_alignment=fields)


def _is_base(spec: Mapping[str, Any], aligned: Mapping[str, Any]) -> bool:
    """Whether ``spec`` is ``aligned`` without alignment, by its base loss and models."""
    if spec.get("alignment") or "base_loss" not in spec:
        return False
    of_models = any(name.split(".")[0] in _MODELS for name in _beyond_alignment(spec, aligned))
    return not of_models and spec["base_loss"]["name"] == aligned["base_loss"]["name"]


def _beyond_alignment(spec: Mapping[str, Any], aligned: Mapping[str, Any]) -> tuple[str, ...]:
    """Fields besides the alignment that affect the weights and are not the same."""
    first, second = (what_counts(entry) for entry in (spec, aligned))
    names = dict.fromkeys([*first, *second])
    return tuple(name for name in names if first.get(name) != second.get(name) and name.split(".")[0] != "alignment")


def _ordered(groups: Sequence[Group]) -> list[Group]:
    """References first, then every baseline with its rows below it; rows in a circle come last."""
    ordered = [group for group in groups if group.reference]
    for group in groups:
        if group.baseline is None and not group.reference:
            ordered += _with_rows_below(group, groups)
    placed = {group.label for group in ordered}
    return [*ordered, *(group for group in groups if group.label not in placed)]


def _with_rows_below(group: Group, groups: Sequence[Group]) -> list[Group]:
    below = [each for each in groups if each.baseline == group.label]
    return [group, *(row for each in below for row in _with_rows_below(each, groups))]
