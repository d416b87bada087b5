"""The report as a page: the scores first, then how they came about."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mta_framework.evaluation.report import EvaluationFacts, Report, SampleResponses
from mta_framework.evaluation.tables import escaped, markdown_table, metrics, score_rows, seeds_note
from mta_framework.types import SHARE_BY_STUDENT

LONGEST_SAMPLE = 600


def markdown(report: Report, curves: str | None) -> str:
    """The page; ``curves`` is the file name of the image, None if there is none."""
    sections = [
        f"# {escaped(report.name)}",
        *_scores(report.evaluation),
        *([f"## Loss\n\n![Loss and its terms by training step]({curves})"] if curves else []),
        *_trained(report),
        *_data(report),
        *_samples(report.evaluation),
        *_use(report),
        *_timings(report),
        *_versions(report),
        _spec(report.spec),
    ]
    return "\n\n".join(sections) + "\n"


def _scores(facts: EvaluationFacts | None) -> Iterator[str]:
    yield "## Scores"
    if facts is None:
        yield "This run evaluated nothing (`evaluation` is null)."
        return
    for metric in metrics(facts):
        yield f"**{escaped(metric)}**"
        yield markdown_table(score_rows(facts, metric))
    yield seeds_note(facts.seeds)
    rows = [
        [f"{entry.set}, {entry.model}", str(entry.prompts), str(entry.cut), f"{entry.finished:.0%}"]
        for entry in facts.sets
    ]
    yield markdown_table([["set, model", "prompts", "of them cut on the left", "responses that came to an end"], *rows])


def _trained(report: Report) -> Iterator[str]:
    yield "## What was trained"
    yield _sentence(report)
    rows = []
    for role, facts in report.models.items():
        rows.append([role, _source(report.spec.get(role)), f"{facts.parameters:,}", f"{facts.trainable:,}"])
    if rows:
        yield markdown_table([["model", "source", "parameters", "trained"], *rows])


def _sentence(report: Report) -> str:
    spec = report.spec
    alignment, training = spec.get("alignment"), spec.get("training", {})
    loss = f"the base loss `{spec.get('base_loss', {}).get('name')}`"
    if alignment:
        pairs = ", ".join(f"{pair.student}→{pair.teacher} ({pair.granularity})" for pair in report.layer_pairs)
        loss += (
            f" and MTA (spans `{alignment['spans']['name']}`, weights `{alignment['importance']['name']}`, "
            f"λ_DSA {alignment['lambda_dsa']:g}{_heaviest(alignment)}, λ_Hid {alignment['lambda_hid']:g}; "
            f"key layers student→teacher: {pairs})"
        )
    steps = f"{report.steps:,} steps of {training.get('batch_size')} texts"
    own = [entry[SHARE_BY_STUDENT] for entry in report.log if SHARE_BY_STUDENT in entry]
    told = f" {sum(own) / len(own):.0%} of the texts that it was trained on were its own responses." if own else ""
    return f"The student was trained for {steps} with {loss}, from seed {spec.get('seed')}.{told}"


def _heaviest(alignment: Mapping[str, Any]) -> str:
    return f" over the {alignment['max_spans']:,} heaviest spans of a text" if alignment.get("max_spans") else ""


def _source(section: Mapping[str, Any] | None) -> str:
    section = section or {}
    if section.get("hub"):
        return section["hub"] + (f" at {section['revision']}" if section.get("revision") else "")
    if section.get("config"):
        return f"{section['config'].get('model_type')}, freshly initialised"
    if section.get("teacher_layers"):
        return "layers " + ", ".join(map(str, section["teacher_layers"])) + " of the teacher"
    return str(section.get("path") or section.get("run") or "")


def _data(report: Report) -> Iterator[str]:
    if not report.data:
        return
    yield "## Data and spans"
    rows = [[name, f"{row.used:,}", f"{row.left_out:,}", f"{row.cut:,}"] for name, row in report.data.items()]
    yield markdown_table([["set", "rows used", "left out (prompt too long)", "used with a cut response"], *rows])
    if report.spans:
        rows = [
            [name, f"{row.spans:,}", f"{row.spans / max(row.texts, 1):.1f}", f"{row.texts_without:,} of {row.texts:,}"]
            for name, row in report.spans.items()
        ]
        yield markdown_table([["spans (training set)", "in all", "per text", "texts without"], *rows])
    if report.unparsed:
        yield f"{report.unparsed:,} stretches of the texts could not be parsed and have no spans."


def _samples(facts: EvaluationFacts | None) -> Iterator[str]:
    if facts is None or not facts.samples:
        return
    yield "## Sample responses"
    yield f"The first rows of the sets, seed {facts.seeds[0]}; not chosen."
    for sample in facts.samples:
        yield _side_by_side(sample)


def _side_by_side(sample: SampleResponses) -> str:
    prompt = sample.prompt.strip()
    prompt = prompt if len(prompt) <= LONGEST_SAMPLE else "…" + prompt[-LONGEST_SAMPLE:]
    columns = {"reference": sample.reference, **sample.responses}
    cells = [escaped(_shortened(text)) or "*(empty)*" for text in columns.values()]
    head, rule = " | ".join(map(escaped, columns)), " | ".join(["---"] * len(columns))
    return f"**{escaped(sample.set)}:** {escaped(prompt)}\n\n| {head} |\n| {rule} |\n| {' | '.join(cells)} |"


def _shortened(text: str) -> str:
    text = text.strip()
    return text if len(text) <= LONGEST_SAMPLE else text[:LONGEST_SAMPLE] + "…"


def _use(report: Report) -> Iterator[str]:
    yield "## How to load the student"
    yield "In the folder of this report, or with the whole path:"
    folder = json.dumps(report.student_folder, ensure_ascii=False)
    yield (
        "```python\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f"model = AutoModelForCausalLM.from_pretrained({folder})\n"
        f"tokenizer = AutoTokenizer.from_pretrained({folder})\n"
        "```"
    )


def _timings(report: Report) -> Iterator[str]:
    if not report.timings:
        return
    yield "## Timings"
    rows = [[stage, f"{seconds:,.1f}"] for stage, seconds in report.timings.items()]
    yield markdown_table([["stage", "seconds"], *rows])
    if report.seconds_per_step is not None:
        yield f"Training took {report.seconds_per_step:.3g} s per step."


def _versions(report: Report) -> Iterator[str]:
    if report.versions:
        yield "## Versions"
        rows: Sequence[Sequence[str]] = list(report.versions.items())
        yield markdown_table([["what", "version"], *rows])


def _spec(spec: Mapping[str, Any]) -> str:
    resolved = json.dumps(spec, indent=2, ensure_ascii=False)
    return f"## Spec\n\n<details><summary>The resolved spec</summary>\n\n```json\n{resolved}\n```\n\n</details>"
