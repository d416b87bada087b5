"""The model card of the exported student: what a hub, and whoever finds the folder, should know of it."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from mta_framework.evaluation.report import Report, ReportedEvaluation
from mta_framework.evaluation.score_tables import metrics
from mta_framework.reporting.page import render_template
from mta_framework.reporting.summary_text import loading, summary, teacher_sections
from mta_framework.tables.terminal_chars import visible

CARD = "README.md"
_TASK = "text-generation"

_PATH = re.compile(r"""(?<![\w.:/\\~])(?:~?/|[A-Za-z]:[\\/])[^\s"',;={}\[\]]*""")
"""An absolute path within a command. A path with a space matches up to the space, and again from the next slash."""


def card(report: Report) -> str:
    """The card, as Markdown with its metadata in front; no absolute path is left in it."""
    shared = redact(report)
    values = summary(shared) | {
        "loading": loading("path/to/this/folder"),
        "teachers_named": list(teacher_sections(shared)),
        "adapters": _is_adapters(shared),
    }
    body = render_template("card.md", **values)
    template = "---\n{{ card_data }}\n---\n\n{{ body }}"
    # YAML leaves some characters as they are that reorder a line.
    return visible(str(ModelCard.from_template(_metadata(shared), template_str=template, body=body)))


def redact(report: Report) -> Report:
    """A copy of the report in which absolute paths of the spec and the command are cut down to their last part."""
    command = _PATH.sub(lambda path: re.split(r"[\\/]", path[0].rstrip("\\/"))[-1], report.command)
    return dataclasses.replace(report, spec=_names(report.spec), command=command)


def _is_adapters(report: Report) -> bool:
    return ((report.spec.get("student") or {}).get("lora") or {}).get("export") == "adapters"


def _metadata(report: Report) -> ModelCardData:
    spec, evaluation = report.spec, report.evaluation
    student, teacher = spec.get("student") or {}, spec.get("teacher") or {}
    base = student.get("hub") or (teacher.get("hub") if student.get("teacher_layers") else None)
    loss = (spec.get("base_loss") or {}).get("name")
    train = (spec.get("data") or {}).get("train") or {}
    tags = [("distillation", teacher_sections(report)), ("mta", spec.get("alignment")), (str(loss), loss)]
    return ModelCardData(
        base_model=base,
        datasets=[train["hub"]] if train.get("hub") else None,
        library_name="peft" if _is_adapters(report) else "transformers",
        pipeline_tag=_TASK,
        tags=[tag for tag, applies in tags if applies],
        metrics=list(dict.fromkeys(_hub_name(evaluation, label) for label in metrics(evaluation))) or None
        if evaluation
        else None,
        model_name=report.name,
        eval_results=list(_results(spec, evaluation)) or None if evaluation else None,
    )


def _results(spec: Any, evaluation: ReportedEvaluation) -> Iterator[EvalResult]:
    sets = (spec.get("evaluation") or {}).get("sets") or {}
    for score in evaluation.scores:
        if score.model == "student" and score.set is not None and math.isfinite(score.mean):
            source = (sets.get(score.set) or {}).get("hub") or score.set
            name, value = _hub_name(evaluation, score.metric), round(score.mean, 4)
            yield EvalResult(_TASK, source, score.set, name, value, metric_name=score.metric)


def _hub_name(evaluation: ReportedEvaluation, label: str) -> str:
    name = next((metric.hub_name for metric in evaluation.metrics if metric.label == label), "")
    return name or label.partition("(")[0]


def _names(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _names(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_names(entry) for entry in value]
    if not isinstance(value, str) or "\n" in value:
        return value
    for kind in (PurePosixPath, PureWindowsPath):
        if kind(value).is_absolute():
            return kind(value).name
    return value
