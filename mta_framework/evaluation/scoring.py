"""Scores responses by every metric, and does not believe a metric blindly."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence

from mta_framework.errors import Fault, InputError, RunError
from mta_framework.interfaces import Metric
from mta_framework.types import Answers, ScoreSet


def labelled(metrics: Sequence[Metric]) -> list[tuple[str, Metric]]:
    """Name every metric; two of one name are told apart by the options in which they differ from the defaults.

    Returns:
        ``("rouge_l", metric)`` pairs, or ``("rouge_l(references=first)", metric)`` where the name alone is ambiguous.

    Raises:
        InputError: The same metric is given twice with the same options.
    """
    names = Counter(metric.NAME for metric in metrics)
    labels = [metric.NAME if names[metric.NAME] == 1 else _with_options(metric) for metric in metrics]
    repeated = [label for label, count in Counter(labels).items() if count > 1]
    if repeated:
        raise InputError(
            Fault("evaluation.metrics", f"repeats a metric (got {label} twice)", "each may stand once", "Remove one.")
            for label in repeated
        )
    return list(zip(labels, metrics, strict=True))


def score(answers: Answers, metrics: Sequence[tuple[str, Metric]]) -> dict[str, ScoreSet]:
    """Score predictions by every metric.

    Args:
        answers: Predictions, references and what else metrics go by.
        metrics: Label and metric, see ``labelled``.

    Returns:
        Label -> one finite score per prediction, in their order.

    Raises:
        RunError: A metric failed, or returned a wrong number of scores, NaN or infinity; the message names it.
    """
    return {label: _checked(label, metric, answers) for label, metric in metrics}


def _checked(label: str, metric: Metric, answers: Answers) -> ScoreSet:
    try:
        found = metric.score(answers)
        scores = tuple(float(value) for value in found.scores)
    except Exception as error:  # a metric may be anyone's code
        raise RunError(_fault(label, f"failed ({type(error).__name__}: {error})")) from error
    count = len(answers.predictions)
    if len(scores) != count:
        raise RunError(_fault(label, f"must return one score per prediction, {count} (got {len(scores)})"))
    bad = next((row for row, value in enumerate(scores) if not math.isfinite(value)), None)
    if bad is not None:
        raise RunError(_fault(label, f"must return finite scores (got {scores[bad]} for prediction {bad + 1})"))
    return ScoreSet(scores, found.weights)


def _fault(label: str, wrong: str) -> str:
    todo = "The responses are kept: mend the metric or take it out of evaluation.metrics, then resume."
    return str(Fault(f"metric {label}", wrong, "a metric gives every prediction a finite number", todo))


def _with_options(metric: Metric) -> str:
    changed = metric.params.model_dump(mode="json", exclude_defaults=True)
    options = ", ".join(
        f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in changed.items()
    )
    return f"{metric.NAME}({options})" if options else metric.NAME
