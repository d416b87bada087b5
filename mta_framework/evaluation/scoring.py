"""Scores responses by every metric, and checks what each metric returns."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Sequence

from mta_framework.errors import Fault, FaultList, MTAError, RunError, error_text
from mta_framework.interfaces import Metric
from mta_framework.types import Generations, ScoreSet

LARGEST = 1e100
"""Largest size of a score or a weight: sums and squares of many stay finite."""


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
        RunError: A metric failed, or returned a wrong number of scores or weights, NaN, infinity, or a value that its
            mean is not defined for; the message names the metric.
    """
    return {label: _checked(label, metric, generations) for label, metric in metrics}


def _checked(label: str, metric: Metric, generations: Generations) -> ScoreSet:
    folder = generations.cache_dir / metric.NAME if generations.cache_dir else None
    try:
        returned = metric.score(dataclasses.replace(generations, cache_dir=folder))
        scores = tuple(float(value) for value in returned.scores)
        weights = None if returned.weights is None else tuple(float(value) for value in returned.weights)
    except MTAError:  # the metric itself says what to do
        raise
    except Exception as error:  # a metric is foreign code
        raise RunError(_fault(label, f"failed ({error_text(error)})")) from error
    count = len(generations.predictions)
    _check(label, "score", scores, count, lambda value: not abs(value) <= LARGEST, f"finite scores up to {LARGEST:g}")
    if metric.MEAN == "geometric":
        _check(label, "score", scores, count, lambda value: value <= 0, "scores above 0 for a geometric mean")
    if weights is not None:
        _check(label, "weight", weights, count, lambda value: not 0 <= value <= LARGEST, "finite weights from 0 on")
    return ScoreSet(scores, weights)


def _check(
    label: str, noun: str, values: Sequence[float], count: int, is_invalid: Callable[[float], bool], expected: str
) -> None:
    if len(values) != count:
        raise RunError(_fault(label, f"must return one {noun} per prediction, {count} (got {len(values)})"))
    row = next((row for row, value in enumerate(values) if is_invalid(value)), None)
    if row is not None:
        raise RunError(_fault(label, f"must return {expected} (got {values[row]} for prediction {row + 1})"))


def _fault(label: str, problem: str) -> str:
    hint = "Correct the metric, or take it out of evaluation.metrics; then resume: responses and checkpoints are kept."
    return str(Fault(f"metric {label}", problem, "a finite number for every prediction", hint))


def _with_options(metric: Metric) -> str:
    changed = metric.params.model_dump(mode="json", exclude_defaults=True)
    options = ", ".join(
        f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in changed.items()
    )
    return f"{metric.NAME}({options})" if options else metric.NAME
