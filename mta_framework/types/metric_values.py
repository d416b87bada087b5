"""The values that metrics work with: generated texts, their likelihoods, scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Likelihood:
    """Likelihood of a text after its prompt under a model.

    Args:
        nats: Sum of -log p over the tokens of the text.
        tokens: Number of these tokens.
    """

    nats: float
    tokens: int


@dataclass(frozen=True)
class Generations:
    """Responses of one model to one set of prompts, sampled with one seed: the input of a metric.

    Metrics get texts and references as tuples, so that none can change what the next one scores.

    Args:
        predictions: Generated texts; may be empty strings.
        references: At least one reference for each prediction.
        questions: Instruction and input of each prediction's prompt, without the template around them.
        likelihoods: Returns the likelihood of each prediction's first reference under the model. Calling it loads and
            runs the model; None where likelihoods are not available.
        cache_dir: Directory for expensive results (e.g. API replies), which exists and is kept across runs; None:
            nothing is kept.
    """

    predictions: Sequence[str]
    references: Sequence[Sequence[str]]
    questions: Sequence[str] = ()
    likelihoods: Callable[[], Sequence[Likelihood]] | None = None
    cache_dir: Path | None = None


MeanKind = Literal["arithmetic", "geometric"]
"""How scores are averaged over prompts."""


@dataclass(frozen=True)
class ScoreSet:
    """The scores of a list of predictions.

    Args:
        scores: One score per prediction, in their order.
        weights: Weight of each prediction in the mean over prompts, e.g. its number of tokens; None: all weigh the
            same.
    """

    scores: tuple[float, ...]
    weights: tuple[float, ...] | None = None
