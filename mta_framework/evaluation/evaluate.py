"""Generates and scores: every model, on every set, with every seed."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mta_framework.evaluation.predictions import Key, digest, read_predictions, write_predictions
from mta_framework.evaluation.results import Evaluation, Prediction, SetResult
from mta_framework.evaluation.scoring import labelled, score
from mta_framework.generation.generate import generate
from mta_framework.generation.sampling import Sampling, prompt_seeds
from mta_framework.interfaces import Metric
from mta_framework.ranks import on_main, reunited, share
from mta_framework.types import Answers

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class EvaluationSet:
    """Prompts with references, tokenised for one model.

    Args:
        name: As in the spec.
        prompts: Whole prompts, before any cut.
        prompt_ids: Their token ids, as the model sees them.
        references: For each prompt, at least one reference.
        cut: How many prompts were cut on the left.
    """

    name: str
    prompts: Sequence[str]
    prompt_ids: Sequence[Sequence[int]]
    references: Sequence[Sequence[str]]
    cut: int = 0


@dataclass(frozen=True)
class Candidate:
    """A model to evaluate.

    Args:
        name: Its row in the table, e.g. ``student``; also the folder of its predictions.
        identity: Changes whenever the weights do; predictions of another identity are not reused.
        tokenizer: The model's own.
        load: Gives the model on its device; called once at most, and not at all if all predictions are there.
        sets: What it is evaluated on: for every candidate the same sets and rows, tokenised for this one.
    """

    name: str
    identity: str
    tokenizer: PreTrainedTokenizerBase
    load: Callable[[], PreTrainedModel]
    sets: Sequence[EvaluationSet]


def evaluate(
    candidates: Sequence[Candidate],
    metrics: Sequence[Metric],
    sampling: Sampling,
    seeds: Sequence[int],
    folder: Path,
) -> Evaluation:
    """Evaluate models one after the other; only one is held at a time.

    Predictions are written to ``folder/MODEL/SET-seedSEED.jsonl`` as soon as they are there. Those that were made
    before from the same model, prompts and sampling are reused; where only metrics or references changed, they are
    scored anew. Called by every process of a distributed run: each generates its share, and all return the same.

    Raises:
        InputError: A metric is given twice, or a prompt leaves no room for a response.
        RunError: A metric failed; the predictions are on disk.
    """
    named = labelled(metrics)
    results = []
    for candidate in candidates:
        load = functools.cache(candidate.load)
        for entry in candidate.sets:
            for seed in seeds:
                task = _Task(candidate, entry, seed, sampling, named, folder)
                predictions = task.predictions(load)
                results.append(SetResult(candidate.name, entry.name, seed, entry.cut, tuple(predictions)))
        del load
    return Evaluation(tuple(results), tuple(label for label, _ in named))


@dataclass(frozen=True)
class _Task:
    candidate: Candidate
    entry: EvaluationSet
    seed: int
    sampling: Sampling
    metrics: Sequence[tuple[str, Metric]]
    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / self.candidate.name / f"{self.entry.name}-seed{self.seed}.jsonl"

    def predictions(self, load: Callable[[], PreTrainedModel]) -> list[Prediction]:
        key = self._key()
        predictions = on_main(lambda: read_predictions(self.path, key))
        if predictions is None:
            predictions = self._generated(load())
            on_main(lambda: write_predictions(self.path, predictions, dataclasses.replace(key, scores="")))
        if any(prediction.scores for prediction in predictions):
            return predictions
        scored = on_main(lambda: self._scored(predictions))
        on_main(lambda: write_predictions(self.path, scored, key))
        return scored

    def _key(self) -> Key:
        ids = [[int(token_id) for token_id in prompt] for prompt in self.entry.prompt_ids]
        made_from = [
            self.candidate.identity,
            list(self.entry.prompts),
            ids,
            dataclasses.asdict(self.sampling),
            self.seed,
        ]
        metrics = [
            [label, type(metric).__module__, type(metric).__qualname__, metric.params.model_dump(mode="json")]
            for label, metric in self.metrics
        ]
        return Key(digest(made_from), digest([[list(texts) for texts in self.entry.references], metrics]))

    def _generated(self, model: PreTrainedModel) -> list[Prediction]:
        entry, label = self.entry, f"{self.candidate.name}, {self.entry.name}, seed {self.seed}"
        prompts, seeds = share(entry.prompt_ids), share(prompt_seeds(self.seed, len(entry.prompt_ids)))
        own = generate(model, self.candidate.tokenizer, prompts, self.sampling, seeds, label)
        generations = reunited(own, len(entry.prompt_ids))
        return [
            Prediction(prompt, generation.text, tuple(references), generation.finished)
            for prompt, generation, references in zip(entry.prompts, generations, entry.references, strict=True)
        ]

    def _scored(self, predictions: Sequence[Prediction]) -> list[Prediction]:
        score_sets = score(Answers([row.prediction for row in predictions], self.entry.references), self.metrics)
        return [
            dataclasses.replace(
                prediction,
                references=tuple(references),
                scores={label: score_set.scores[row] for label, score_set in score_sets.items()},
            )
            for row, (prediction, references) in enumerate(zip(predictions, self.entry.references, strict=True))
        ]
