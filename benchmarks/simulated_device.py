"""Try every loss and alignment plugin on a device in name alone: a table of what an accelerator would not take.

    python benchmarks/simulated_device.py [--plugins kl fdd] [--json table.json]

Tensors have shapes and no values, so it needs no accelerator. It finds operations across devices, values and sizes that
the host waits for, and float64, which Apple's MPS does not have.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from device_cases import BASE_LOSSES, FAMILIES, Case, alignment_of, batch_of, cases, distiller_of, model, registry
from device_parts import (
    POLICIES,
    continuous_batching,
    optimiser_step,
    policy_steps,
    recorded_step,
    static_batching,
    step,
)
from watched_device import NAME, Event, Kind, Watch, watched_device

from mta_framework.models.decoder import head_of
from mta_framework.models.state_reader import final_layers_of
from mta_framework.models.teacher_states import Teacher
from mta_framework.training.distiller import Distiller

ADAPTERS, RECORDED, STEP = "LoRA and bf16", "teacher from a cache", "optimiser step"
GENERATION = CONTINUOUS, STATIC = "generation", "generation in static batches"
POLICY_STEPS = {name: f"batches {name}" for name in POLICIES}
_GENERATION_TRANSFER = "the host needs each token to see which responses have ended, and gives the device the next ones"
REASONS = {
    "chunked_loss/key_layer_states.py distinct_positions": (
        "one size per micro-batch: only the device knows which states of common beginnings are equal, so that they can "
        "be read out once"
    ),
    "training/distiller.py reduce": "one transfer per optimiser step: the loss terms, checked and logged",
    "training/trainer.py before_optimizer_step": "in the same place, whether the gradient is finite",
    "training/response_health.py end_step": "once per log entry, in the same place",
    "generation/continuous_batching.py _append": _GENERATION_TRANSFER,
    "generation/continuous_batching.py _forward": _GENERATION_TRANSFER,
    "generation/continuous_batching.py add": _GENERATION_TRANSFER,
    "generation/kv_cache.py add": _GENERATION_TRANSFER,
    "generation/token_sampling.py sample_tokens": _GENERATION_TRANSFER,
    "generation/static_batching.py _respond": _GENERATION_TRANSFER,
    "generation/token_sampling.py _require_finite": "in the same place, whether the logits are finite",
    "training/rollouts.py _digest": "once in each interval, all weights, for the digest that names their responses",
}
"""Where the host may wait, as file and function, and why."""


@dataclass(frozen=True)
class Row:
    """What was seen of one plugin, or of one part of a step.

    Args:
        family: Family of the plugin; empty for a part.
        name: Name of the plugin or the part.
        cases: Number of choices of options, tokenizers and alignment that were tried.
        faults: Errors, such as tensors on different devices, each after the case.
        waits: File and function of each place where the host waits.
        float64: File and line of each float64 tensor on the device.
    """

    family: str
    name: str
    cases: int
    faults: tuple[str, ...]
    waits: tuple[str, ...]
    float64: tuple[str, ...]


class Models:
    """Student and teacher on the simulated device, made once."""

    def __init__(self) -> None:
        self._students = {adapters: model(adapters).to(NAME) for adapters in (False, True)}
        teacher = model().eval().requires_grad_(False).to(NAME)
        parts = head_of(teacher), final_layers_of(teacher)
        self._teachers = {False: Teacher.of(teacher), True: Teacher(lambda: None, lambda: parts)}

    def distiller(self, case: Case, adapters: bool = False, recorded: bool = False) -> Distiller:
        """The module that a run of the case trains, on the device; ``recorded``: its teacher answers from records."""
        alignment = alignment_of(case)
        if alignment is not None:
            alignment.to(NAME)
        student = self._students[adapters]
        student.zero_grad()
        return distiller_of(case, student, self._teachers[recorded], alignment)


def rows(models: Models, chosen: Sequence[str] = ()) -> Iterator[Row]:
    """Try all plugins and parts, or those of some names."""
    for family in FAMILIES:
        for name in registry().names(family):
            if not chosen or name in chosen:
                yield _row(family, name, [(case, models.distiller(case), _step) for case in cases(family, name)])
    for name, tried in _parts(models).items():
        if not chosen or name in chosen:
            yield _row("", name, tried)


def _parts(models: Models) -> dict[str, list[tuple[Case, Distiller, Work]]]:
    losses = [case for name in registry().names(BASE_LOSSES) for case in cases(BASE_LOSSES, name) if not case.options]
    plain = next(case for case in losses if case.plugin == "distillm2" and case.aligned)
    adapted = [case for case in losses if case.aligned and case.shared_tokenizer]
    others = [case for family in FAMILIES[1:] for name in registry().names(family) for case in cases(family, name)]
    recorded = [*(case for case in losses if case.aligned), *(case for case in others if not case.options)]
    unaligned = {case.plugin: case for case in losses if not case.aligned and case.shared_tokenizer}
    return {
        ADAPTERS: [(case, models.distiller(case, True), _step_in_16_bits) for case in adapted],
        RECORDED: [(case, models.distiller(case, recorded=True), recorded_step) for case in recorded],
        STEP: [(plain, models.distiller(plain), optimiser_step)],
        CONTINUOUS: [(plain, models.distiller(plain), continuous_batching)],
        STATIC: [(plain, models.distiller(plain), static_batching)],
        **{
            label: [(case, models.distiller(case), policy_steps(name))]
            for name, label in POLICY_STEPS.items()
            for case in [unaligned["distillm2" if name == "pairs" else "distillm"]]
        },
    }


def _step(distiller: Distiller, case: Case, watch: Watch) -> None:
    step(distiller, batch_of(case), watch)


def _step_in_16_bits(distiller: Distiller, case: Case, watch: Watch) -> None:
    step(distiller, batch_of(case), watch, sixteen_bits=True)


_REFUSED: tuple[Kind, ...] = ("two devices", "float64")

Work = Callable[[Distiller, Case, Watch], None]


def _row(family: str, name: str, tried: Sequence[tuple[Case, Distiller, Work]]) -> Row:
    events: set[Event] = set()
    faults = []
    for case, distiller, work in tried:
        with watched_device() as watch:
            try:
                work(distiller, case, watch)
            except Exception as error:
                cause = error.__cause__ or error
                faults.append(f"{case}: {type(cause).__name__}: {cause}")
        events.update(watch.events)
    lines = {kind: {f"{event.file}:{event.line}" for event in events if event.kind == kind} for kind in _REFUSED}
    faults += [f"tensors of two devices at {line}" for line in sorted(lines["two devices"])]
    waits = {f"{event.file} {event.function}" for event in events if event.kind not in _REFUSED}
    return Row(family, name, len(tried), tuple(faults), tuple(sorted(waits)), tuple(sorted(lines["float64"])))


def markdown(table: Sequence[Row]) -> Iterator[str]:
    """The table, and the reasons of its waits, as Markdown."""
    footnotes: dict[str, int] = {}
    yield "| | steps tried | across devices | float64 | the host waits |"
    yield "|---|---|---|---|---|"
    for row in table:
        reasons = [REASONS.get(wait, f"no reason: {wait}") for wait in row.waits]
        indices = sorted({footnotes.setdefault(reason, len(footnotes) + 1) for reason in reasons})
        waits = ", ".join(f"({index})" for index in indices) or "never"
        kind = f" ({row.family.replace('_', ' ')})" if row.family else ""
        shown = f"`{row.name}`{kind}" if row.family else row.name
        yield f"| {shown} | {row.cases} | {_none(row.faults)} | {_none(row.float64)} | {waits} |"
    yield ""
    for reason, index in footnotes.items():
        yield f"{index}. {reason[0].upper()}{reason[1:]}."


def _none(problems: Sequence[str]) -> str:
    return "; ".join(problem.replace("|", "/") for problem in problems) or "none"


def main() -> None:
    """Try everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plugins", nargs="*", default=[], help="Names of plugins and parts; default: all.")
    parser.add_argument("--json", type=Path, help="File for the rows.")
    command = parser.parse_args()
    torch.set_num_threads(1)
    table = []
    for row in rows(Models(), command.plugins):
        table.append(row)
        print(row, file=sys.stderr, flush=True)
    if command.json is not None:
        command.json.write_text(json.dumps([asdict(row) for row in table], indent=2) + "\n", encoding="utf-8")
    print(*markdown(table), sep="\n")


if __name__ == "__main__":
    main()
