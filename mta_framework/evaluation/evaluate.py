"""Generates and scores: every model, on every set, with every seed."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mta_framework.distributed import run_on_main
from mta_framework.evaluation.journal import Journal, Response
from mta_framework.evaluation.likelihood import likelihoods
from mta_framework.evaluation.predictions import Key, digest, read_predictions, write_predictions
from mta_framework.evaluation.report import MetricFacts
from mta_framework.evaluation.responses import respond
from mta_framework.evaluation.scoring import label_metrics, score, source
from mta_framework.evaluation.set_results import Evaluation, Prediction, SetResult
from mta_framework.generation.engine import Engine, SavedModel
from mta_framework.generation.engines import make_engine
from mta_framework.generation.sampling import Sampling
from mta_framework.interfaces import Metric
from mta_framework.spec.effects import effect_of
from mta_framework.spec.run import RunSpec
from mta_framework.spec.section import EngineName
from mta_framework.types import Generations, Likelihood

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
        questions: For each prompt, what is asked, without the template around it.
        cut: How many prompts were cut on the left.
    """

    name: str
    prompts: Sequence[str]
    prompt_ids: Sequence[Sequence[int]]
    references: Sequence[Sequence[str]]
    questions: Sequence[str]
    cut: int = 0


@dataclass(frozen=True)
class Candidate:
    """A model to evaluate.

    Args:
        name: Its row in the table, e.g. ``student``; also the folder of its predictions.
        fingerprint: Text that changes whenever the weights do; predictions of another one are not reused.
        tokenizer: The model's own.
        load: Gives the model on its device; called once at most, and not at all if all predictions are there.
        sets: What it is evaluated on: for every candidate the same sets and rows, tokenised for this one.
        saved: The folder that it lies in as it is, where there is one: an engine may read that instead of loading.
    """

    name: str
    fingerprint: str
    tokenizer: PreTrainedTokenizerBase
    load: Callable[[], PreTrainedModel]
    sets: Sequence[EvaluationSet]
    saved: SavedModel | None = None


def evaluate_models(
    candidates: Sequence[Candidate],
    metrics: Sequence[Metric],
    sampling: Sampling,
    seeds: Sequence[int],
    folder: Path,
    cache_dir: Path | None = None,
    engine: EngineName = "transformers",
) -> Evaluation:
    """Evaluate models one after the other; only one is held at a time.

    A response is on disk as soon as it is there, so that an evaluation that was killed goes on where it was, with as
    many processes as it then has. Complete predictions lie in ``folder/MODEL/SET-seedSEED.jsonl``. Those that were made
    before from the same model, prompts and sampling are reused; where only metrics (their code included), references or
    questions changed, they are scored anew. Called by every process of a distributed run: each generates its share, and
    all return the same.

    Args:
        candidates: The models.
        metrics: What scores; the main process alone asks them.
        sampling: How responses are drawn.
        seeds: Of sampling.
        folder: Of the predictions.
        cache_dir: Where metrics keep what was dear to get, each in a folder that is called as it; None: nowhere.
        engine: What generates.

    Raises:
        InputError: A metric is given twice, or a prompt leaves no room for a response.
        RunError: A metric failed; the predictions are on disk.
    """
    named = label_metrics(metrics)
    results: list[SetResult] = []
    for candidate in candidates:
        load = functools.cache(candidate.load)
        for entry in candidate.sets:
            results += _Task(candidate, entry, load, sampling, tuple(seeds), named, folder, cache_dir, engine).results()
        del load
    usage = run_on_main(lambda: [dict(metric.usage()) for metric in metrics])
    facts = [
        MetricFacts(label, metric.HIGHER_IS_BETTER, metric.MEAN, cost, metric.score_config(), metric.HUB_NAME)
        for (label, metric), cost in zip(named, usage, strict=True)
    ]
    return Evaluation(tuple(results), tuple(facts))


@dataclass(frozen=True)
class _Task:
    """One model on one set."""

    candidate: Candidate
    entry: EvaluationSet
    load: Callable[[], PreTrainedModel]
    sampling: Sampling
    seeds: tuple[int, ...]
    metrics: Sequence[tuple[str, Metric]]
    folder: Path
    cache_dir: Path | None
    engine: EngineName

    def results(self) -> list[SetResult]:
        """For each seed its predictions with their scores."""
        predictions = self._predictions()
        scored = run_on_main(lambda: {seed: self._scored(seed, predictions[seed]) for seed in self.seeds})
        model, entry = self.candidate.name, self.entry
        return [SetResult(model, entry.name, seed, entry.cut, tuple(scored[seed])) for seed in self.seeds]

    def _predictions(self) -> dict[int, list[Prediction]]:
        found = run_on_main(lambda: {seed: read_predictions(self._path(seed), self._keys[seed]) for seed in self.seeds})
        there = {seed: rows for seed, rows in found.items() if rows is not None}
        missing = [seed for seed in self.seeds if seed not in there]
        return there | (self._generated(missing) if missing else {})

    def _generated(self, seeds: Sequence[int]) -> dict[int, list[Prediction]]:
        journal = Journal(self.folder / self.candidate.name, self.entry.name)
        label = f"{self.candidate.name}, {self.entry.name}"
        keys = {seed: self._keys[seed].responses for seed in seeds}
        model, prompt_ids = self.candidate.name, self.entry.prompt_ids
        responses = respond(self._engine, model, prompt_ids, self.sampling, keys, journal, label)
        made = {seed: self._rows(responses[seed]) for seed in seeds}

        def keep() -> None:
            for seed, rows in made.items():
                write_predictions(self._path(seed), rows, dataclasses.replace(self._keys[seed], scores=""))
            journal.remove()

        run_on_main(keep)
        return made

    def _engine(self) -> Engine:
        name, saved = self.candidate.name, self.candidate.saved if self.engine == "vllm" else None
        folder = self.folder / name / "engine"
        return make_engine(self.engine, {name: saved or self.load()}, self.candidate.tokenizer, folder)

    def _rows(self, responses: Sequence[Response]) -> list[Prediction]:
        entry = self.entry
        return [
            Prediction(prompt, question, made.text, tuple(references), made.finished, made.tokens)
            for prompt, question, references, made in zip(
                entry.prompts, entry.questions, entry.references, responses, strict=True
            )
        ]

    def _scored(self, seed: int, predictions: list[Prediction]) -> list[Prediction]:
        if any(prediction.scores for prediction in predictions):
            return predictions
        texts, entry = [row.prediction for row in predictions], self.entry
        generations = Generations(texts, entry.references, entry.questions, lambda: self._likelihoods, self.cache_dir)
        found = score(generations, self.metrics).items()
        scored = [
            dataclasses.replace(
                prediction,
                references=tuple(references),
                question=question,
                scores={label: scores.scores[row] for label, scores in found},
                weights={label: scores.weights[row] for label, scores in found if scores.weights is not None},
            )
            for row, (prediction, references, question) in enumerate(
                zip(predictions, entry.references, entry.questions, strict=True)
            )
        ]
        write_predictions(self._path(seed), scored, self._keys[seed])
        return scored

    @functools.cached_property
    def _likelihoods(self) -> Sequence[Likelihood]:
        """The same under all seeds."""
        entry, first = self.entry, [texts[0] for texts in self.entry.references]
        tokenizer, room = self.candidate.tokenizer, self.sampling.batch_tokens
        return likelihoods(self.load(), tokenizer, entry.prompt_ids, first, room)

    @functools.cached_property
    def _keys(self) -> dict[int, Key]:
        entry = self.entry
        ids = [[int(token_id) for token_id in prompt] for prompt in entry.prompt_ids]
        settings = dataclasses.asdict(self.sampling)
        sampling = {
            name: settings[name] for name in settings if effect_of(RunSpec, f"evaluation.{name}") == "responses"
        }
        made_from = digest([self.candidate.fingerprint, list(entry.prompts), ids, sampling, self.engine])
        metrics = [
            [label, type(metric).__qualname__, source(metric), metric.params.model_dump(mode="json")]
            for label, metric in self.metrics
        ]
        scored_from = digest([[list(texts) for texts in entry.references], list(entry.questions), metrics])
        return {seed: Key(digest([made_from, seed]), scored_from) for seed in self.seeds}

    def _path(self, seed: int) -> Path:
        return self.folder / self.candidate.name / f"{self.entry.name}-seed{seed}.jsonl"
