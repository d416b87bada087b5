"""What a base loss or an alignment term returns, checked against its contract, since it may be anyone's code."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import Tensor

from mta_framework.errors import RunError
from mta_framework.types import TOKENS, Batch, LossTerm, LossTerms, States
from mta_framework.types.log_entries import is_reserved


def terms_of(returned: Any, label: str) -> LossTerms:
    """The loss terms that ``compute`` of a base loss returned.

    Raises:
        RunError: It is no collection of loss terms.
    """
    if isinstance(returned, Tensor | str) or not isinstance(returned, Iterable):
        raise RunError(f"{label} must return a tuple of loss terms (got {type(returned).__name__})")
    terms = tuple(returned)
    for term in terms:
        if not isinstance(term, LossTerm):
            raise RunError(f"{label} must return loss terms (got {type(term).__name__})")
    return terms


def require_valid(terms: LossTerms, label: str, student: States, batch: Batch) -> None:
    """Check loss terms.

    Args:
        terms: What was returned.
        label: Name of the plugin in messages.
        student: The student's states on the micro-batch, by which they have to be computed.
        batch: The micro-batch.

    Raises:
        RunError: There are none, or one breaks the contract.
    """
    if not terms:
        raise RunError(f"{label} must return at least one term")
    for term in terms:
        _require_sum(term, label)
        if term.unit not in batch.counts:
            known = ", ".join(map(repr, batch.counts))
            raise RunError(f"{label}: the unit of term {term.name!r} must be one of {known} (got {term.unit!r})")
    weighted = [term for term in terms if term.weight and batch.counts[term.unit]]
    if not (torch.is_grad_enabled() and batch.counts[TOKENS] and weighted):
        return
    if not any(_depends_on(term.sum, student) for term in weighted):
        names = ", ".join(repr(term.name) for term in weighted)
        raise RunError(f"{label} must return a term with a gradient (got {names}, detached from the student)")


def require_names(terms: LossTerms, label: str, taken: Collection[str]) -> None:
    """Check the names under which the terms of a base loss are logged; those of one name are logged as their mean.

    Args:
        terms: What was returned.
        label: Name of the plugin in messages.
        taken: Names of the alignment terms of the run.

    Raises:
        RunError: A name is malformed, or means something else in the log, or terms of one name have several units.
    """
    for name in dict.fromkeys(term.name for term in terms):
        if not (isinstance(name, str) and re.fullmatch(r"[a-z][a-z0-9_]*", name)):
            raise RunError(f"{label}: the name of a term must be lower case letters, digits and _ (got {name!r})")
        if name in taken or is_reserved(name):
            meaning = "that of an alignment term of this run" if name in taken else "an entry of the log by itself"
            raise RunError(f"{label}: the name of a term must be its own, and {name!r} is {meaning}")
        units = dict.fromkeys(term.unit for term in terms if term.name == name)
        if len(units) > 1:
            got = " and ".join(map(repr, units))
            raise RunError(f"{label}: terms of one name, {name!r}, must have one unit (got {got})")


def _depends_on(total: Tensor, student: States) -> bool:
    """Whether a gradient of the sum reaches states or head of the student."""
    sources = [student.final_BTD, *student.layers.values(), *([student.head.weight_VD] if student.head else [])]
    functions = {source.grad_fn for source in sources} - {None}
    leaves = {id(source) for source in sources if source.grad_fn is None}
    waiting, seen = [total.grad_fn], set[Any]()
    while waiting:
        function = waiting.pop()
        if function is None or function in seen:
            continue
        if function in functions or id(getattr(function, "variable", None)) in leaves:
            return True
        seen.add(function)
        waiting += [before for before, _ in function.next_functions]
    return False


def _require_sum(term: LossTerm, label: str) -> None:
    if not isinstance(term.sum, Tensor):
        got = type(term.sum).__name__
        raise RunError(f"{label}: the sum of term {term.name!r} must be a tensor (got {got})")
    if term.sum.dim() != 0:
        raise RunError(f"{label}: the sum of term {term.name!r} must be a scalar (got {list(term.sum.shape)})")
    if not term.sum.is_floating_point():
        raise RunError(f"{label}: the sum of term {term.name!r} must be a floating-point number (got {term.sum.dtype})")
    if isinstance(term.weight, bool) or not isinstance(term.weight, float | int):
        got = type(term.weight).__name__
        raise RunError(f"{label}: the weight of term {term.name!r} must be a number (got {got})")
