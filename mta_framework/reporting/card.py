"""The model card of the exported student: what a hub, and whoever finds the folder, should know of it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from mta_framework.evaluation.report import EvaluationFacts, Report
from mta_framework.evaluation.tables import escaped, markdown_table, metrics, score_rows, seeds_note
from mta_framework.reporting import summary_text
from mta_framework.reporting.page import render
from mta_framework.reporting.redact import redact

CARD = "README.md"
_HUB_NAMES = {"rouge_l": "rouge"}
"""What the hub calls a metric, where it calls it otherwise."""


def card(report: Report) -> str:
    """The card, as Markdown with its metadata in front; no absolute path is left in it."""
    shared = redact(report)
    facts = shared.evaluation
    return render(
        "card.md",
        metadata=_metadata(shared).to_yaml(),
        title=escaped(shared.name),
        trained=summary_text.trained(shared),
        models=_table(summary_text.models(shared)),
        training_set=summary_text.source(shared.spec.get("data", {}).get("train")),
        data=_table(summary_text.data(shared)),
        spans=_table(summary_text.spans(shared)),
        scores=[(escaped(metric), markdown_table(score_rows(facts, metric))) for metric in metrics(facts)]
        if facts
        else [],
        seeds_note=seeds_note(facts.seeds) if facts else "",
        sets=_table(summary_text.sets(facts)) if facts else "",
        limits=list(_limits(shared)),
        loading=summary_text.loading("path/to/this/folder"),
        command=shared.command,
        settings=summary_text.settings(shared),
        version=shared.versions.get("mta-framework", ""),
    )


def _table(rows: summary_text.Rows) -> str:
    return markdown_table(rows) if rows else ""


def _metadata(report: Report) -> ModelCardData:
    spec = report.spec
    student, teacher = spec.get("student") or {}, spec.get("teacher") or {}
    base = student.get("hub") or (teacher.get("hub") if student.get("teacher_layers") else None)
    loss = (spec.get("base_loss") or {}).get("name")
    train = (spec.get("data") or {}).get("train") or {}
    facts = report.evaluation
    names = [metric.partition("(")[0] for metric in metrics(facts)] if facts else []
    return ModelCardData(
        base_model=base,
        datasets=[train["hub"]] if train.get("hub") else None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["distillation", *(["mta"] if spec.get("alignment") else []), *([str(loss)] if loss else [])],
        metrics=[_HUB_NAMES.get(name, name) for name in dict.fromkeys(names)] or None,
        model_name=report.name,
        eval_results=list(_results(spec, facts)) or None if facts else None,
    )


def _results(spec: Any, facts: EvaluationFacts) -> Iterator[EvalResult]:
    sets = (spec.get("evaluation") or {}).get("sets") or {}
    for score in facts.scores:
        if score.model == "student" and score.set is not None and math.isfinite(score.mean):
            source = (sets.get(score.set) or {}).get("hub") or score.set
            kind = score.metric.partition("(")[0]
            yield EvalResult(
                "text-generation",
                source,
                score.set,
                _HUB_NAMES.get(kind, kind),
                round(score.mean, 4),
                metric_name=score.metric,
            )


def _limits(report: Report) -> Iterator[str]:
    """What the numbers do not say."""
    facts = report.evaluation
    if facts is None:
        yield "It was not evaluated: nothing is known of its quality."
    else:
        measured = ", ".join(f"`{metric}`" for metric in metrics(facts))
        yield f"It was measured by {measured} on the sets above alone: not for truth, not for harm, on no other task."
        if not any(score.model == "teacher" for score in facts.scores):
            yield "Its teacher was not evaluated in the same way, so how much was lost is not known."
        if not any(score.interval for score in facts.scores):
            yield "The scores come without intervals over prompts."
        cut = sum(entry.cut for entry in facts.sets if entry.model == "student")
        if cut:
            yield f"{cut:,} prompts were longer than the limit and lost their beginning."
    yield f"One training run, from seed {report.spec.get('seed')}: what another seed would give is not known."
    if told := summary_text.unparsed(report):
        yield told
    yield "What its teacher, its base model and its data hold, licences and biases, holds for it too; none was checked."
