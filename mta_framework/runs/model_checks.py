"""Checks that need the models' configurations and tokenizers, but no weights."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from transformers import PreTrainedConfig

from mta_framework.data.tokens import EncodedSet
from mta_framework.distributed import processes
from mta_framework.errors import Fault, collect_faults
from mta_framework.evaluation.report import listed_keys
from mta_framework.evaluation.scoring import label_metrics
from mta_framework.generation.engines import engine_fault
from mta_framework.generation.limits import max_positions, room_fault
from mta_framework.interfaces import MeasuringLayerMapper, Metric
from mta_framework.models.machine_memory import memory_fault
from mta_framework.models.model_summary import ModelSummary
from mta_framework.models.run_models import RunModels
from mta_framework.models.saved_teacher import require_weights
from mta_framework.runs.plugin_binding import BoundRun
from mta_framework.spec.evaluation import ScoringSection
from mta_framework.spec.run import RunSpec
from mta_framework.spec.several_teachers import teacher_field

_log = logging.getLogger(__name__)


def trained_summaries(bound: BoundRun, run_models: RunModels) -> dict[str, ModelSummary]:
    """The summaries of the models that training runs, by name."""
    return run_models.summaries if bound.runs_teacher else {"student": run_models.student_summary}


def length_faults(bound: BoundRun, run_models: RunModels) -> list[Fault]:
    """Faults of training texts that are longer than a model has positions for."""
    faults, length = [], bound.spec.data.max_length
    for name, summary in trained_summaries(bound, run_models).items():
        positions = max_positions(summary.config)
        if positions is not None and length > positions:
            problem = f"is more than the {name} has positions (got {length})"
            faults.append(Fault("data.max_length", problem, f"at most {positions}", "Lower it, or take another model."))
    return faults


def live_teacher_uses(bound: BoundRun, similarity: bool = True) -> tuple[str, ...]:
    """What the live teacher is loaded for though all texts of the data are in the cache, as noun phrases.

    Args:
        bound: The run.
        similarity: Whether the similarity of layers is listed, which may be kept, too.
    """
    uses = []
    if bound.base_loss.batch_policy() is not None:
        uses.append("responses that are written during training")
    if similarity and isinstance(bound.layers, MeasuringLayerMapper):
        uses.append("the similarity of layers, unless it is kept")
    if bound.spec.student.teacher_layers is not None:
        uses.append("the student's initial weights")
    if bound.spec.evaluation is not None and "teacher" in bound.spec.evaluation.models:
        uses.append("its own evaluation")
    return tuple(uses)


def weight_faults(bound: BoundRun) -> list[Fault]:
    """A fault for each thing that needs the teacher's weights, where ``teacher.path`` holds none."""
    section, faults = bound.spec.teacher, list[Fault]()
    if section is None or section.server is not None:
        return faults
    uses = live_teacher_uses(bound, similarity=False)
    if bound.reads_teacher and section.cache is None:
        uses = (*uses, "every step, without teacher.cache")
    for use in uses:
        with collect_faults(faults):
            require_weights(section.path, "teacher.path", use)
    return faults


def gpu_faults(spec: RunSpec) -> Iterator[Fault]:
    """Yield a fault for every setting that needs a GPU, where there is none."""
    if processes().device.type != "cpu":
        return
    attention = "flash_attention_2", "sdpa or eager on a CPU", "Use one of these"
    for where, value, needing, expected, hint in (
        # torch scales gradients, which fp16 needs, only on accelerators.
        ("training.precision", spec.training.precision, "fp16", "fp32 or bf16 on a CPU", "Use bf16 or fp32"),
        ("training.optimizer", spec.training.optimizer, "paged_adamw_8bit", "adamw_8bit on a CPU", "Use it"),
        ("student.attention", spec.student.attention, *attention),
        ("teacher.attention", spec.teacher and spec.teacher.attention, *attention),
    ):
        if value == needing:
            problem = f"needs a GPU, and there is none (got {value!r})"
            yield Fault(where, problem, expected, f"{hint}, or a machine with a GPU.")


def block_faults(bound: BoundRun, run_models: RunModels, reads_layers: bool) -> list[Fault]:
    """Faults of models whose decoder blocks cannot be told apart, where key layers are read or blocks are sharded.

    Args:
        bound: The run.
        run_models: Models of the run.
        reads_layers: Whether key layers are read.
    """
    lacking, without = "key layers that can be read", "leave out alignment and losses of hidden states"
    if not reads_layers:
        lacking, without = "decoder blocks that can be sharded", "set training.sharding to null"
    return [
        Fault(
            summary.where,
            f"has no {lacking}, since {summary.blocks_problem}",
            "a model with a list of decoder blocks",
            f"Choose another, or {without}.",
        )
        for summary in trained_summaries(bound, run_models).values()
        if summary.blocks_problem
    ]


def joint_memory_fault(bound: BoundRun, run_models: RunModels) -> Fault | None:
    """The fault of teachers and a student that fit into the memory of this machine each, but not together.

    Of several teachers with a cache one is loaded at a time, unless the student writes responses. A teacher that
    training does not run is loaded beside the student only to copy blocks of it.
    """
    summaries = {name: summary for name, summary in run_models.summaries.items() if summary.has_weights}
    if len(summaries) < 2 or not (bound.runs_teacher or bound.spec.student.teacher_layers):
        return None
    several, policy = bound.spec.teachers or {}, bound.base_loss.batch_policy()
    alone = {teacher_field(name) for name, section in several.items() if section.keeps_records and policy is None}
    together = sum(summary.weight_bytes for name, summary in summaries.items() if name not in alone)
    together += max((summary.weight_bytes for name, summary in summaries.items() if name in alone), default=0)
    hint = "Give teachers a cache, so that one is loaded at a time." if several else ""
    fault = memory_fault(together, "teachers and student" if several else "teacher and student")
    return replace(fault, hint=hint) if fault and hint else fault


def idle_teacher_faults(spec: RunSpec, train: EncodedSet) -> list[Fault]:
    """Faults of teachers without a text in the training set."""
    named = {text.teacher_name for text in train.examples}
    hint = f"Name it in {spec.data.teacher_field} of its rows, raise data.max_prompt_length for them, or remove it."
    problem, expected = "has no text of data.train that is used", "a teacher that rows name"
    return [Fault(teacher_field(name), problem, expected, hint) for name in spec.teachers or {} if name not in named]


def spanless_faults(bound: BoundRun, train: EncodedSet) -> list[Fault]:
    """The fault of granularities of which no text of the training set has a span, so that key layers add nothing."""
    if bound.spans is None or bound.layers is None:
        return []
    lacking = [name for name in bound.layers.granularities if not any(len(text.spans[name]) for text in train.examples)]
    if not lacking:
        return []
    got = f"got {bound.spans.NAME!r} and {len(train.examples)} texts"
    problem = f"finds no {' and no '.join(lacking)} in data.train ({got})"
    hint = "Choose another span extractor or other options, or layers for other spans in alignment.layers."
    return [Fault("alignment.spans", problem, "spans of every granularity of alignment.layers", hint)]


def tokenizer_faults(bound: BoundRun, run_models: RunModels) -> list[Fault]:
    """Faults of settings that need one tokenizer, where teacher and student each have their own."""
    difference, spec = run_models.tokenizer_difference, bound.spec
    if difference is None:
        return []
    faults = []
    if bound.base_loss.NEEDS_SHARED_VOCABULARY:
        problem = f"differs from the teacher's {difference}"
        name = bound.base_loss.NAME
        expected = f"one token for each id that both have, as base loss {name!r} compares tokens"
        hint = f"Take models of one family, or a base loss that does without: {', '.join(bound.other_losses)}."
        faults.append(Fault("student.tokenizer", problem, expected, hint))
    elif bound.base_loss.batch_policy() is not None:
        problem = f"trains on responses, which only their writer's tokenizer can read (got {bound.base_loss.NAME!r})"
        hint = "Train on the data, or take models of one family."
        faults.append(Fault("base_loss", problem, "one tokenizer for teacher and student", hint))
    for index, term in enumerate(bound.terms):
        if term.needs_shared_tokenizer:
            problem = f"compares token by token (got {term.NAME!r})"
            hint = "Leave it out, or take models of one family."
            where = f"alignment.terms.{index}"
            faults.append(Fault(where, problem, "one tokenizer for teacher and student", hint))
    if spec.student.teacher_layers is not None:
        problem = f"is not that of the teacher, whose embeddings the student takes (got {spec.student.tokenizer!r})"
        faults.append(Fault("student.tokenizer", problem, "the teacher's tokenizer", "Set it to null."))
    if spec.data.template == "chat" and bound.runs_teacher:
        problem = "would give teacher and student different texts, each by the template of its tokenizer (got 'chat')"
        faults.append(Fault("data.template", problem, "'alpaca', or one tokenizer for both", "Set it to 'alpaca'."))
    return faults


def unit_fault(bound: BoundRun, run_models: RunModels) -> Fault | None:
    """The fault of a base loss that counts other units with some teachers than with others.

    One for any two tokenizers counts tokens where student and teacher share theirs, and what both have in common
    elsewhere. Sums in two units make no mean over the rows.
    """
    loss, views = bound.base_loss, run_models.views().items()
    if not loss.NEEDS_TEACHER or loss.NEEDS_SHARED_VOCABULARY:
        return None
    with_student = [name for name, models in views if models.tokenizer_difference is None]
    apart = [name for name, models in views if name not in with_student]
    if not with_student or not apart:
        return None
    problem = f"counts differently for teachers with the student's tokenizer ({', '.join(with_student)})"
    problem += f" and for those with another ({', '.join(apart)}; got {loss.NAME!r})"
    expected = "teachers that all have the student's tokenizer, or all another one"
    return Fault("base_loss", problem, expected, "Give the teachers of each kind a run of their own.")


def evaluation_faults(
    section: ScoringSection | None, metrics: Sequence[Metric], configs: Callable[[], Iterable[PreTrainedConfig]]
) -> list[Fault]:
    """Faults of an evaluation apart from its data: engine, metrics, and the positions that each model has."""
    if section is None:
        return []
    faults = [fault for fault in [engine_fault(section.engine, "evaluation.engine")] if fault]
    with collect_faults(faults):
        label_metrics(metrics)
    with collect_faults(faults):
        room = [room_fault(config, section.max_prompt_length, section.max_new_tokens) for config in configs()]
        faults += [fault for fault in room if fault]
    return faults


def warn_of_unused_keys(unused: Mapping[str, Mapping[str, int]]) -> None:
    """Warn, once for each data set, of keys of its rows that are not used, which may be misspelt or misplaced.

    Args:
        unused: Field of each data set -> keys -> number of rows that hold something there.
    """
    for where, counts in unused.items():
        if counts and processes().is_main_process:
            _log.warning("%s: keys of its rows are not used (got %s)", where, listed_keys(counts))


def warn_of_size(run_models: RunModels) -> None:
    """Warn, once for all processes, of a student larger than its teacher, which is seldom meant."""
    student = run_models.student_summary
    for name, teacher in run_models.summaries.items():
        if name != "student" and student.parameters > teacher.parameters and processes().is_main_process:
            sizes, its = f"{student.parameters:,} and {teacher.parameters:,}", name.replace("teacher", "its teacher", 1)
            _log.warning("student: has more parameters than %s (got %s); the run goes on as asked.", its, sizes)
