"""Checks that need the models' configurations and tokenizers: lengths and vocabularies."""

from __future__ import annotations

from mta_framework.errors import Fault
from mta_framework.generation.limits import room_fault
from mta_framework.models.run_models import RunModels
from mta_framework.runs.binding import BoundRun
from mta_framework.spec.run import RunSpec


def length_faults(spec: RunSpec, run_models: RunModels) -> list[Fault]:
    """Faults of texts that are longer than a model has positions for, in training or in evaluation."""
    summaries = {"student": run_models.student_summary, "teacher": run_models.teacher_summary}
    faults = []
    for name, summary in summaries.items():
        positions = getattr(summary.config, "max_position_embeddings", None) if summary else None
        if positions is not None and spec.data.max_length > positions:
            problem = f"is more than the {name} has positions (got {spec.data.max_length})"
            faults.append(Fault("data.max_length", problem, f"at most {positions}", "Lower it, or take another model."))
    if spec.evaluation is not None:
        limits = spec.evaluation.max_prompt_length, spec.evaluation.max_new_tokens
        evaluated = {name.removeprefix("initial_") for name in spec.evaluation.models}
        room = [
            room_fault(summary.config, *limits) for name, summary in summaries.items() if summary and name in evaluated
        ]
        faults += [fault for fault in room if fault]
    return faults


def tokenizer_faults(bound: BoundRun, run_models: RunModels) -> list[Fault]:
    """Faults of settings that need one tokenizer, where teacher and student each have their own."""
    difference, spec = run_models.tokenizer_difference, bound.spec
    if difference is None:
        return []
    faults = []
    if bound.base_loss.NEEDS_SHARED_VOCABULARY:
        problem = f"differs from the teacher's {difference}"
        name = bound.base_loss.NAME
        expected = f"base loss {name!r} compares tokens, and needs the same one for each id that both have"
        hint = f"Take models of one family, or a base loss that does without: {', '.join(bound.other_losses)}."
        faults.append(Fault("student.tokenizer", problem, expected, hint))
    elif bound.base_loss.batch_policy() is not None:
        problem = f"trains on responses, which are in the tokens of their writer alone (got {bound.base_loss.NAME!r})"
        hint = "Train on the data, or take models of one family."
        faults.append(Fault("base_loss", problem, "a tokenizer that teacher and student share", hint))
    if spec.student.teacher_layers is not None:
        problem = "is another one than the teacher's, whose embeddings the student takes over (got teacher_layers)"
        faults.append(Fault("student.tokenizer", problem, "the teacher's tokenizer", "Set it to null."))
    if spec.data.template == "chat":
        problem = "would give teacher and student different texts, each by the template of its tokenizer (got 'chat')"
        faults.append(Fault("data.template", problem, "'alpaca', or one tokenizer for both", "Set it to 'alpaca'."))
    return faults
