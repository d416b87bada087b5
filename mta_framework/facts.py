"""Facts about models and data that the plan and the report share."""

from __future__ import annotations

import logging
from typing import Any

from mta_framework.binding import BoundRun
from mta_framework.data.prepare import PreparedData
from mta_framework.data.tokens import EncodedSet
from mta_framework.errors import Fault
from mta_framework.evaluation.report import DataFacts, ModelFacts, SpanFacts, SpanSample
from mta_framework.generation.limits import room_fault
from mta_framework.models.lineup import Lineup
from mta_framework.processes import processes
from mta_framework.spec.sections import RunSpec

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


def model_facts(lineup: Lineup) -> dict[str, ModelFacts]:
    """Parameters of teacher and student."""
    outlines = {"teacher": lineup.teacher_outline, "student": lineup.student_outline}
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


def length_faults(spec: RunSpec, lineup: Lineup) -> list[Fault]:
    """Texts that are longer than a model has positions for, in training or in evaluation."""
    outlines = {"student": lineup.student_outline, "teacher": lineup.teacher_outline}
    faults = []
    for name, outline in outlines.items():
        positions = getattr(outline.config, "max_position_embeddings", None) if outline else None
        if positions is not None and spec.data.max_length > positions:
            wrong = f"is more than the {name} has positions (got {spec.data.max_length})"
            faults.append(Fault("data.max_length", wrong, f"at most {positions}", "Lower it, or take another model."))
    if spec.evaluation is not None:
        limits = spec.evaluation.max_prompt_length, spec.evaluation.max_new_tokens
        evaluated = {name.removeprefix("initial_") for name in spec.evaluation.models}
        found = [
            room_fault(outline.config, *limits) for name, outline in outlines.items() if outline and name in evaluated
        ]
        faults += [fault for fault in found if fault]
    return faults


def warn_of_size(lineup: Lineup) -> None:
    """Tell the user, once for all processes, of a student larger than its teacher: allowed, and seldom meant."""
    student, teacher = lineup.student_outline, lineup.teacher_outline
    if teacher is not None and student.parameters > teacher.parameters and processes().is_main_process:
        sizes = f"{student.parameters:,} and {teacher.parameters:,}"
        _log.warning("student: has more parameters than its teacher (got %s); the run goes on as asked.", sizes)


def tokenizer_faults(bound: BoundRun, lineup: Lineup) -> list[Fault]:
    """What cannot be done where teacher and student have tokenizers of their own."""
    different, spec = lineup.tokenizer_difference, bound.spec
    if different is None:
        return []
    faults = []
    if bound.base_loss.NEEDS_SHARED_VOCABULARY:
        wrong = f"differs from the teacher's {different}"
        name = bound.base_loss.NAME
        allowed = f"base loss {name!r} compares tokens, and needs the same one for each id that both have"
        todo = f"Take models of one family, or a base loss that does without: {', '.join(bound.other_losses)}."
        faults.append(Fault("student.tokenizer", wrong, allowed, todo))
    elif bound.base_loss.batch_policy() is not None:
        wrong = f"trains on responses, which are in the tokens of their writer alone (got {bound.base_loss.NAME!r})"
        todo = "Train on the data, or take models of one family."
        faults.append(Fault("base_loss", wrong, "a tokenizer that teacher and student share", todo))
    if spec.student.teacher_layers is not None:
        wrong = "is another one than the teacher's, whose embeddings the student takes over (got teacher_layers)"
        faults.append(Fault("student.tokenizer", wrong, "the teacher's tokenizer", "Set it to null."))
    if spec.data.template == "chat":
        wrong = "would give teacher and student different texts, each by the template of its tokenizer (got 'chat')"
        faults.append(Fault("data.template", wrong, "'alpaca', or one tokenizer for both", "Set it to 'alpaca'."))
    return faults
