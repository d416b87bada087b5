"""Texts side by side, where two rows lie furthest apart."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import cache

from mta_framework.comparison.grouping import Group
from mta_framework.comparison.results import PromptPair, SideBySide
from mta_framework.evaluation.predictions import Prediction

EXAMPLES = 3
"""Number of prompts that the row wins most, and of prompts that it loses most, for each metric and pair of rows."""


def examples(pairs: Sequence[PromptPair], groups: Sequence[Group]) -> Iterator[SideBySide]:
    """The clearest wins, then the clearest losses, of every metric and row: texts of its first run and first seed."""
    by_label = {group.label: group for group in groups}

    @cache
    def responses(label: str, name: str) -> list[Prediction]:
        run = by_label[label].runs[0]
        return run.rows(by_label[label].model, name, run.facts.seeds[0])

    for _, of_row in itertools.groupby(pairs, key=lambda pair: (pair.metric, pair.row)):
        for pair in _clearest(list(of_row)):
            first, second = (responses(label, pair.set)[pair.position - 1] for label in (pair.baseline, pair.row))
            prompt = first.question or first.prompt
            yield SideBySide(pair, prompt, first.references[0], first.prediction, second.prediction)


def _clearest(pairs: Sequence[PromptPair]) -> Iterator[PromptPair]:
    by_gap = sorted(pairs, key=lambda pair: -abs(pair.row_score - pair.baseline_score))
    for outcome in (1, -1):
        yield from [pair for pair in by_gap if pair.outcome == outcome][:EXAMPLES]
