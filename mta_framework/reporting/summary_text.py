"""What a report says of a run, in sentences and tables that are the same on every page."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from mta_framework.evaluation.report import Report, ReportedEvaluation, listed_keys
from mta_framework.evaluation.score_tables import metrics, score_table, scores_note
from mta_framework.evaluation.training_log import loss_terms, points, share_by_student
from mta_framework.tables.table import Table
from mta_framework.types import LayerPair
from mta_framework.types.log_entries import TEACHER_LOSS


def summary(report: Report) -> dict[str, Any]:
    """The variables of a template: text and tables, empty where the run did nothing of the kind.

    Names of fields, plugins and files stand between backticks in all sentences.
    """
    evaluation = report.evaluation
    timings = [[stage, f"{seconds:,.1f}"] for stage, seconds in report.timings.items()]
    return {
        "report": report,
        "trained": trained(report) if report.steps else "",
        "losses": _losses(report),
        "scores": [score_table(evaluation, metric) for metric in metrics(evaluation)] if evaluation else [],
        "scores_note": scores_note(evaluation) if evaluation else "",
        "usage": usage(evaluation) if evaluation else "",
        "sets": _sets(evaluation) if evaluation else None,
        "models": _models(report),
        "data": _data(report),
        "teachers": _teachers(report),
        "spans": _spans(report),
        "ends": "" if report.steps else response_ends(report.response_ends),
        "unparsed": unparsed(report),
        "unused_keys": unused_keys_text(report),
        "training_set": origin_text(report.spec.get("data", {}).get("train")),
        "timings": Table(("stage", "seconds"), timings, "Seconds of this command"),
        "versions": Table(("what", "version"), list(report.versions.items()), "Versions", "ll"),
        "loading": loading(report.student_folder),
        "settings": json.dumps(report.spec, indent=2, ensure_ascii=False),
    }


def trained(report: Report) -> str:
    """How the student was trained."""
    spec = report.spec
    steps = f"{report.steps:,} steps of {spec.get('training', {}).get('batch_size')} texts"
    loss = f"the base loss `{spec.get('base_loss', {}).get('name')}`{_alignment(report)}"
    share = share_by_student(report.log)
    responses = "" if share is None else f" {share:.0%} of its training texts had responses that it wrote itself."
    sentence = (
        f"The student was trained for {steps} with {loss}, from seed {spec.get('seed')}.{responses}{chosen(report)}"
    )
    return f"{sentence} {response_ends(report.response_ends)}".rstrip()


def response_ends(tokens: Sequence[str]) -> str:
    """The tokens that end a response, as a sentence; empty where they are not known."""
    first, *others = [f"`{token}`" for token in tokens] or [""]
    also = f" (also: {', '.join(others)})" if others else ""
    return f"A response ends at {first}{also}." if first else ""


def chosen(report: Report) -> str:
    """Which checkpoint the student is and why training ended, after a space; empty for the student of the last step."""
    best = report.best
    if best is None:
        return ""
    stopped = ""
    if report.steps < best.planned_steps:
        patience = (report.spec.get("training") or {}).get("early_stopping_patience") or 1
        validations = "one validation" if patience == 1 else f"{patience} validations in a row"
        stopped = f" Training stopped before the {best.planned_steps:,} planned steps: {validations} brought no better."
    return f" It is that of step {best.step:,}, the best by `{best.metric}` in validation ({best.value:.4g}).{stopped}"


def _alignment(report: Report) -> str:
    alignment = report.spec.get("alignment")
    if not alignment:
        return ""
    pairs = _pairs(report.layer_pairs)
    if report.teachers:
        pairs = "; ".join(f"{name}: {_pairs(teacher.layer_pairs)}" for name, teacher in report.teachers.items())
    terms = ", ".join(_term(term) for term in alignment["terms"])
    pooling = f", pooled by `{alignment['pooling']['name']}`" if alignment.get("pooling") else ""
    return (
        f" and alignment (terms {terms}; spans `{alignment['spans']['name']}`, token weights "
        f"`{alignment['importance']['name']}`{pooling}; "
        f"key layers student→teacher: {pairs})"
    )


def _pairs(pairs: Sequence[LayerPair]) -> str:
    return ", ".join(f"{pair.student}→{pair.teacher} ({pair.granularity})" for pair in pairs)


def _term(term: Mapping[str, Any]) -> str:
    options = ", ".join(f"{name} {value}" for name, value in term.get("params", {}).items() if value is not None)
    return f"{term['weight']:g} × `{term['name']}`" + (f" ({options})" if options else "")


def origin_text(section: Mapping[str, Any] | None) -> str:
    """Where a model or a data set comes from, given its section of the spec."""
    section = section or {}
    if section.get("hub"):
        return section["hub"] + (f" at {section['revision']}" if section.get("revision") else "")
    if section.get("config"):
        return f"{section['config'].get('model_type')}, freshly initialised"
    if section.get("teacher_layers"):
        return "layers " + ", ".join(map(str, section["teacher_layers"])) + " of the teacher"
    return str(section.get("path") or section.get("run") or "")


def unparsed(report: Report) -> str:
    """How many segments of text the span extractor could not parse; empty where there is none."""
    return f"Segments that could not be parsed and have no spans: {report.unparsed:,}." * (report.unparsed > 0)


def unused_keys_text(report: Report) -> str:
    """The keys of training rows that nothing reads; empty where there is none."""
    sets = {name: section.unused for name, section in report.data.items() if section.unused}
    listed = "; ".join(f"{name}: {listed_keys(unused)}" for name, unused in sets.items())
    return f"Keys of rows that are not used: {listed}." if listed else ""


def usage(evaluation: ReportedEvaluation) -> str:
    """What metrics cost; empty where they cost nothing."""
    costs = [
        f"`{metric.label}` took " + ", ".join(f"{name} {amount:,g}" for name, amount in metric.usage.items())
        for metric in evaluation.metrics
        if metric.usage
    ]
    return f"{'; '.join(costs)}." if costs else ""


def loading(folder: str) -> str:
    """Python that loads the student from a folder."""
    quoted = json.dumps(folder, ensure_ascii=False)
    return (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f"model = AutoModelForCausalLM.from_pretrained({quoted})\n"
        f"tokenizer = AutoTokenizer.from_pretrained({quoted})\n"
    )


def _losses(report: Report) -> Table | None:
    values = {name: points(report.log, name)[1] for name in loss_terms(report.log) or ["loss"]}
    rows = [[name, f"{logged[0]:.4g}", f"{logged[-1]:.4g}"] for name, logged in values.items() if logged]
    return Table(("loss term", "first logged", "last logged"), rows, "The loss in training", "lrr") if rows else None


def teacher_sections(report: Report) -> dict[str, Any]:
    """The sections of the spec that name its teachers, by the names that these have as models."""
    if section := report.spec.get("teacher"):
        return {"teacher": section}
    return {f"teachers.{name}": section for name, section in (report.spec.get("teachers") or {}).items()}


def _models(report: Report) -> Table:
    rows = []
    teachers = teacher_sections(report)
    for role, model in report.models.items():
        # An evaluation without a run has one model.
        section = teachers.get(role) or report.spec.get(role) or report.spec.get("model")
        rows.append([role, origin_text(section), f"{model.parameters:,}", f"{model.trainable:,}"])
    shown = 4 if report.steps else 3
    header = ("model", "source", "parameters", "trained")[:shown]
    return Table(header, [row[:shown] for row in rows], "The models", "llrr"[:shown])


def _data(report: Report) -> Table:
    entries = report.data.items()
    rows = [[name, *(f"{n:,}" for n in (row.used, row.left_out, row.cut, row.cut_prompts))] for name, row in entries]
    shown = 5 if any(row.cut_prompts for row in report.data.values()) else 4
    header = ("set", "rows used", "left out (prompt too long)", "used with a cut response", "used with a cut prompt")
    return Table(header[:shown], [row[:shown] for row in rows], "The training texts")


def _teachers(report: Report) -> Table | None:
    """What each of several teachers taught, and the loss on its texts."""
    rows = []
    for name, teacher in report.teachers.items():
        losses = points(report.log, f"{TEACHER_LOSS}{name}")[1] or [math.nan]
        counts = [f"{count:,}" for count in (teacher.texts, teacher.tokens, teacher.validation_texts)]
        rows.append([name, *counts, f"{losses[0]:.4g}", f"{losses[-1]:.4g}"])
    header = ("teacher", "texts", "supervised tokens", "validation texts", "first logged loss", "last logged loss")
    return Table(header, rows, "The teachers and their texts") if rows else None


def _spans(report: Report) -> Table:
    rows = [
        [name, f"{row.spans:,}", f"{row.spans / max(row.texts, 1):.1f}", f"{row.texts_without:,} of {row.texts:,}"]
        for name, row in report.spans.items()
    ]
    return Table(("spans (training set)", "in all", "per text", "texts without"), rows, "Their spans")


def _sets(evaluation: ReportedEvaluation) -> Table:
    rows = [
        [f"{entry.set}, {entry.model}", f"{entry.prompts:,}", f"{entry.cut:,}", f"{entry.finished:.0%}"]
        for entry in evaluation.sets
    ]
    header = ("set, model", "prompts", "shortened prompts", "responses that ended by themselves")
    return Table(header, rows, "Evaluated prompts")
