"""Tables of scores, as rows of text: for the report and for the terminal."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from mta_framework.evaluation.report import EvaluationFacts, Score
from mta_framework.tables.table import Cell, Table

# What Markdown takes for markup within a line; an underscore inside a word is none.
MARKS = re.compile(r"[&<>|*`~\[\]\\$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")

_LINE_END = re.compile(r"\r\n?|\n")
_LARGE = 1e6


def metrics(facts: EvaluationFacts) -> list[str]:
    """Labels of the metrics, in the order of the spec."""
    return list(dict.fromkeys(score.metric for score in facts.scores))


def heading(facts: EvaluationFacts, metric: str) -> str:
    """``perplexity (lower is better)``, or the label alone where higher scores are."""
    lower = any(entry.label == metric and not entry.higher_is_better for entry in facts.metrics)
    return f"{metric} (lower is better)" if lower else metric


def score_rows(facts: EvaluationFacts, metric: str) -> list[list[str]]:
    """Models down, sets across; the first row and the first column are headings."""
    scores = [score for score in facts.scores if score.metric == metric]
    columns = list(dict.fromkeys(score.set for score in scores))
    models = list(dict.fromkeys(score.model for score in scores))
    cells = {(score.model, score.set): formatted(score) for score in scores}
    head = ["model", *("average" if column is None else column for column in columns)]
    return [head, *([model, *(cells[model, column] for column in columns)] for model in models)]


def score_table(facts: EvaluationFacts, metric: str) -> Table:
    """The scores by one metric, a row for each model and a column for each set, with intervals below them."""
    scores = {(score.model, score.set): score for score in facts.scores if score.metric == metric}
    models, sets = (list(dict.fromkeys(names)) for names in zip(*scores, strict=True))
    rows = [[model, *(_cell(scores[model, name]) for name in sets)] for model in models]
    return Table(["model", *("average" if name is None else name for name in sets)], rows, heading(facts, metric))


def _cell(score: Score) -> Cell:
    value, _, interval = formatted(score).partition(" [")
    return Cell(value, below=f"[{interval}" if interval else "")


def formatted(score: Score) -> str:
    """``25.65 ± 0.21 [24.90, 26.38]``: mean, deviation with several seeds, interval with several prompts."""
    deviation = "" if score.deviation is None else f" ± {figure(score.deviation)}"
    interval = "" if score.interval is None else " [{}, {}]".format(*map(figure, score.interval))
    return f"{figure(score.mean)}{deviation}{interval}"


def figure(value: float, sign: str = "") -> str:
    """``25.65``; ``1.2e+09`` where a model has gone astray; with sign "+" always signed."""
    return f"{value:{sign}.2f}" if not abs(value) >= _LARGE else f"{value:{sign}.2g}"


def seeds_note(seeds: Sequence[int]) -> str:
    """The sentences that say what a cell of the table is."""
    interval = "In brackets: the 95 % bootstrap interval over prompts."
    if len(seeds) == 1:
        spread = f"A single sampling seed ({seeds[0]}), so nothing is known of the spread over seeds."
        return f"Mean over the prompts. {interval} {spread}"
    listed = ", ".join(map(str, seeds))
    spread = f"mean ± standard deviation over {len(seeds)} sampling seeds ({listed})"
    return f"Mean over the prompts, then {spread}. {interval}"


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, within one cell of a table."""
    shown = MARKS.sub(lambda mark: f"&#{ord(mark[0])};", text)
    return _LINE_END.sub("<br>", shown)


def markdown_table(rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first row is the head, columns of numbers are aligned to the right."""
    head, *body = [[escaped(cell) for cell in row] for row in rows]
    rule = ["---:" if all(cell[:1].isdigit() for cell in column) else "---" for column in zip(*body, strict=True)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, rule, *body])
