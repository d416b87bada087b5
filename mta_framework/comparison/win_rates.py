"""Win rates: a metric that compares responses says which of two rows is better."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from mta_framework.comparison.comparability import Common
from mta_framework.comparison.grouping import Group
from mta_framework.comparison.results import Verdict
from mta_framework.errors import Fault, FaultList, InputError, as_plugin_error, writing_to
from mta_framework.evaluation.scoring import checked_usage, checked_values, metric_error
from mta_framework.evaluation.statistics import PromptScores, difference, interval, mean
from mta_framework.interfaces import PairwiseMetric
from mta_framework.registry import Registry, missing_fault
from mta_framework.spec.document import read_document
from mta_framework.spec.evaluation import METRIC_CACHE
from mta_framework.spec.section import PluginSection
from mta_framework.spec.validation_faults import faults_of
from mta_framework.types import Generations, ScoreSet

_JUDGE_HINT = 'Write {"name": ..., "params": {...}} to it.'
_HINT = "Correct the metric, or compare without --judge."


def read_judge(path: Path, registry: Registry) -> PairwiseMetric:
    """Create the metric that a JSON file names, as ``{"name": ..., "params": {...}}``.

    Raises:
        InputError: The file, its name or its options are faulty, or the metric compares nothing.
    """
    document, faults = read_document(path, "a JSON file that names a metric", _JUDGE_HINT)
    FaultList(faults).raise_any()
    try:
        section = PluginSection.model_validate(document)
    except ValidationError as error:
        schema = PluginSection.model_json_schema()
        raise InputError(faults_of(error, schema, lambda location: _where(path, *location), "field")) from None
    registered = registry.find("metrics", section.name, _where(path, "name"))
    try:
        metric = registry.create("metrics", section.name, section.params)
    except ValidationError as error:
        noun, schema = f"option of {section.name}", registered.schema
        raise InputError(faults_of(error, schema, lambda option: _where(path, "params", *option), noun)) from None
    if not isinstance(metric, PairwiseMetric):
        problem, expected = f"is not a pairwise metric (got {section.name!r})", "a metric that compares two responses"
        raise InputError([Fault(_where(path, "name"), problem, expected, "See `mta plugins`.")])
    if missing := missing_fault(metric, str(path)):
        raise InputError([missing])
    return metric


def verdicts(judge: PairwiseMetric, groups: Sequence[Group], common: Common) -> Iterator[Verdict]:
    """Have two rows compared, set by set and over all sets: the first run of each, under its first seed.

    Raises:
        InputError: There are not exactly two rows, one compared with the other, or they generated no responses.
        RunError: The metric failed.
    """
    if not common.sets:
        problem, hint = "has no responses to compare", "Evaluate them: `mta evaluate RUN --data NAME=FILE`."
        raise InputError([Fault("--judge", problem, "runs with an evaluation", hint)])
    sides = _sides(groups)
    parts = {name: _preferences(judge, sides, name) for name in common.sets}
    for column in common.columns:
        shown = [parts[name] for name in common.sets_of(column)]
        turned = [PromptScores(1 - part.scores_SP) for part in shown]
        counts = [sum(int((part.scores_SP == value).sum()) for part in shown) for value in (1.0, 0.5, 0.0)]
        labels, p = (sides[0].label, sides[1].label), difference(turned, shown).p
        yield Verdict(judge.NAME, column, *labels, mean(shown), interval(shown), p, *counts)


def verdict_notes(judge: PairwiseMetric, groups: Sequence[Group]) -> Iterator[str]:
    """Which responses the metric saw, and what that cost."""
    runs = {group.label: group.runs[0] for group in _sides(groups)}
    seen = "; ".join(f"{label}: {run.name}, seed {run.evaluation.seeds[0]}" for label, run in runs.items())
    yield f"{judge.NAME} saw one response to each prompt ({seen}); its probabilities are not corrected."
    usage = checked_usage(judge.NAME, judge, _HINT)
    if listed := ", ".join(f"{value:g} {name}" for name, value in usage.items()):
        yield f"{judge.NAME} took {listed}."


def _sides(groups: Sequence[Group]) -> list[Group]:
    """The baseline, then the row that is compared with it."""
    methods = [group for group in groups if not group.reference]
    if len(methods) != 2 or not any(group.baseline for group in methods):
        problem = f"compares two rows (got {len(methods)}: {', '.join(group.label for group in methods)})"
        expected = "exactly two, one of them the baseline"
        raise InputError([Fault("--judge", problem, expected, "Give the runs of two methods.")])
    compared = next(group for group in methods if group.baseline)
    return [*(group for group in methods if group is not compared), compared]


def _preferences(judge: PairwiseMetric, sides: Sequence[Group], name: str) -> PromptScores:
    generations = [_generations(judge, group, name) for group in sides]
    with as_plugin_error(f"metric {judge.NAME}: prefer()"):
        returned = judge.prefer(*generations)
    count = len(generations[0].predictions)
    if not isinstance(returned, ScoreSet):
        problem = f"prefer() returned something else (got {type(returned).__name__})"
        raise metric_error(judge.NAME, problem, f"a ScoreSet with one score per prompt, {count}", _HINT)
    scores = checked_values(judge.NAME, "score", returned.scores, count, _HINT)
    row = next((row for row, score in enumerate(scores) if score not in (0.0, 0.5, 1.0)), None)
    if row is not None:
        problem = f"prefer() returned an unusable score (got {scores[row]} for prompt {row + 1} of {name})"
        expected = "1 where the second response is better, 0 where the first is, 0.5 where neither is"
        raise metric_error(judge.NAME, problem, expected, _HINT)
    return PromptScores(np.array([scores], dtype=float))


def _generations(judge: PairwiseMetric, group: Group, name: str) -> Generations:
    run = group.runs[0]
    rows = run.rows(group.model, name, run.evaluation.seeds[0])
    folder = run.folder.resolve().parent / METRIC_CACHE / judge.NAME
    with writing_to(folder, "make room, or correct its permissions"):
        folder.mkdir(parents=True, exist_ok=True)
    texts = tuple(row.scored_text for row in rows)
    references, questions = tuple(row.references for row in rows), tuple(row.question for row in rows)
    return Generations(texts, references, questions, cache_dir=folder)


def _where(path: Path, *keys: Any) -> str:
    return f"{path}: {'.'.join(map(str, keys))}"
