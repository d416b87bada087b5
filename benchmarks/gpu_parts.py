"""The parts that ``gpu.py`` runs: generator functions that measure one thing after another."""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import synthetic
import torch
from generation import Implementations, prompts_of
from gpu_settings import LARGE_VOCABULARY, LARGEST, SMALL, WIDE, Pair, Settings
from host_waits import BACKWARD, Wait, by_line, first_wait, recording
from isolated_parts import FAULT, Measured, Part, Row, fault_of
from memory import peak_bytes
from torch.profiler import ProfilerActivity, profile
from workload import LossFunction, Options, Texts, Workload

from mta_framework.evaluation.environment import environment
from mta_framework.models.loading import load_teacher
from mta_framework.models.tokenizers import load_teacher_tokenizer
from mta_framework.registry import discover
from mta_framework.spec.teacher import TeacherSection
from mta_framework.types import ATTENDED_TOKENS

GIB = 2**30
WAITING = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
"""Calls of the CUDA runtime during which the host waits."""

_TINY_SHAPE = {**synthetic.SHAPE, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 6}
_TINY_SHAPE |= {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 4100}
WAITS_PAIR = Pair(_TINY_SHAPE, {"teacher_layers": [1, 3, 5, 6]}, 4)
"""Where the host waits does not depend on sizes, so small models show it."""


def rows_file(folder: Path) -> Path:
    """The texts of all parts."""
    path = folder / "rows.jsonl"
    return path if path.exists() else synthetic.write_rows(path)


def teacher_of(pair: Pair, folder: Path, device: str) -> Path:
    """Folder of the pair's teacher, in bfloat16; made by the first part that needs it."""
    name = "-".join(str(value) for value in pair.teacher.values())
    path = folder / name
    if not path.exists():
        unfinished = folder / f"{name}.unfinished"
        synthetic.write_model(unfinished, rows_file(folder), dict(pair.teacher), device, "bfloat16")
        unfinished.rename(path)
        _free()
    return path


@contextmanager
def workload_of(settings: Settings, folder: Path, pair: Pair, **options: Any) -> Iterator[Workload]:
    """Models and batches of a pair, in bfloat16 unless told otherwise; their memory is freed afterwards."""
    teacher = teacher_of(pair, folder, settings.device)
    chosen = {"bases": ["kl"], "dtype": "bfloat16", "student": pair.student, **options}
    sizes = {"steps": settings.steps, "batch_size": pair.batch_size, "max_length": settings.max_length}
    workload = Workload(rows_file(folder), teacher, Options(**sizes, **chosen, device=settings.device, spans="words"))
    try:
        yield workload
    finally:
        vars(workload).clear()  # whoever still holds it would hold its models
        _free()


def machine(settings: Settings, folder: Path) -> Measured:
    """Versions, and the rate of a plain matrix product, which bounds that of everything else."""
    row = dict(environment(settings.device))
    if settings.device != "cpu":
        properties = torch.cuda.get_device_properties(0)
        row |= {
            "memory, GiB": f"{properties.total_memory / GIB:.1f}",
            "compute": f"{properties.major}.{properties.minor}",
        }
    yield "Machine", row
    size = settings.matrix
    for dtype in ("float32", "bfloat16", "float16"):
        left = torch.randn(size, size, device=settings.device, dtype=getattr(torch, dtype))
        seconds = min(_seconds(lambda left=left: left @ left, settings.device) for _ in range(5))  # type: ignore[misc]
        yield (
            f"Product of two matrices of {size} rows",
            {"dtype": dtype, "TFLOP/s": round(2 * size**3 / seconds / 1e12, 1)},
        )


def losses(settings: Settings, folder: Path) -> Measured:
    """Steps of every base loss without MTA and with it, and the naive implementation."""
    bases = settings.bases or discover().names("base_losses")
    with workload_of(settings, folder, settings.pairs[SMALL], bases=bases) as workload:
        yield from _teacher_row(workload, f"Base losses, {SMALL}")
        variants = _variants(workload) | {"naive kl, MTA on": lambda: workload.losses()["naive kl, MTA on"]}
        for name, make in variants.items():
            yield f"Base losses, {SMALL}", _attempt(name, partial(_step_row, workload, make))


def terms(settings: Settings, folder: Path) -> Measured:
    """Steps of KL with each alignment term, and with MTA by each importance estimator."""
    title = f"Alignment terms and importance estimators, {SMALL}"
    with workload_of(settings, folder, settings.pairs[SMALL]) as workload:
        yield title, _attempt("kl", partial(_step_row, workload, partial(workload.loss, "kl")))
        for name in settings.terms or discover().names("alignment_terms"):
            make = partial(workload.aligned_by, [name])
            yield title, _attempt(f"kl + {name}", partial(_step_row, workload, make))
    for name in settings.estimators or discover().names("importance_estimators"):
        with workload_of(settings, folder, settings.pairs[SMALL], importance=name) as workload:
            make = partial(workload.loss, "kl", aligned=True)
            yield title, _attempt(f"kl + MTA, importance {name}", partial(_step_row, workload, make))


def precision(settings: Settings, folder: Path) -> Measured:
    """Steps of KL in float32, and with bfloat16 and float16."""
    for dtype in ("bfloat16", "float16", "float32"):
        yield from _pair_rows(settings, folder, WIDE, dtype, dtype=dtype)


def large_vocabulary(settings: Settings, folder: Path) -> Measured:
    """Steps of a pair with a large vocabulary: plain, with gradient checkpointing, with LoRA, with both."""
    lora = {**settings.pairs[LARGE_VOCABULARY].student, "lora": {"rank": 16}}
    variants: dict[str, dict[str, Any]] = {
        "all weights": {},
        "gradient checkpointing": {"gradient_checkpointing": True},
        "LoRA": {"student": lora},
        "LoRA, gradient checkpointing": {"student": lora, "gradient_checkpointing": True},
    }
    for name, options in variants.items():
        yield from _pair_rows(settings, folder, LARGE_VOCABULARY, name, **options)


def largest(settings: Settings, folder: Path) -> Measured:
    """Steps with the largest teacher."""
    yield from _pair_rows(settings, folder, LARGEST, "bfloat16")


def profiled(settings: Settings, folder: Path) -> Measured:
    """What the CUDA runtime and the GPU do in one step: launches, waits, copies, busy time, largest operations."""
    bases = [name for name in ("kl", "fdd", "distillm2") if not settings.bases or name in settings.bases]
    with workload_of(settings, folder, settings.pairs[SMALL], bases=bases) as workload:
        for name, make in _variants(workload).items():
            yield "One step in the profiler", _attempt(name, partial(_profile_row, workload, make))


def waits(settings: Settings, folder: Path) -> Measured:
    """Where the host waits in a step of every base loss, alignment term and importance estimator."""
    recorded: dict[str, list[Wait]] = {}
    bases = settings.bases or discover().names("base_losses")
    with workload_of(settings, folder, WAITS_PAIR, bases=bases) as workload:
        makes = _variants(workload)
        names = settings.terms or discover().names("alignment_terms")
        makes |= {f"kl + {name}": partial(workload.aligned_by, [name]) for name in names}
        for name, make in makes.items():
            yield "Host waits of a step", _attempt(name, partial(_waits_row, workload, make, recorded, name))
    lora, estimators = (
        {**WAITS_PAIR.student, "lora": {}},
        settings.estimators or discover().names("importance_estimators"),
    )
    others: dict[str, dict[str, Any]] = {
        **{f"importance {name}": {"importance": name} for name in estimators},
        "LoRA": {"student": lora},
        "gradient checkpointing": {"gradient_checkpointing": True},
        "float32": {"dtype": "float32"},
        "float16": {"dtype": "float16"},
    }
    for name, options in others.items():
        with workload_of(settings, folder, WAITS_PAIR, **options) as workload:
            make = partial(workload.loss, "kl", aligned=True)
            row = partial(_waits_row, workload, make, recorded, f"kl + MTA, {name}")
            yield "Host waits of a step", _attempt(f"kl + MTA, {name}", row)
    for row in lines_of(recorded):
        yield "Lines at which the host waits in a step", row


def lines_of(recorded: Mapping[str, list[Wait]]) -> Iterator[Row]:
    """One row for each line at which the host waits, with the variants that wait there."""
    variants: dict[Wait, list[str]] = {}
    for name, of_variant in recorded.items():
        for wait, count in by_line(of_variant):
            variants.setdefault(wait, []).append(f"{name} ({count})")
    for wait, names in sorted(variants.items(), key=lambda entry: -len(entry[1])):
        yield {**vars(wait), "variants (waits)": "; ".join(names)}


def generation(settings: Settings, folder: Path) -> Measured:
    """Tokens per second by continuous and static batching and by transformers' loop; under autocast as in training."""
    path = teacher_of(settings.pairs[SMALL], folder, settings.device)
    section = TeacherSection(path=str(path))
    tokenizer = load_teacher_tokenizer(section)
    sizes = {"prompts": settings.prompts, "rows": settings.rows, "new_tokens": settings.new_tokens}
    others = {"max_prompt_length": 128, "temperature": 1.0, "template": "alpaca", "device": settings.device}
    command = argparse.Namespace(data=rows_file(folder), **sizes, **others)
    prompts = prompts_of(command, tokenizer, folder)
    for dtype in ("bfloat16", "float32"):
        model = load_teacher(section, None, dtype).to(settings.device)  # type: ignore[arg-type]
        # Random weights choose every token alike: with many ends, responses end at different lengths.
        ways = Implementations(model, tokenizer, command, ends=range(0, model.config.vocab_size, 100))
        label, autocast = f"{dtype}{' under bfloat16 autocast' if dtype == 'float32' else ''}", dtype == "float32"
        named = {"continuous batching": ways.ours}
        if not autocast:
            named |= {"static batching": ways.static, "transformers' generate, file order": ways.plain}
        for name, way in named.items():
            work = partial(_generation_row, way, prompts, settings.device, autocast)
            yield f"Generation, {SMALL}, {settings.rows} rows at once", _attempt(f"{name}, {label}", work)
        del model, ways, named
        _free()


def _generation_row(way: Callable[..., int], prompts: list[list[int]], device: str, autocast: bool) -> Row:
    with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=autocast):
        way(prompts[:2])
        _reset_peak(device)
        tokens = [0]
        seconds = _seconds(lambda: tokens.append(way(prompts)), device)
    return {
        "useful tokens": tokens[-1],
        "s": _digits(seconds),
        "tokens/s": round(tokens[-1] / seconds),
        **_peak(device),
    }


def _variants(workload: Workload) -> dict[str, Callable[[], LossFunction]]:
    variants: dict[str, Callable[[], LossFunction]] = {}
    for name, loss in workload.bases.items():
        if not loss.NEEDS_ALIGNMENT:
            variants[f"{name}, MTA off"] = partial(workload.loss, name)
        variants[f"{name}, MTA on"] = partial(workload.loss, name, aligned=True)
    return variants


def _pair_rows(settings: Settings, folder: Path, name: str, label: str, **options: Any) -> Measured:
    """A step of KL of a pair without MTA and with it, and the teacher's share, which a cache would save."""
    title = f"Pair {name}"
    try:
        with workload_of(settings, folder, settings.pairs[name], **options) as workload:
            for variant, make in _variants(workload).items():
                row = _attempt(f"{variant}, {label}", partial(_step_row, workload, make))
                yield title, row
            yield from _teacher_row(workload, title, label)
    except Exception as error:  # the pair's next variant may fit
        yield title, {"variant": label, FAULT: fault_of(error)}
    _free()


def _teacher_row(workload: Workload, title: str, label: str = "") -> Measured:
    def measure() -> Row:
        times = _times(workload, workload.run_teacher)
        return {"step, ms": _milliseconds(statistics.median(times))}

    yield title, _attempt(f"teacher's forward pass alone{label and f', {label}'}", measure)


def _step_row(workload: Workload, make: Callable[[], LossFunction]) -> Row:
    step = partial(workload.step, make())
    step(workload.texts[0])  # moments and libraries come into being
    peak = _peak_of_step(partial(step, workload.texts[0]), workload.device)
    times = _times(workload, step)
    tokens = sum(texts.batch.counts[ATTENDED_TOKENS] for texts in workload.texts[1:])
    return {
        "step, ms": _milliseconds(statistics.median(times)),
        "min to max": f"{_milliseconds(min(times))} to {_milliseconds(max(times))}",
        "tokens/s": round(tokens / sum(times)),
        **peak,
    }


def _peak_of_step(step: Callable[[], None], device: str) -> Row:
    if device == "cpu":  # rehearsed: nobody looks at it
        return {}
    held = torch.cuda.memory_allocated()
    beyond = peak_bytes(step, device)
    return {"peak, GiB": _digits((held + beyond) / GIB), "of it beyond weights and moments": _digits(beyond / GIB)}


def _times(workload: Workload, step: Callable[[Texts], None]) -> list[float]:
    """Seconds on each text but the first, each run once before: memory of each shape is known by then."""
    for texts in workload.texts[1:]:
        step(texts)
    return [_seconds(partial(step, texts), workload.device) for texts in workload.texts[1:]]


def _profile_row(workload: Workload, make: Callable[[], LossFunction]) -> Row:
    work = partial(workload.step, make(), workload.texts[-1])
    work()
    seconds = _seconds(work, workload.device)
    on_gpu = workload.device != "cpu"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as recorded:
        work()
        _wait_for(workload.device)
    averages = recorded.key_averages()
    counts = {event.key: event.count for event in averages}
    on_device = [event for event in averages if on_gpu and str(event.device_type).endswith("CUDA")]
    kernels = [event for event in on_device if not event.is_user_annotation]
    busy = sum(event.self_device_time_total for event in kernels) / 1e6
    largest_kernels = sorted(kernels, key=lambda event: -event.self_device_time_total)[:5]
    return {
        "step, ms": _milliseconds(seconds),
        "GPU busy, ms": _milliseconds(busy),
        "launches": sum(count for name, count in counts.items() if name.startswith(("cudaLaunch", "cuLaunch"))),
        **{name: counts.get(name, 0) for name in WAITING},
        "copies to the host": sum(count for name, count in counts.items() if name.startswith("Memcpy DtoH")),
        "copies to the device": sum(count for name, count in counts.items() if name.startswith("Memcpy HtoD")),
        "longest kernels, ms": "; ".join(
            f"{event.key[:60]} {event.self_device_time_total / 1e3:.2f}" for event in largest_kernels
        ),
    }


def _waits_row(workload: Workload, make: Callable[[], LossFunction], recorded: dict[str, list[Wait]], name: str) -> Row:
    work = partial(workload.step, make(), workload.texts[0])
    work()
    with recording(workload.device) as seen:
        work()
    recorded[name] = seen
    backward = [wait for wait in seen if wait.phase == BACKWARD]
    located = _first_in_backward(workload, make()) if backward else None
    return {
        "host waits": len(seen),
        "of them in the backward pass": len(backward),
        "first of them": f"{located.line} {located.code}" if located else "",
        "lines": "; ".join(f"{wait.inside or wait.line} ({count})" for wait, count in by_line(seen)),
    }


def _first_in_backward(workload: Workload, loss_of: LossFunction) -> Wait | None:
    loss = loss_of(workload.texts[0])
    wait = first_wait(loss.backward, workload.device)
    workload.optimizer.zero_grad()
    return wait


def _attempt(variant: str, measure: Callable[[], Row]) -> Row:
    """The row of a variant, or the fault that it has."""
    try:
        return {"variant": variant, **measure()}
    except Exception as error:  # a fault of one variant must not cost the others
        fault = fault_of(error)
    _free()
    return {"variant": variant, FAULT: fault}


def _seconds(work: Callable[[], object], device: str) -> float:
    _wait_for(device)
    start = time.perf_counter()
    work()
    _wait_for(device)
    return time.perf_counter() - start


def _wait_for(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def _reset_peak(device: str) -> None:
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()


def _peak(device: str) -> Row:
    return {} if device == "cpu" else {"peak, GiB": _digits(torch.cuda.max_memory_allocated() / GIB)}


def _free() -> None:
    gc.collect()
    torch.cuda.empty_cache()


def _milliseconds(seconds: float) -> float:
    return _digits(seconds * 1000)


def _digits(value: float) -> float:
    """The value to four digits."""
    return float(f"{value:.4g}")


PARTS = (
    Part("machine", machine, 30),
    Part("waits", waits, 80),
    Part("losses", losses, 110),
    Part("precision", precision, 80),
    Part("profile", profiled, 40),
    Part("generation", generation, 70),
    Part("terms", terms, 60),
    Part("large-vocabulary", large_vocabulary, 80),
    Part("largest", largest, 90),
)
"""The parts that compute in their own process, most useful first."""
