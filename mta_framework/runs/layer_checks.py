"""Layers that plugins choose, and alignment terms at these layers: checked before any weights are read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn

from mta_framework.errors import Fault, InputError, RunError, as_plugin_error, collect_faults, faults_at
from mta_framework.interfaces import AlignmentTerm, BaseLoss, LayerMapper
from mta_framework.models.run_models import RunModels
from mta_framework.types import LayerPair, ModelShape


def require_terms(
    terms: Sequence[AlignmentTerm], pairs: tuple[LayerPair, ...], student: ModelShape, teacher: ModelShape
) -> None:
    """Check that every alignment term can be computed at these key layers, on models of these shapes.

    Raises:
        InputError: The terms that cannot.
        RunError: A term breaks its contract.
    """
    faults: list[Fault] = []
    for index, term in enumerate(terms):
        label = f"alignment term {term.NAME!r}"
        with collect_faults(faults), as_plugin_error(label):
            with faults_at(f"alignment.terms.{index}"), torch.device("meta"):
                chosen = _listed(term.key_layers(pairs), label, "key layers")
                made = term.make_module(student, teacher)
            _require_some_of(chosen, pairs, label)
            _require_module(made, term, label)
            require_integer(term.num_texts, f"{label}: num_texts", 0)
            require_integer(term.divisor(len(chosen)), f"{label}: its divisor", 1)
    if faults:
        raise InputError(faults)


def base_loss_layers(base_loss: BaseLoss, run_models: RunModels) -> tuple[tuple[int, int], ...]:
    """Pairs of student layer and teacher layer that the base loss reads besides the final states.

    Raises:
        InputError: The base loss cannot be computed on these models.
        RunError: The base loss breaks its contract.
    """
    if run_models.teacher_summary is None:
        return ()
    plugin = f"base loss {base_loss.NAME!r}"
    with as_plugin_error(plugin), faults_at("base_loss"):
        chosen = base_loss.key_layers(run_models.student_summary.shape, run_models.teacher_summary.shape)
        layers = _listed(chosen, plugin, "pairs of layers")
    strange = [pair for pair in layers if not (isinstance(pair, tuple) and len(pair) == 2 and _are_layers(*pair))]
    if strange:
        expected = "pairs of numbers, (student layer, teacher layer)"
        raise RunError(f"{plugin} must name its key layers as {expected} (got {strange[0]!r})")
    _require_within(plugin, layers, run_models)
    return layers


def chosen_pairs(
    mapper: LayerMapper, run_models: RunModels, choose: Callable[[], Sequence[LayerPair]]
) -> tuple[LayerPair, ...]:
    """The key layers that a mapper chooses.

    Args:
        mapper: The mapper.
        run_models: The models of the run.
        choose: Calls it.

    Raises:
        InputError: It finds no key layers for these models.
        RunError: It breaks its contract.
    """
    plugin = f"layer mapper {mapper.NAME!r}"
    with as_plugin_error(plugin), faults_at("alignment.layers"):
        pairs = _listed(choose(), plugin, "pairs of layers")
    strange = [pair for pair in pairs if not (isinstance(pair, LayerPair) and _are_layers(pair.student, pair.teacher))]
    if strange:
        got = f"{type(strange[0]).__name__} {strange[0]!r}"
        raise RunError(f"{plugin} must return pairs LayerPair(student, teacher, granularity) of integers (got {got})")
    _require_within(plugin, [(pair.student, pair.teacher) for pair in pairs], run_models)
    unknown = [pair for pair in pairs if pair.granularity not in mapper.granularities]
    if unknown or not pairs:
        got = f" (got {', '.join(map(str, unknown))})" if unknown else ""
        granularities = ", ".join(mapper.granularities)
        raise RunError(f"{plugin} must return at least one pair, of the granularities {granularities} alone{got}")
    layers = [pair.student for pair in pairs]
    if layers != sorted(layers) or len({*pairs}) < len(pairs):
        listed = ", ".join(map(str, pairs))
        raise RunError(f"{plugin} must return different pairs, sorted by student layer (got {listed})")
    return pairs


def require_integer(value: Any, what: str, least: int) -> None:
    """Check a number that a plugin gives.

    Raises:
        RunError: It is no integer, or below ``least``.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise RunError(f"{what} must be an integer from {least} on (got {value!r})")


def _listed(returned: Any, plugin: str, what: str) -> tuple[Any, ...]:
    """What a plugin returned, a generator included, whose code runs here."""
    if isinstance(returned, str) or not isinstance(returned, Iterable):
        raise RunError(f"{plugin} must return a list of {what} (got {type(returned).__name__})")
    return tuple(returned)


def _are_layers(*layers: Any) -> bool:
    return all(isinstance(layer, int) and not isinstance(layer, bool) for layer in layers)


def _require_some_of(layers: tuple[Any, ...], pairs: tuple[LayerPair, ...], label: str) -> None:
    if not layers or not set(layers) <= set(pairs) or len({*layers}) < len(layers):
        listed = ", ".join(map(str, layers)) or "none"
        raise RunError(f"{label} must choose at least one of the key layers, each once, and no others (got {listed})")


def _require_module(made: Any, term: AlignmentTerm, label: str) -> None:
    if made is not None and not isinstance(made, nn.Module):
        raise RunError(f"{label}: make_module must return a module of torch or None (got {type(made).__name__})")
    trains = made is not None and any(one.requires_grad for one in made.parameters())
    if trains and not term.has_parameters:
        raise RunError(f"{label} makes parameters, but its has_parameters is false")
    if term.has_parameters and not trains:
        raise RunError(f"{label} makes no parameters to train, but its has_parameters is true")


def _require_within(plugin: str, layers: Sequence[tuple[int, int]], run_models: RunModels) -> None:
    """Report a layer that a model does not have here, and not by an index error in a training step."""
    assert run_models.teacher_summary is not None
    depths = run_models.student_summary.shape.num_layers, run_models.teacher_summary.shape.num_layers
    absent = [
        pair for pair in layers if not all(1 <= layer <= depth for layer, depth in zip(pair, depths, strict=True))
    ]
    if absent:
        got = ", ".join(f"{student}->{teacher}" for student, teacher in absent)
        within = f"layers 1 to {depths[0]} of the student and 1 to {depths[1]} of the teacher"
        raise RunError(f"{plugin} must name pairs within {within} (got {got})")
