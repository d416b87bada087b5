"""What a report says of a run, in words and as rows of tables: the same on every page. The first row is the head."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mta_framework.evaluation.report import EvaluationFacts, Report
from mta_framework.reporting.training_log import share_by_student

Rows = list[list[str]]


def trained(report: Report) -> str:
    """How the student was trained, in sentences; names stand between backticks."""
    spec = report.spec
    steps = f"{report.steps:,} steps of {spec.get('training', {}).get('batch_size')} texts"
    loss = f"the base loss `{spec.get('base_loss', {}).get('name')}`{_aligned(report)}"
    own = share_by_student(report.log)
    told = "" if own is None else f" {own:.0%} of the texts that it was trained on were its own responses."
    return f"The student was trained for {steps} with {loss}, from seed {spec.get('seed')}.{told}"


def _aligned(report: Report) -> str:
    alignment = report.spec.get("alignment")
    if not alignment:
        return ""
    pairs = ", ".join(f"{pair.student}→{pair.teacher} ({pair.granularity})" for pair in report.layer_pairs)
    heaviest = f" over the {alignment['max_spans']:,} heaviest spans of a text" if alignment.get("max_spans") else ""
    return (
        f" and MTA (spans `{alignment['spans']['name']}`, weights `{alignment['importance']['name']}`, "
        f"λ_DSA {alignment['lambda_dsa']:g}{heaviest}, λ_Hid {alignment['lambda_hid']:g}; "
        f"key layers student→teacher: {pairs})"
    )


def models(report: Report) -> Rows:
    """The models, their sizes and what was trained of them; empty where nothing is known of any."""
    rows = [["model", "source", "parameters", "trained"]]
    for role, facts in report.models.items():
        section = report.spec.get(role) or report.spec.get("model")  # the latter: an evaluation without a run
        rows.append([role, source(section), f"{facts.parameters:,}", f"{facts.trainable:,}"])
    shown = 4 if report.steps else 3
    return [row[:shown] for row in rows] if report.models else []


def source(section: Mapping[str, Any] | None) -> str:
    """Where a model or a data set comes from."""
    section = section or {}
    if section.get("hub"):
        return section["hub"] + (f" at {section['revision']}" if section.get("revision") else "")
    if section.get("config"):
        return f"{section['config'].get('model_type')}, freshly initialised"
    if section.get("teacher_layers"):
        return "layers " + ", ".join(map(str, section["teacher_layers"])) + " of the teacher"
    return str(section.get("path") or section.get("run") or "")


def data(report: Report) -> Rows:
    """Rows of the data that were used, left out and cut."""
    head = ["set", "rows used", "left out (prompt too long)", "used with a cut response"]
    rows = [[name, f"{row.used:,}", f"{row.left_out:,}", f"{row.cut:,}"] for name, row in report.data.items()]
    return [head, *rows] if rows else []


def spans(report: Report) -> Rows:
    """Spans by granularity."""
    head = ["spans (training set)", "in all", "per text", "texts without"]
    rows = [
        [name, f"{row.spans:,}", f"{row.spans / max(row.texts, 1):.1f}", f"{row.texts_without:,} of {row.texts:,}"]
        for name, row in report.spans.items()
    ]
    return [head, *rows] if rows else []


def unparsed(report: Report) -> str:
    """What the parser could not read; empty where it read all."""
    return f"Stretches that could not be parsed and have no spans: {report.unparsed:,}." * (report.unparsed > 0)


def sets(facts: EvaluationFacts) -> Rows:
    """What the models were evaluated on."""
    head = ["set, model", "prompts", "of them cut on the left", "responses that came to an end"]
    rows = [
        [f"{entry.set}, {entry.model}", f"{entry.prompts:,}", f"{entry.cut:,}", f"{entry.finished:.0%}"]
        for entry in facts.sets
    ]
    return [head, *rows]


def usage(facts: EvaluationFacts) -> str:
    """What metrics cost, in a sentence; empty where they cost nothing."""
    costs = [
        f"`{metric.label}` took " + ", ".join(f"{name} {amount:,g}" for name, amount in metric.usage.items())
        for metric in facts.metrics
        if metric.usage
    ]
    return f"{'; '.join(costs)}." if costs else ""


def timings(report: Report) -> Rows:
    """Seconds of the stages."""
    return [["stage", "seconds"], *([stage, f"{seconds:,.1f}"] for stage, seconds in report.timings.items())]


def loading(folder: str) -> str:
    """Python that loads the student."""
    told = json.dumps(folder, ensure_ascii=False)
    return (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f"model = AutoModelForCausalLM.from_pretrained({told})\n"
        f"tokenizer = AutoTokenizer.from_pretrained({told})\n"
    )


def settings(report: Report) -> str:
    """The resolved spec, as JSON."""
    return json.dumps(report.spec, indent=2, ensure_ascii=False)
