"""What is reported of models, data and training, for the plan and the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mta_framework.data.prepare import PreparedData
from mta_framework.data.tokens import EncodedSet
from mta_framework.evaluation.report import ReportedData, ReportedModel, ReportedSpans, ReportedTeacher, SpanSample
from mta_framework.models.evaluated import EvaluatedModel
from mta_framework.models.model_summary import ModelSummary
from mta_framework.models.run_models import RunModels
from mta_framework.runs.build import recorded_layers
from mta_framework.runs.folder import RunFolder
from mta_framework.runs.integrity import read_training_log
from mta_framework.runs.plugin_binding import BoundEvaluation, BoundRun
from mta_framework.runs.plugin_files import changed_plugin_files
from mta_framework.runs.preparation import RunInputs
from mta_framework.runs.span_geometry import recorded_geometry

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def run_fields(bound: BoundRun, inputs: RunInputs) -> dict[str, Any]:
    """The fields of a report that a run fills in, once its student is exported."""
    folder = RunFolder.of(bound.spec)
    log = read_training_log(folder.training_log)
    return {
        "spec": resolved(bound),
        "base_loss_title": bound.base_loss.TITLE,
        "term_titles": {term.NAME: term.TITLE for term in bound.terms if term.TITLE},
        "models": reported_models(inputs.run_models),
        "layer_pairs": recorded_layers(folder.key_layers) if folder.key_layers.is_file() else inputs.pairs,
        "data": reported_data(inputs),
        "spans": reported_spans(inputs.data.train),
        "unparsed": inputs.data.unparsed,
        "log": tuple(log.history),
        "steps": log.total_steps,
        "seconds_per_step": log.seconds / log.total_steps,
        "step_time": log.step_time,
        "best": log.best,
        "warnings": (*log.warnings, *changed_plugin_files(folder)),
        "student_folder": folder.student.name,
        "geometry": recorded_geometry(folder.geometry),
        "span_samples": span_samples(inputs.data),
        "response_ends": run_ends(inputs),
        "teachers": reported_teachers(inputs),
    }


def evaluation_fields(bound: BoundEvaluation, model: EvaluatedModel) -> dict[str, Any]:
    """The fields of a report that an evaluation by itself fills in."""
    end = model.turn_end
    return {
        "spec": bound.spec.model_dump(mode="json"),
        "models": {bound.spec.name: size(model.summary)},
        "response_ends": _ends(model.tokenizer, end.plain_id if end.chat_id is None else end.chat_id, end.stop_ids),
    }


def run_ends(inputs: RunInputs) -> tuple[str, ...]:
    """The tokens that end a response of the student: that of its training responses first."""
    models = inputs.run_models
    return _ends(models.tokenizer, inputs.data.train.end_id, models.turn_end.stop_ids)


def _ends(tokenizer: PreTrainedTokenizerBase, first: int, stop_ids: Sequence[int]) -> tuple[str, ...]:
    ids = [first, *(index for index in stop_ids if index != first)]
    return tuple(str(token) for token in tokenizer.convert_ids_to_tokens(ids))


def resolved(bound: BoundRun) -> dict[str, Any]:
    """The spec of a run with every option of its base loss and alignment, defaults included."""
    spec = bound.spec.model_dump(mode="json")
    sections = {
        "spans": bound.spans,
        "importance": bound.importance,
        "pooling": bound.pooling,
        "layers": bound.layers,
    }
    spec["base_loss"]["params"] = bound.base_loss.params.model_dump(mode="json")
    for name, plugin in sections.items():
        if plugin is not None:
            spec["alignment"][name]["params"] = plugin.params.model_dump(mode="json")
    for index, term in enumerate(bound.terms):
        spec["alignment"]["terms"][index]["params"] = term.params.model_dump(mode="json")
    return spec


def reported_models(run_models: RunModels) -> dict[str, ReportedModel]:
    """Parameters and layers of teacher and student."""
    return {name: size(summary) for name, summary in run_models.summaries.items()}


def size(summary: ModelSummary) -> ReportedModel:
    """Parameters and layers of one model."""
    return ReportedModel(summary.parameters, summary.trainable, summary.shape.num_layers)


def reported_data(inputs: RunInputs) -> dict[str, ReportedData]:
    """Rows of the training and the validation set, and of the prompts answered to choose by: used, left out, cut."""
    data, prompts = inputs.data, inputs.answer_prompts
    sets = {"train": data.train, "validation": data.validation}
    answered = {} if prompts is None else {"validation answers": ReportedData(len(prompts.used), prompts.too_long, 0)}
    rows = {
        name: ReportedData(
            used=len(part.examples),
            left_out=part.too_long,
            cut=part.truncated,
            unused=data.unused.get(f"data.{name}", {}),
            cut_prompts=part.cut_prompts,
        )
        for name, part in sets.items()
        if part
    }
    return rows | answered


def reported_teachers(inputs: RunInputs) -> dict[str, ReportedTeacher]:
    """What each of several teachers teaches; empty where there is one, or none."""
    return {
        name: ReportedTeacher(
            len(view.data.train.examples),
            count_supervised(view.data),
            len(view.data.validation.examples) if view.data.validation else 0,
            view.pairs,
            view.loss_layers,
        )
        for name, view in inputs.views().items()
        if name
    }


def count_supervised(data: PreparedData) -> int:
    """Number of supervised tokens of the training set."""
    examples = data.train.examples
    return sum(
        len(example.input_ids) - example.prompt_length
        if example.supervised_T is None
        else int(example.supervised_T[example.prompt_length :].sum())
        for example in examples
    )


def reported_spans(encoded: EncodedSet) -> dict[str, ReportedSpans]:
    """Spans by granularity, without those that truncation removed."""
    granularities = encoded.examples[0].spans
    counts = {name: [len(example.spans[name]) for example in encoded.examples] for name in granularities}
    return {name: ReportedSpans(sum(count), len(count), count.count(0)) for name, count in counts.items()}


def span_samples(data: PreparedData) -> tuple[SpanSample, ...]:
    """The first training texts with their spans; empty without alignment."""
    return tuple(
        SpanSample(text, {name: tuple(map(tuple, ranges.tolist())) for name, ranges in spans.items()})
        for text, spans in data.preview
    )
