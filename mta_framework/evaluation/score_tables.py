"""Tables of scores, for reports and the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from mta_framework.evaluation.report import ReportedEvaluation, Score
from mta_framework.tables.table import Table, TableCell

_LARGE = 1e6
_SMALL = 0.01
_ROUNDING = 1e-9


def metrics(evaluation: ReportedEvaluation) -> list[str]:
    """Labels of the metrics, in the order of the spec."""
    return list(dict.fromkeys(score.metric for score in evaluation.scores))


def score_table(evaluation: ReportedEvaluation, metric: str) -> Table:
    """The scores by one metric, a row for each model and a column for each set, with intervals below them.

    The caption is ``perplexity (lower is better)``, or the label alone where higher scores are.
    """
    scores = {(score.model, score.set): score for score in evaluation.scores if score.metric == metric}
    models, sets = (list(dict.fromkeys(names)) for names in zip(*scores, strict=True))
    rows = [[model, *(cell_of(scores[model, name]) for name in sets)] for model in models]
    lower = any(entry.label == metric and not entry.higher_is_better for entry in evaluation.metrics)
    header = ["model", *("average" if name is None else name for name in sets)]
    return Table(header, rows, f"{metric} (lower is better)" if lower else metric)


def cell_of(score: Score) -> TableCell:
    """``25.65 ± 0.21`` with ``[24.90, 26.38]`` below: mean, deviation over seeds and interval."""
    deviation = "" if score.deviation is None else f" ± {figure(score.deviation)}"
    interval = "" if score.interval is None else "[{}, {}]".format(*map(figure, score.interval))
    return TableCell(f"{figure(score.mean)}{deviation}", below=interval)


def figure(value: float, sign: str = "") -> str:
    """``25.65``; two digits of tiny and of huge values, ``0.0012`` and ``1.2e+09``; with sign "+" always signed."""
    is_plain = abs(value) < _ROUNDING or _SMALL <= abs(value) < _LARGE or math.isnan(value)
    return f"{value:{sign}.2f}" if is_plain else f"{value:{sign}.2g}"


def scores_note(evaluation: ReportedEvaluation) -> str:
    """The sentences that say what a cell of the tables is, and which prompts are not in it."""
    return " ".join([_seeds_note(evaluation.seeds), *dict.fromkeys(_unscored(evaluation))])


def _unscored(evaluation: ReportedEvaluation) -> Iterator[str]:
    prompts = {(entry.model, entry.set): entry.prompts for entry in evaluation.sets}
    for score in evaluation.scores:
        if score.unscored and score.set is not None:
            count = f"{score.unscored:,} of {prompts[score.model, score.set]:,} prompts of {score.set}"
            yield f"{score.metric} leaves {count} out of the mean."


def _seeds_note(seeds: Sequence[int]) -> str:
    interval = "In brackets: the 95 % bootstrap interval over prompts."
    if len(seeds) == 1:
        spread = f"A single sampling seed ({seeds[0]}), so nothing is known of the spread over seeds."
        return f"Mean over the prompts. {interval} {spread}"
    listed = ", ".join(map(str, seeds))
    spread = f"mean ± standard deviation over {len(seeds)} sampling seeds ({listed})"
    return f"Mean over the prompts, then {spread}. {interval}"
