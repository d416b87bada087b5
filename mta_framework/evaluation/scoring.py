"""Scores responses by every metric, and checks what each metric returns."""

from __future__ import annotations

import dataclasses
import json
import math
import reprlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from numbers import Real
from typing import Any

from pydantic import JsonValue

from mta_framework.errors import Fault, FaultList, MTAError, RunError, error_text, writing_to
from mta_framework.interfaces import Metric
from mta_framework.types import Generations, ScoreSet

LARGEST = 1e100
"""Largest size of a score or a weight: sums and squares of many stay finite."""

_HINT = "Correct the metric, or take it out of evaluation.metrics; then resume: responses and checkpoints are kept."


def label_metrics(metrics: Sequence[Metric]) -> list[tuple[str, Metric]]:
    """Label every metric by its name, with its options where two metrics share a name.

    Returns:
        ``("rouge_l", metric)`` pairs, or ``("rouge_l(references=first)", metric)`` with the options that differ from
        their defaults.

    Raises:
        InputError: The same metric is given twice with the same options.
    """
    names = Counter(metric.NAME for metric in metrics)
    labels = [metric.NAME if names[metric.NAME] == 1 else _with_options(metric) for metric in metrics]
    FaultList(
        Fault("evaluation.metrics", f"repeats a metric (got {label} twice)", "each metric once", "Remove one.")
        for label, count in Counter(labels).items()
        if count > 1
    ).raise_any()
    return list(zip(labels, metrics, strict=True))


def score(generations: Generations, metrics: Sequence[tuple[str, Metric]]) -> dict[str, ScoreSet]:
    """Score predictions by every metric.

    Args:
        generations: Predictions, references and further inputs of metrics; each metric gets a subdirectory of
            ``cache_dir`` that is named after it.
        metrics: Label and metric, see ``label_metrics``.

    Returns:
        Label -> one finite score per prediction, in their order, with weights where the metric gives some.

    Raises:
        RunError: A metric failed or returned something else than a ``ScoreSet`` with a finite score for each prediction
            that its mean is defined for, and weights that are not all 0; the message names the metric.
    """
    texts = tuple(generations.predictions), tuple(map(tuple, generations.references)), tuple(generations.questions)
    predictions, references, questions = texts  # tuples: no metric can change what the next one sees
    shared = dataclasses.replace(generations, predictions=predictions, references=references, questions=questions)
    return {label: _checked(label, metric, shared) for label, metric in metrics}


def checked_usage(label: str, metric: Metric, hint: str = _HINT) -> dict[str, float]:
    """The cost of a metric.

    Args:
        label: Label of the metric.
        metric: The metric, after it has scored.
        hint: What to do where it has none that can be reported.

    Raises:
        RunError: ``usage`` failed, or did not return a finite number for each name.
    """
    with _failures_named(f"{label}: usage()", hint):
        usage = metric.usage()
    is_named = isinstance(usage, Mapping) and all(isinstance(name, str) for name in usage)
    if not is_named or not all(isinstance(amount, Real) and math.isfinite(amount) for amount in usage.values()):
        problem = f"usage() returned something else (got {reprlib.repr(usage)})"
        raise metric_error(label, problem, "a finite number for each name", hint)
    return {name: float(amount) for name, amount in usage.items()}


def checked_config(label: str, metric: Metric) -> dict[str, JsonValue]:
    """What the scores of a metric depend on.

    Args:
        label: Label of the metric.
        metric: The metric.

    Raises:
        RunError: ``score_config`` failed, or did not return a JSON object.
    """
    with _failures_named(f"{label}: score_config()"):
        config = metric.score_config()
    try:
        if not isinstance(config, Mapping):
            raise TypeError
        document = dict(config)
        json.dumps(document, allow_nan=False)
    except (TypeError, ValueError):
        problem = f"score_config() returned something else (got {reprlib.repr(config)})"
        raise metric_error(label, problem, "an object that JSON can express, without NaN and infinity") from None
    return document


def _checked(label: str, metric: Metric, generations: Generations) -> ScoreSet:
    folder = generations.cache_dir / metric.NAME if generations.cache_dir else None
    if folder is not None:
        with writing_to(folder, "make room, or correct its permissions; then resume"):
            folder.mkdir(parents=True, exist_ok=True)
    with _failures_named(f"{label}: score()"):
        returned = metric.score(dataclasses.replace(generations, cache_dir=folder))
    count = len(generations.predictions)
    if not isinstance(returned, ScoreSet):
        expected = f"a ScoreSet with one score per prediction, {count}"
        raise metric_error(label, f"score() returned something else (got {type(returned).__name__})", expected)
    scores = checked_values(label, "score", returned.scores, count)
    _check(label, "score", scores, lambda value: not abs(value) <= LARGEST, f"finite scores up to {LARGEST:g}")
    if metric.MEAN == "geometric":
        _check(label, "score", scores, lambda value: value <= 0, "scores above 0 for a geometric mean")
    if returned.weights is None:
        return ScoreSet(scores)
    weights = checked_values(label, "weight", returned.weights, count)
    _check(label, "weight", weights, lambda value: not 0 <= value <= LARGEST, "finite weights from 0 on")
    if weights and not any(weights):
        problem = f"returned weights that leave the mean undefined (got 0 for all {count} predictions)"
        raise metric_error(label, problem, "a weight above 0 for at least one prediction")
    return ScoreSet(scores, weights)


def checked_values(label: str, noun: str, values: Any, count: int, hint: str = _HINT) -> tuple[float, ...]:
    """Scores or weights as floats, of whatever library the numbers are.

    Args:
        label: Label of the metric.
        noun: What the values are, in the singular.
        values: What the metric returned.
        count: Number of predictions.
        hint: What to do where the values are something else.

    Raises:
        RunError: They are no sequence of ``count`` numbers.
    """
    expected = f"one {noun} per prediction, {count}"
    try:
        if isinstance(values, str | Mapping | Set):  # none of these has one number after the other
            raise TypeError
        entries = list(values)
    except TypeError:
        problem = f"returned no sequence of {noun}s (got {type(values).__name__})"
        raise metric_error(label, problem, expected, hint) from None
    if len(entries) != count:
        raise metric_error(label, f"returned another number of {noun}s (got {len(entries)})", expected, hint)
    try:
        for row, value in enumerate(entries):
            entries[row] = float("text" if isinstance(value, str | bytes) else value)
    except (TypeError, ValueError):
        problem = f"returned a {noun} that is no number (got {reprlib.repr(value)} for prediction {row + 1})"
        raise metric_error(label, problem, f"a number as {noun} of each prediction", hint) from None
    return tuple(entries)


def metric_error(label: str, problem: str, expected: str, hint: str = _HINT) -> RunError:
    """The error of a metric that broke its contract.

    Args:
        label: Label of the metric.
        problem: What is wrong, with the value.
        expected: What is expected instead.
        hint: What to do.
    """
    return RunError(str(Fault(f"metric {label}", problem, expected, hint)))


def _check(label: str, noun: str, values: Sequence[float], is_invalid: Callable[[float], bool], expected: str) -> None:
    row = next((row for row, value in enumerate(values) if is_invalid(value)), None)
    if row is not None:
        raise metric_error(label, f"returned an unusable {noun} (got {values[row]} for prediction {row + 1})", expected)


@contextmanager
def _failures_named(call: str, hint: str = _HINT) -> Iterator[None]:
    """Turn any exception of a metric's code into a ``RunError`` that names the metric."""
    try:
        yield
    except MTAError:  # the metric itself says what to do
        raise
    except Exception as error:  # a metric is foreign code
        raise RunError(f"metric {call} failed ({error_text(error)}). {hint}") from error


def _with_options(metric: Metric) -> str:
    changed = metric.params.model_dump(mode="json", exclude_defaults=True)
    options = ", ".join(
        f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in changed.items()
    )
    return f"{metric.NAME}({options})" if options else metric.NAME
