"""The output of ``mta run --dry-run``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from mta_framework.errors import counted
from mta_framework.reporting.summary_text import response_ends
from mta_framework.tables.table import Table
from mta_framework.tables.terminal import size_text, terminal_table
from mta_framework.tables.terminal_chars import visible

if TYPE_CHECKING:
    from mta_framework.memory_estimate.estimate import MemoryEstimate
    from mta_framework.runs.plan import Plan
    from mta_framework.teacher_cache.cache_plan import CachePlan


def plan_lines(plan: Plan) -> Iterator[str]:
    """The plan of a run as a few small tables."""
    models = [(name, f"{entry.parameters:,}", f"{entry.trainable:,}") for name, entry in plan.models.items()]
    yield from _block(("model", "parameters", "trainable"), models)
    data = [(name, f"{entry.used:,}", f"{entry.left_out:,}", f"{entry.cut:,}") for name, entry in plan.data.items()]
    yield from _block(("data", "used", "left out (prompt too long)", "cut (response too long)"), data)
    for name, entry in plan.data.items():
        if entry.cut_prompts:
            yield from (f"Prompts of {name} that are cut to their first tokens: {entry.cut_prompts:,}.", "")
    spans = [
        (name, f"{entry.spans:,}", f"{entry.texts:,}", f"{entry.texts_without:,}") for name, entry in plan.spans.items()
    ]
    yield from _block(("spans", "number", "texts", "texts without"), spans)
    if plan.unparsed:
        yield from (f"Segments that could not be parsed and have no spans: {plan.unparsed:,}; see `mta spans`.", "")
    pairs = [(pair.granularity, str(pair.student), str(pair.teacher)) for pair in plan.layer_pairs]
    yield from _block(("key layers", "student", "teacher"), pairs)
    if plan.measured:
        yield from ("These key layers are placeholders; the actual ones are measured before the first step.", "")
    read = [("layer", str(student), str(teacher)) for student, teacher in plan.loss_layers]
    yield from _block(("base loss reads", "student", "teacher"), read)
    yield from _teacher_lines(plan)
    if plan.supervised_tokens is not None:
        yield from (f"All assistant turns are supervised: {plan.supervised_tokens:,} tokens of the training set.", "")
    if plan.trained_on:
        yield from (f"Trained on responses. {plan.trained_on}", "")
    if ends := response_ends(plan.response_ends):
        yield from (visible(ends), "")
    if plan.selection:
        yield from (plan.selection, "")
    if plan.device:
        yield from (visible(f"Device: {plan.device}."), "")
    if plan.memory is not None:
        yield from _memory_lines(plan.memory, plan.memory_here)
    for problem in plan.too_large:
        yield from (visible(f"Another machine is needed. {problem}"), "")
    for name, cache in plan.teacher_caches.items():
        yield from _cache_lines(name, cache)
    yield f"{counted(plan.steps, 'optimiser step')}. Nothing was trained."


def _memory_lines(memory: MemoryEstimate, here: int | None) -> Iterator[str]:
    """The peak memory of training by part, when it is reached, and whether this machine has less for a process."""
    batch = f"{counted(memory.texts, 'text')}, padded to {counted(memory.tokens, 'token')}"
    if memory.problem:
        yield from (
            visible(f"The peak memory is not known: a step on {batch}, cannot be traced ({memory.problem})."),
            "",
        )
        return
    parts = [(part, size_text(count)) for part, count in memory.bytes_by_part.items()]
    yield from _block(("memory", "peak per process"), [*parts, ("together", size_text(memory.total))])
    yield from (f"The peak is in the {memory.phase}, with the largest batch: {batch}.", "")
    if here is not None and memory.total > here:
        yield from (f"This machine has {size_text(here)} for a process, which is too little.", "")


def _teacher_lines(plan: Plan) -> Iterator[str]:
    """What each of several teachers teaches, and its layers."""
    every = plan.teachers.items()
    counts = [(name, f"{teacher.texts:,}", f"{teacher.tokens:,}") for name, teacher in every]
    yield from _block(("teacher", "texts", "supervised tokens"), counts)
    pairs = [
        (name, pair.granularity, str(pair.student), str(pair.teacher))
        for name, teacher in every
        for pair in teacher.layer_pairs
    ]
    yield from _block(("teacher", "key layers", "student", "teacher"), pairs)
    read = [(name, str(student), str(layer)) for name, teacher in every for student, layer in teacher.loss_layers]
    yield from _block(("base loss reads", "student", "teacher"), read)


def _cache_lines(teacher: str, cache: CachePlan) -> Iterator[str]:
    """The sizes of a teacher cache by what is kept, and what is still to be made."""
    sizes = [(kind.label, size_text(size), size_text(missing)) for kind, size, missing in cache.sizes]
    if not cache.server:
        sizes.append(("head", size_text(cache.head_bytes), size_text(0 if cache.has_head else cache.head_bytes)))
    sizes.append(("together", size_text(cache.num_bytes), size_text(cache.missing_bytes)))
    yield from _block((f"{teacher} cache", "on disk", "to be made"), sizes)
    made = f"{cache.texts - cache.missing_texts:,} of {cache.texts:,} texts are in {cache.folder}."
    if cache.missing_texts and cache.server:
        made += f" The others, {cache.missing_tokens:,} tokens, are {cache.requests:,} requests to {cache.server}."
    elif cache.missing_texts:
        made += f" The others, {cache.missing_tokens:,} tokens, take about {_duration(cache.seconds)} of this machine."
    yield visible(made)
    if cache.missing_bytes:
        lacking = ", which is too little" if cache.missing_bytes > cache.free_bytes else ""
        yield f"{size_text(cache.free_bytes)} are free on that disk{lacking}."
    if cache.needed_for:
        use = "server is asked" if cache.server else "live teacher is loaded"
        yield f"The {use} for {', '.join(cache.needed_for)}{', too' if cache.server else ''}."
    yield ""


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{max(seconds, 1):.0f} s"


def _block(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    if rows:
        yield from terminal_table(Table(head, rows))
        yield ""
