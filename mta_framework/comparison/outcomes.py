"""Validation outcomes of the rows of a table, and their differences over training seeds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from mta_framework.comparison.finished_runs import Run
from mta_framework.comparison.grouping import Group, what_counts
from mta_framework.comparison.notes import DAGGER, SMALLEST_EFFECT, seed_test
from mta_framework.comparison.results import SIGNIFICANT, OutcomeContrast, ValidationOutcome
from mta_framework.evaluation.seed_statistics import mean_difference, seed_difference
from mta_framework.evaluation.statistics import holm
from mta_framework.evaluation.training_log import validated_names, validation_points
from mta_framework.types.log_entries import CROSS_ENTROPY, is_reserved

_FOR_SPANS_ALONE = ("data.parse", "data.leading_character")
_TOKENIZER_SOURCES = ("hub", "path", "tokenizer")


def outcomes(groups: Sequence[Group]) -> Iterator[ValidationOutcome]:
    """Read what the trained rows measured on their validation sets: cross-entropy first, then in the order of the logs.

    Left out are the total loss and the alignment's terms, which differ between methods by definition, and what a single
    row of several measured. Rows that measured something of the same name otherwise, e.g. another divergence
    or on another set, form an outcome of their own.

    Args:
        groups: Rows of the table, with their baselines.
    """
    trained = [group for group in groups if not group.reference]
    members: dict[tuple[str, str], list[Group]] = {}
    for group in trained:
        for name in _names(group.runs[0]):
            members.setdefault((name, _definition(group.runs[0], name)), []).append(group)
    labels: set[str] = set()
    for (name, _), rows in sorted(members.items(), key=lambda entry: entry[0][0] != CROSS_ENTROPY):
        if len(rows) > 1 or len(trained) == 1:
            label = f"validation {name}"
            label = f"{label} as of {rows[0].label}" if label in labels else label
            labels.add(label)
            yield _outcome(rows, name, label, exported=False)
            if any(_exports_another_step(run) for row in rows for run in row.runs):
                yield _outcome(rows, name, f"{label} of the exported student", exported=True)


def outcome_contrasts(
    values: Mapping[str, Mapping[int, float]], baselines: Mapping[str, str], planned: int = 0
) -> tuple[OutcomeContrast, ...]:
    """Rows against their baselines, with Holm's correction over all that have a test.

    Args:
        values: Label of a row -> training seed -> value. A row without values has no contrast.
        baselines: Label of a row -> label of the row that it is compared with, in the order of the contrasts.
        planned: Number of tests that the correction counts if it is larger: those to come count with a p of 1.
    """
    measured = [(row, other) for row, other in baselines.items() if {row, other} <= values.keys()]
    tests = {row: seed_difference(values[other], values[row]) for row, other in measured}
    known = {row: test.p for row, test in tests.items() if test is not None}
    to_come = [1.0] * max(0, planned - len(known))
    p_holm = dict(zip(known, holm([*known.values(), *to_come]), strict=False))
    contrasts = []
    for row, other in measured:
        gap = mean_difference(values[other], values[row])
        contrasts.append(OutcomeContrast(other, row, gap, tests[row], p_holm.get(row)))
    return tuple(contrasts)


def outcome_notes(groups: Sequence[Group], shown: Sequence[ValidationOutcome]) -> Iterator[str]:
    """Whole sentences: what the values and the tests are, and what they cannot say."""
    if not shown:
        return
    yield "Validation outcomes: the values after the last step; mean ± standard deviation (sd) over training seeds."
    tests = [contrast.seeds for outcome in shown for contrast in outcome.contrasts if contrast.seeds is not None]
    if tests:
        kind = seed_test(tests)
        yield f"Differences from the row that each is compared with: mean, 95 % t-interval and p of {kind}."
        yield f"p (Holm): after Holm's correction over the tests of the table. {DAGGER}: p (Holm) < {SIGNIFICANT}."
        yield SMALLEST_EFFECT
    unlike = [
        f"{group.label} and {group.baseline}"
        for group in groups
        for baseline in groups
        if baseline.label == group.baseline and _tokenizer(group.runs[0]) != _tokenizer(baseline.runs[0])
    ]
    if unlike:
        reason = "if their tokenizers differ, values per token cannot be compared"
        yield f"The students come from different sources in {'; '.join(unlike)}: {reason}."


def _names(run: Run) -> list[str]:
    terms = {term["name"] for term in (run.report.spec.get("alignment") or {}).get("terms", ())}
    names = [name for name in validated_names(run.report.log) if name not in terms]
    # The losses by teacher are totals, with the terms of the alignment.
    return [name for name in names if name == CROSS_ENTROPY or not is_reserved(name)]


def _definition(run: Run, name: str) -> str:
    """All that a value depends on besides the student, as text."""
    spec = run.spec
    if name == CROSS_ENTROPY:  # by student and data alone
        sections = ["data"]
    elif name == (spec.get("training") or {}).get("metric_for_best_model"):  # of answers
        sections = ["data", "training.generation", "training.eval_prompts"]
    else:  # a term of the base loss
        sections = ["data", "teacher", "teachers", "base_loss"]
    fields = {
        field: value
        for field, value in what_counts(spec).items()
        if any(f"{field}.".startswith(f"{section}.") for section in sections)
        and not field.startswith("data.train.")
        and field not in _FOR_SPANS_ALONE
    }
    return json.dumps(fields, sort_keys=True)


def _outcome(rows: Sequence[Group], name: str, label: str, exported: bool) -> ValidationOutcome:
    values = {row.label: by_seed for row in rows if (by_seed := _by_seed(row, name, exported))}
    baselines = {row.label: row.baseline for row in rows if row.baseline is not None}
    higher_is_better = _direction(rows[0].runs[0], name)
    return ValidationOutcome(name, label, higher_is_better, values, outcome_contrasts(values, baselines), exported)


def _by_seed(row: Group, name: str, exported: bool) -> dict[int, float]:
    """Training seed -> the last value, or that of the exported student."""
    values = {}
    for run in row.runs:
        by_step = dict(zip(*validation_points(run.report.log, name), strict=True))
        best = run.report.best
        step = best.step if exported and best is not None else max(by_step, default=0)
        if run.seed is not None and step in by_step:
            values[run.seed] = by_step[step]
    return values


def _exports_another_step(run: Run) -> bool:
    return run.report.best is not None and run.report.best.step != run.report.steps


def _direction(run: Run, name: str) -> bool | None:
    """Whether higher values are better: never those of a loss; known of a metric that scored the evaluation, too."""
    if name in {CROSS_ENTROPY, run.spec["base_loss"]["name"]}:
        return False
    return {metric.label: metric.higher_is_better for metric in run.evaluation.metrics}.get(name)


def _tokenizer(run: Run) -> list[object]:
    student = run.spec.get("student") or {}
    return [student.get(field) for field in _TOKENIZER_SOURCES]
