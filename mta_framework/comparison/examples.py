"""Texts side by side, where two rows lie furthest apart."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

from mta_framework.comparison.grouping import Group
from mta_framework.comparison.results import PromptPair, SideBySide
from mta_framework.evaluation.set_results import Prediction

EXAMPLES = 3
"""Prompts that the other wins most, and as many that it loses most, for each metric and pair of rows."""


def examples(pairs: Sequence[PromptPair], groups: Sequence[Group]) -> list[SideBySide]:
    """The clearest wins, then the clearest losses, of every metric and row."""
    texts = _Texts({group.label: group for group in groups})
    return [
        texts.beside(pair)
        for _, of_row in itertools.groupby(pairs, key=lambda pair: (pair.metric, pair.other))
        for pair in _clearest(list(of_row))
    ]


def _clearest(pairs: Sequence[PromptPair]) -> Iterator[PromptPair]:
    by_gap = sorted(pairs, key=lambda pair: -abs(pair.other_score - pair.baseline_score))
    for outcome in (1, -1):
        yield from [pair for pair in by_gap if pair.outcome == outcome][:EXAMPLES]


class _Texts:
    """The first run's responses under its first seed, read where needed."""

    def __init__(self, groups: Mapping[str, Group]):
        self._groups = groups
        self._read: dict[tuple[str, str], list[Prediction]] = {}

    def beside(self, pair: PromptPair) -> SideBySide:
        first, second = (self._row(label, pair) for label in (pair.baseline, pair.other))
        return SideBySide(
            pair, first.question or first.prompt, first.references[0], first.prediction, second.prediction
        )

    def _row(self, label: str, pair: PromptPair) -> Prediction:
        if (label, pair.set) not in self._read:
            group = self._groups[label]
            run = group.runs[0]
            self._read[label, pair.set] = run.rows(group.model, pair.set, run.facts.seeds[0])
        return self._read[label, pair.set][pair.number - 1]
