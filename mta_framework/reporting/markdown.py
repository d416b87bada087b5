"""The report as a page for terminals: the scores first, then how they came about."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mta_framework.evaluation.report import EvaluationFacts, Report, SampleResponses
from mta_framework.evaluation.tables import escaped, markdown_table, metrics, score_rows, seeds_note
from mta_framework.reporting import summary_text

LONGEST_SAMPLE = 600


def markdown(report: Report) -> str:
    """The page."""
    sections = [
        f"# {escaped(report.name)}",
        *_scores(report.evaluation),
        *_trained(report),
        *_data(report),
        *_samples(report.evaluation),
        *_use(report),
        *_timings(report),
        *_versions(report),
        _spec(report),
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
    if told := summary_text.usage(facts):
        yield told
    yield markdown_table(summary_text.sets(facts))


def _trained(report: Report) -> Iterator[str]:
    if not report.steps:
        return
    yield "## What was trained"
    yield summary_text.trained(report)
    if rows := summary_text.models(report):
        yield markdown_table(rows)


def _data(report: Report) -> Iterator[str]:
    if not report.data:
        return
    yield "## Data and spans"
    yield markdown_table(summary_text.data(report))
    if rows := summary_text.spans(report):
        yield markdown_table(rows)
    if told := summary_text.unparsed(report):
        yield told


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
    if not report.steps:
        return
    yield "## How to load the student"
    yield "In the folder of this report, or with the whole path:"
    yield f"```python\n{summary_text.loading(report.student_folder)}```"


def _timings(report: Report) -> Iterator[str]:
    if not report.timings:
        return
    yield "## Timings"
    yield markdown_table(summary_text.timings(report))
    if report.seconds_per_step is not None:
        yield f"Training took {report.seconds_per_step:.3g} s per step."


def _versions(report: Report) -> Iterator[str]:
    if report.versions:
        yield "## Versions"
        rows: Sequence[Sequence[str]] = list(report.versions.items())
        yield markdown_table([["what", "version"], *rows])


def _spec(report: Report) -> str:
    resolved = summary_text.settings(report)
    return f"## Spec\n\n<details><summary>The resolved spec</summary>\n\n```json\n{resolved}\n```\n\n</details>"
