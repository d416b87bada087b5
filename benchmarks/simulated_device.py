"""Try every loss and alignment plugin on a device in name alone: a table of what an accelerator would not take.

    python benchmarks/simulated_device.py [--plugins kl fdd] [--json table.json]

Tensors have shapes and no values, so it needs no accelerator. It finds operations across devices, values and sizes that
the host waits for, and float64, which Apple's MPS does not have.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace

import torch
from device_cases import BASE_LOSSES, FAMILIES, Case, alignment_of, batch_of, cases, distiller_of, model, registry
from torch import nn
from watched_device import NAME, Event, Kind, Watch, watched_device

from mta_framework.generation.continuous_batching import generate_continuous
from mta_framework.generation.request import DecodingConfig, GenerationRequest
from mta_framework.generation.sampling_settings import Sampling
from mta_framework.testing import random_example
from mta_framework.testing.values import VOCABULARY
from mta_framework.training.distiller import Distiller, contribution
from mta_framework.training.trainer import DistillationTrainer
from mta_framework.training.training_meter import TrainingMeter
from mta_framework.types import Progress

PROGRESS = Progress(3, 10, 0.3)
STEP, GENERATION, ADAPTERS = "optimiser step", "generation", "LoRA and bf16"
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
    "generation/token_sampling.py _require_finite": "in the same place, whether the logits are finite",
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
        self._teacher = model().eval().requires_grad_(False).to(NAME)

    def distiller(self, case: Case, adapters: bool = False) -> Distiller:
        """The module that a run of the case trains, on the device."""
        alignment = alignment_of(case)
        if alignment is not None:
            alignment.to(NAME)
        student = self._students[adapters]
        student.zero_grad()
        return distiller_of(case, student, self._teacher, alignment)


def step(distiller: Distiller, case: Case, watch: Watch, sixteen_bits: bool = False) -> None:
    """Forward and backward pass of a micro-batch, which a run has moved before."""
    batch = batch_of(case).to(NAME)
    watch.events.clear()
    with torch.autocast(NAME, torch.bfloat16, enabled=sixteen_bits):
        loss = contribution(distiller(batch, PROGRESS), dict(batch.counts))
    loss.backward()


def optimiser_step(distiller: Distiller, case: Case, watch: Watch) -> None:
    """A whole step: loss, what the trainer checks and logs, and AdamW."""
    meter = TrainingMeter()
    distiller.health = meter.health
    meter.health.begin_step([random_example(9, 4, by_student=True)], lambda text: True, NAME)
    batch = batch_of(case).to(NAME)
    optimiser = torch.optim.AdamW(distiller.parameters())
    watch.events.clear()
    with torch.autocast(NAME, torch.bfloat16):
        terms = distiller(batch, PROGRESS)
        meter.terms.update(terms, batch.counts)
        loss = contribution(terms, dict(batch.counts))
    loss.backward()
    trainer = SimpleNamespace(
        distiller=distiller,
        meter=meter,
        args=SimpleNamespace(fp16=False),
        state=SimpleNamespace(global_step=3),
        _sum_over_processes=lambda values: values,
        _reduce=lambda terms, where: terms.reduce(where, lambda values: values),
    )
    DistillationTrainer.before_optimizer_step(trainer)  # type: ignore[arg-type]
    nn.utils.clip_grad_norm_(distiller.parameters(), 1.0)
    optimiser.step()
    optimiser.zero_grad()


@torch.no_grad()
def generation(distiller: Distiller, case: Case, watch: Watch) -> None:
    """Sample three tokens of three responses by continuous batching, one of them after the others."""
    sampling = Sampling(temperature=0.7, top_p=0.9, max_new_tokens=3, batch_tokens=18)
    config = DecodingConfig(sampling, ends=(0,), size=VOCABULARY, padding=0, keep_log_probs=True)
    rows = [GenerationRequest(index, (2,) * (5 - index), random.Random(index)) for index in range(3)]
    list(generate_continuous(distiller.student.eval(), rows, config))  # type: ignore[arg-type]
    distiller.student.train()


def rows(models: Models, chosen: Sequence[str] = ()) -> Iterator[Row]:
    """Try all plugins and parts, or those of some names."""
    for family in FAMILIES:
        for name in registry().names(family):
            if not chosen or name in chosen:
                yield _row(family, name, [(case, models.distiller(case), step) for case in cases(family, name)])
    losses = [case for name in registry().names(BASE_LOSSES) for case in cases(BASE_LOSSES, name) if not case.options]
    plain = next(case for case in losses if case.plugin == "distillm2" and case.aligned)
    adapted = [case for case in losses if case.aligned and case.shared_tokenizer]
    parts = {
        ADAPTERS: [(case, models.distiller(case, True), _step_in_16_bits) for case in adapted],
        STEP: [(plain, models.distiller(plain), optimiser_step)],
        GENERATION: [(plain, models.distiller(plain), generation)],
    }
    for name, tried in parts.items():
        if not chosen or name in chosen:
            yield _row("", name, tried)


def _step_in_16_bits(distiller: Distiller, case: Case, watch: Watch) -> None:
    step(distiller, case, watch, sixteen_bits=True)


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
