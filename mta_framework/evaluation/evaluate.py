"""Generates and scores responses: every model, on every set, under every seed."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mta_framework.data.reasoning import Marks, marks_to_strip
from mta_framework.data.tokens import PromptedResponse
from mta_framework.distributed import run_on_main
from mta_framework.errors import InputError
from mta_framework.evaluation.aggregation import Evaluation, SetResult
from mta_framework.evaluation.likelihood import likelihoods
from mta_framework.evaluation.metric_code import code_digest
from mta_framework.evaluation.predictions import Key, Prediction, read_predictions, write_predictions
from mta_framework.evaluation.report import ReportedMetric
from mta_framework.evaluation.response_journal import Journal, TextResponse
from mta_framework.evaluation.responses import respond
from mta_framework.evaluation.scoring import checked_config, checked_usage, label_metrics, score
from mta_framework.generation.engine import Engine, SavedModel
from mta_framework.generation.engines import make_engine
from mta_framework.generation.sampling_settings import Sampling
from mta_framework.interfaces import Metric
from mta_framework.spec.effects import effect_of
from mta_framework.spec.run import RunSpec
from mta_framework.spec.section import EngineName
from mta_framework.storage import json_digest
from mta_framework.types import Generations, Likelihood

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class EvaluationSet:
    """Prompts with references, tokenised for one model.

    Args:
        name: Name of the set in the spec.
        prompts: Prompts as they are asked, shortened where they are too long.
        prompt_ids: Token ids of each prompt, as the model sees them.
        references: At least one reference for each prompt.
        measured: Texts whose likelihood metrics may ask for: prompt and first reference as training has them.
        questions: Instruction and input of each prompt, without the template around them.
        cut: Number of prompts that were shortened.
        unused: Keys of rows that are not used -> number of rows in which they hold something.
        unmeasured: Why there are no texts to measure: training would not take the rows; None: there are.
    """

    name: str
    prompts: Sequence[str]
    prompt_ids: Sequence[Sequence[int]]
    references: Sequence[Sequence[str]]
    measured: Sequence[PromptedResponse]
    questions: Sequence[str]
    cut: int = 0
    unused: Mapping[str, int] = field(default_factory=dict)
    unmeasured: InputError | None = None


@dataclass(frozen=True)
class Candidate:
    """A model to evaluate.

    Args:
        name: Name in tables, e.g. ``student``; also the folder of its predictions.
        fingerprint: Text that changes whenever the weights do; predictions of another one are not reused.
        tokenizer: The model's own tokenizer.
        stop_ids: Ids of the tokens that end a response of the model.
        load: Loads the model onto its device; called at most once, and not at all if all predictions exist.
        sets: Evaluation sets: the same sets and rows for every candidate, tokenised for this one.
        saved: Directory that holds exactly this model, from which an engine may load it; None where there is none.
    """

    name: str
    fingerprint: str
    tokenizer: PreTrainedTokenizerBase
    stop_ids: Sequence[int]
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
    strip_reasoning: bool | None = False,
) -> Evaluation:
    """Evaluate models one after the other; only one is held in memory at a time.

    Each response is written to disk as soon as it is generated, so that an interrupted evaluation resumes where it
    stopped, with any number of processes. Complete predictions are kept in ``folder/MODEL/SET-seedSEED.jsonl`` and are
    reused while model, prompts and sampling stay the same; where only metrics (or their code), references or questions
    changed, they are scored anew. Every process of a distributed run calls this: each generates its share, and all
    return the same results.

    Args:
        candidates: Models to evaluate.
        metrics: Metrics, which the main process alone computes.
        sampling: How responses are drawn.
        seeds: Sampling seeds.
        folder: Directory of the predictions.
        cache_dir: Directory for expensive results of metrics, with one subdirectory per metric; None disables it.
        engine: Name of the generation engine.
        strip_reasoning: Whether metrics see responses and references without reasoning blocks; None: where the chat
            template has such blocks.

    Raises:
        InputError: A metric is given twice, or a prompt leaves no room for a response.
        RunError: A metric failed or broke its contract; the predictions are on disk.
    """
    labelled = label_metrics(metrics)
    configs = [checked_config(label, metric) for label, metric in labelled]
    results: list[SetResult] = []
    for candidate in candidates:
        marks = marks_to_strip(candidate.tokenizer, strip_reasoning)
        results += _results(candidate, sampling, tuple(seeds), labelled, folder, cache_dir, engine, marks)
    usage = run_on_main(lambda: [checked_usage(label, metric) for label, metric in labelled])
    reported = [
        ReportedMetric(label, metric.HIGHER_IS_BETTER, metric.MEAN, cost, config, metric.HUB_NAME)
        for (label, metric), cost, config in zip(labelled, usage, configs, strict=True)
    ]
    return Evaluation(tuple(results), tuple(reported))


def _results(
    candidate: Candidate,
    sampling: Sampling,
    seeds: tuple[int, ...],
    metrics: Sequence[tuple[str, Metric]],
    folder: Path,
    cache_dir: Path | None,
    engine: EngineName,
    marks: Marks | None,
) -> list[SetResult]:
    """The results of one model on all its sets; the model is held no longer."""
    load = functools.cache(candidate.load)
    with _lazy_engine(engine, candidate, load, sampling, folder) as respond_by:
        tasks = [
            _Task(
                candidate=candidate,
                entry=entry,
                load=load,
                sampling=sampling,
                seeds=seeds,
                metrics=metrics,
                folder=folder,
                cache_dir=cache_dir,
                engine=engine,
                respond_by=respond_by,
                marks=marks,
            )
            for entry in candidate.sets
        ]
        return [result for task in tasks for result in task.results()]


@contextmanager
def _lazy_engine(
    name: EngineName, candidate: Candidate, load: Callable[[], PreTrainedModel], sampling: Sampling, folder: Path
) -> Iterator[Callable[[], Engine]]:
    """The engine of a candidate, made when it is first asked for, for all its sets; closed at the end of the block."""
    longest = max((len(ids) for entry in candidate.sets for ids in entry.prompt_ids), default=0)
    engines: list[Engine] = []

    def engine() -> Engine:
        if not engines:
            saved = candidate.saved if name == "vllm" else None
            models = {candidate.name: saved or load()}
            side = candidate.tokenizer, candidate.stop_ids, folder / candidate.name / "engine"
            # An empty prompt has one token.
            engines.append(make_engine(name, models, *side, max(longest, 1) + sampling.max_new_tokens))
        return engines[0]

    try:
        yield engine
    finally:
        for made in engines:
            made.close()


@dataclass(frozen=True)
class _Task:
    """Evaluates one model on one set."""

    candidate: Candidate
    entry: EvaluationSet
    load: Callable[[], PreTrainedModel]
    sampling: Sampling
    seeds: tuple[int, ...]
    metrics: Sequence[tuple[str, Metric]]
    folder: Path
    cache_dir: Path | None
    engine: EngineName
    respond_by: Callable[[], Engine]
    marks: Marks | None

    def results(self) -> list[SetResult]:
        """The scored predictions of each seed."""
        keys = self._keys
        on_disk = run_on_main(lambda: {seed: read_predictions(self._path(seed), keys[seed]) for seed in self.seeds})
        predictions = {seed: rows for seed, rows in on_disk.items() if rows is not None}
        if missing := [seed for seed in self.seeds if seed not in predictions]:
            predictions |= self._generated(missing)
        scored = run_on_main(lambda: {seed: self._scored(seed, predictions[seed]) for seed in self.seeds})
        model, entry = self.candidate.name, self.entry
        return [SetResult(model, entry.name, seed, entry.cut, tuple(scored[seed])) for seed in self.seeds]

    def _generated(self, seeds: Sequence[int]) -> dict[int, list[Prediction]]:
        model, entry = self.candidate.name, self.entry
        journal, label = Journal(self.folder / model, entry.name), f"{model}, {entry.name}"
        keys = {seed: self._keys[seed].responses for seed in seeds}
        responses = respond(self.respond_by, model, entry.prompt_ids, self.sampling, keys, journal, label)
        predictions = {seed: self._rows(responses[seed]) for seed in seeds}

        def keep() -> None:
            for seed, rows in predictions.items():
                write_predictions(self._path(seed), rows, dataclasses.replace(self._keys[seed], scores=""))
            journal.remove()

        run_on_main(keep)
        return predictions

    def _rows(self, responses: Sequence[TextResponse]) -> list[Prediction]:
        entry = self.entry
        rows = zip(entry.prompts, entry.questions, entry.references, responses, strict=True)
        return [
            Prediction(prompt, question, response.text, tuple(references), response.finished, response.tokens)
            for prompt, question, references, response in rows
        ]

    def _scored(self, seed: int, predictions: list[Prediction]) -> list[Prediction]:
        if any(prediction.scores for prediction in predictions):
            return predictions
        entry, answers = self.entry, [self._answer(row) for row in predictions]
        texts = [row.prediction if answer is None else answer for row, answer in zip(predictions, answers, strict=True)]
        references = entry.references
        if marks := self.marks:
            pairs = zip(entry.prompts, references, strict=True)
            references = [[marks.answer(text, marks.begun_by(prompt)) for text in some] for prompt, some in pairs]
        generations = Generations(texts, references, entry.questions, lambda: self._likelihoods, self.cache_dir)
        scores = score(generations, self.metrics)
        weights = {label: values.weights for label, values in scores.items() if values.weights is not None}
        rows = zip(predictions, entry.references, entry.questions, strict=True)
        scored = [
            dataclasses.replace(
                prediction,
                references=tuple(references),
                question=question,
                scores={label: values.scores[row] for label, values in scores.items()},
                weights={label: values[row] for label, values in weights.items()},
                answer=answers[row],
            )
            for row, (prediction, references, question) in enumerate(rows)
        ]
        write_predictions(self._path(seed), scored, self._keys[seed])
        return scored

    def _answer(self, row: Prediction) -> str | None:
        """The response without its reasoning; None where it has none."""
        if self.marks is None:
            return None
        answer = self.marks.answer(row.prediction, self.marks.begun_by(row.prompt), row.finished)
        return None if answer == row.prediction else answer

    @functools.cached_property
    def _likelihoods(self) -> tuple[Likelihood, ...]:
        """Likelihoods of the first references, which do not depend on the seed."""
        if self.entry.unmeasured:
            raise self.entry.unmeasured
        prompts, references = zip(*self.entry.measured, strict=True)
        measured = likelihoods(self.load(), self.candidate.tokenizer, prompts, references, self.sampling.batch_tokens)
        return tuple(measured)  # no metric can change what the next one sees

    @functools.cached_property
    def _keys(self) -> dict[int, Key]:
        entry = self.entry
        ids = [[int(token_id) for token_id in prompt] for prompt in entry.prompt_ids]
        settings = {**dataclasses.asdict(self.sampling), "engine": self.engine}
        generation = {
            name: settings[name] for name in settings if effect_of(RunSpec, f"evaluation.{name}") == "responses"
        }
        stop_ids = list(self.candidate.stop_ids)
        made_from = json_digest([self.candidate.fingerprint, list(entry.prompts), ids, stop_ids, generation])
        metrics = [
            [label, type(metric).__qualname__, code_digest(metric), metric.params.model_dump(mode="json")]
            for label, metric in self.metrics
        ]
        marks = [list(self.marks)] if self.marks else []
        texts = [list(texts) for texts in entry.references], [list(map(list, text)) for text in entry.measured]
        scored_from = json_digest([*texts, list(entry.questions), metrics, *marks])
        return {seed: Key(json_digest([made_from, seed]), scored_from) for seed in self.seeds}

    def _path(self, seed: int) -> Path:
        return self.folder / self.candidate.name / f"{self.entry.name}-seed{seed}.jsonl"
