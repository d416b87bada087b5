"""Facts about models and data that the plan and the report share."""

from __future__ import annotations

import logging
from typing import Any

from mta_framework.data.prepare import PreparedData
from mta_framework.data.tokens import EncodedSet
from mta_framework.distributed import processes
from mta_framework.evaluation.report import DataFacts, ModelFacts, SpanFacts, SpanSample
from mta_framework.models.run_models import RunModels
from mta_framework.runs.binding import BoundRun

_log = logging.getLogger(__name__)


def resolved(bound: BoundRun) -> dict[str, Any]:
    """The spec of a run with every option of its loss and its alignment, those that were left to their defaults too."""
    spec = bound.spec.model_dump(mode="json")
    sections = {"spans": bound.spans, "importance": bound.importance, "layers": bound.layers}
    spec["base_loss"]["params"] = bound.base_loss.params.model_dump(mode="json")
    for name, plugin in sections.items():
        if plugin is not None:
            spec["alignment"][name]["params"] = plugin.params.model_dump(mode="json")
    return spec


def model_facts(run_models: RunModels) -> dict[str, ModelFacts]:
    """Parameters of teacher and student."""
    outlines = {"teacher": run_models.teacher_summary, "student": run_models.student_summary}
    return {
        name: ModelFacts(found.parameters, found.trainable, found.shape.num_layers)
        for name, found in outlines.items()
        if found
    }


def data_facts(data: PreparedData) -> dict[str, DataFacts]:
    """Rows used, left out and cut, of the training and the validation set."""
    sets = {"train": data.train, "validation": data.validation}
    return {name: DataFacts(len(part.examples), part.too_long, part.cut) for name, part in sets.items() if part}


def span_facts(encoded: EncodedSet) -> dict[str, SpanFacts]:
    """Spans by granularity, as far as tokens of them are left."""
    granularities = encoded.examples[0].spans
    counts = {name: [len(example.spans[name]) for example in encoded.examples] for name in granularities}
    return {name: SpanFacts(sum(found), len(found), found.count(0)) for name, found in counts.items()}


def span_samples(data: PreparedData) -> tuple[SpanSample, ...]:
    """The first texts of the training set with their spans; none without alignment."""
    return tuple(
        SpanSample(text, {name: tuple((start, end) for start, end in found.tolist()) for name, found in spans.items()})
        for text, spans in data.shown
    )


def warn_of_size(run_models: RunModels) -> None:
    """Tell the user, once for all processes, of a student larger than its teacher: allowed, and seldom meant."""
    student, teacher = run_models.student_summary, run_models.teacher_summary
    if teacher is not None and student.parameters > teacher.parameters and processes().is_main_process:
        sizes = f"{student.parameters:,} and {teacher.parameters:,}"
        _log.warning("student: has more parameters than its teacher (got %s); the run goes on as asked.", sizes)
