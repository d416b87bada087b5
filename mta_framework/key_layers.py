"""Asks plugins which layers they read, and holds them to their contract before anything slow starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from mta_framework.errors import RunError, blaming, naming
from mta_framework.interfaces import BaseLoss, LayerMapper, MeasuringLayerMapper
from mta_framework.models.lineup import Lineup
from mta_framework.ranks import on_main
from mta_framework.run_folder import read_json, write_json
from mta_framework.types import LayerPair, LayerSimilarity


def alignment_layers(mapper: LayerMapper | None, lineup: Lineup) -> tuple[LayerPair, ...]:
    """The key layers of the alignment; empty without one.

    Raises:
        InputError: The mapper finds none for these models.
        RunError: It breaks its contract.
    """
    if mapper is None:
        return ()
    student, teacher = lineup.student_outline, lineup.teacher_outline
    assert teacher is not None
    return _sound(mapper, lineup, lambda: mapper.map(student.shape, teacher.shape))


def measured_layers(
    mapper: MeasuringLayerMapper, lineup: Lineup, compare: Callable[[], LayerSimilarity], file: Path
) -> tuple[LayerPair, ...]:
    """The key layers of a run whose mapper measures: chosen once, told, and kept for when the run is resumed.

    Args:
        mapper: Chooses.
        lineup: The models in outline.
        compare: Measures; called on the main process alone, so that all train with the same layers.
        file: Of the run folder: what was measured, and the choice.

    Raises:
        InputError: Nothing can be measured, or the mapper finds no key layers.
        RunError: It breaks its contract.
    """

    def chosen() -> tuple[LayerPair, ...]:
        if file.is_file():
            return recorded_layers(file)
        similarity = compare()
        pairs = _sound(mapper, lineup, lambda: mapper.choose(similarity))
        told = [asdict(pair) | {"cka": similarity.across[pair.student - 1][pair.teacher - 1]} for pair in pairs]
        write_json(file, {"pairs": told, **asdict(similarity)})
        shown = ", ".join(f"{pair} (CKA {entry['cka']:.2f})" for pair, entry in zip(pairs, told, strict=True))
        print(f"Key layers, measured: {shown}")
        return pairs

    return on_main(chosen)


def recorded_layers(file: Path) -> tuple[LayerPair, ...]:
    """The key layers that ``measured_layers`` chose."""
    return tuple(LayerPair(pair["student"], pair["teacher"], pair["granularity"]) for pair in read_json(file)["pairs"])


def base_loss_layers(base_loss: BaseLoss, lineup: Lineup) -> tuple[tuple[int, int], ...]:
    """Pairs of layers, the student's and the teacher's, that the base loss reads besides the final states.

    Raises:
        InputError: It can't be computed on these models.
        RunError: It breaks its contract.
    """
    if lineup.teacher_outline is None:
        return ()
    told = f"base loss {base_loss.NAME!r}"
    with naming(told), blaming("base_loss"):
        layers = tuple(base_loss.key_layers(lineup.student_outline.shape, lineup.teacher_outline.shape))
    _require_within(told, layers, lineup)
    return layers


def _sound(mapper: LayerMapper, lineup: Lineup, choose: Callable[[], Sequence[LayerPair]]) -> tuple[LayerPair, ...]:
    """What a mapper chooses, held to its contract."""
    told = f"layer mapper {mapper.NAME!r}"
    with naming(told), blaming("alignment.layers"):
        pairs = tuple(choose())
    _require_within(told, [(pair.student, pair.teacher) for pair in pairs], lineup)
    foreign = [pair for pair in pairs if pair.granularity not in mapper.granularities]
    if foreign or not pairs:
        got = ", ".join(map(str, foreign)) or "no pair"
        raise RunError(f"{told} must return pairs of the granularities {', '.join(mapper.granularities)} (got {got})")
    return pairs


def _require_within(told: str, layers: Sequence[tuple[int, int]], lineup: Lineup) -> None:
    """A plugin may be anyone's code: a layer that isn't there is told here, not by an index error in a step."""
    assert lineup.teacher_outline is not None
    depths = lineup.student_outline.shape.num_layers, lineup.teacher_outline.shape.num_layers
    wrong = [pair for pair in layers if not all(1 <= layer <= depth for layer, depth in zip(pair, depths, strict=True))]
    if wrong:
        got = ", ".join(f"{student}->{teacher}" for student, teacher in wrong)
        within = f"layers 1 to {depths[0]} of the student and 1 to {depths[1]} of the teacher"
        raise RunError(f"{told} must name pairs within {within} (got {got})")
