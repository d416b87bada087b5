"""Scores the student's answers to validation prompts during training, to choose the best checkpoint by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from torch import nn

from mta_framework.data.prompts import Sample, render_prompts
from mta_framework.data.reasoning import marks_to_strip
from mta_framework.data.records import read_records
from mta_framework.data.rows import Record
from mta_framework.data.tokens import PromptedResponse, SampleTokenizer, prompt_ids
from mta_framework.distributed import gather, run_on_main, shard
from mta_framework.errors import Fault, InputError
from mta_framework.evaluation.aggregation import mean_over_prompts
from mta_framework.evaluation.likelihood import likelihoods
from mta_framework.evaluation.scoring import score
from mta_framework.generation.engine import Engine
from mta_framework.generation.sampling_settings import Generation, Sampling
from mta_framework.interfaces import Metric
from mta_framework.models.decoder import base_of
from mta_framework.models.sharding import gathered
from mta_framework.models.turn_end import TurnEnd
from mta_framework.spec.run import RunSpec
from mta_framework.types import Generations, Likelihood

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class AnswerPrompts:
    """The validation prompts whose answers are scored.

    Args:
        records: All rows of the validation set.
        samples: The rows as prompts for generation.
        ids: Token ids of each row's prompt.
        used: Indices of the rows whose prompts are answered.
        too_long: Number of rows left out for a long prompt.
    """

    records: Sequence[Record]
    samples: Sequence[Sample]
    ids: Sequence[Sequence[int]]
    used: Sequence[int]
    too_long: int


@dataclass(frozen=True)
class ValidationAnswers:
    """Answers validation prompts with the student under training, greedily, and scores the answers.

    Greedy decoding has no sampling noise: scores of two steps differ by the weights alone.

    Args:
        metric: Metric of the answers.
        engine: Engine that generates with the live student.
        student: Student under training.
        tokenizer: Tokenizer of the student.
        prompts: Validation prompts, as the evaluation would have them.
        prompt_ids: Token ids of each prompt.
        references: References of each prompt.
        measured: Each prompt with its first reference, as training has them, for likelihoods.
        questions: Instruction and input of each prompt.
        sampling: Limits of the answers; temperature 0.
        cache_dir: Directory for expensive results of metrics.
    """

    metric: Metric
    engine: Engine
    student: nn.Module
    tokenizer: PreTrainedTokenizerBase
    prompts: Sequence[str]
    prompt_ids: Sequence[Sequence[int]]
    references: Sequence[Sequence[str]]
    measured: Sequence[PromptedResponse]
    questions: Sequence[str]
    sampling: Sampling
    cache_dir: Path

    def mean_score(self, step: int) -> float:
        """Mean score of the present student's answers, the same on every process.

        Args:
            step: Number of finished steps.

        Raises:
            RunError: The metric failed or broke its contract.
        """
        ids = shard(self.prompt_ids)
        with gathered(self.student):
            made = self.engine.generate("student", ids, self.sampling, [0] * len(ids), version=step)
            answers = gather(made, len(self.prompts))
            return run_on_main(lambda: self._mean_score(answers))

    def _mean_score(self, answers: Sequence[Generation]) -> float:
        texts = [answer.text for answer in answers]
        references = self.references
        if (marks := marks_to_strip(self.tokenizer, None)) is not None:
            rows = zip(self.prompts, answers, strict=True)
            texts = [marks.answer(row.text, marks.begun_by(prompt), row.finished) for prompt, row in rows]
            pairs = zip(self.prompts, references, strict=True)
            references = [[marks.answer(text, marks.begun_by(prompt)) for text in some] for prompt, some in pairs]
        label = self.metric.NAME
        generations = Generations(texts, references, self.questions, self._likelihoods, self.cache_dir)
        scores = score(generations, [(label, self.metric)])[label]
        return mean_over_prompts(scores.scores, scores.weights or [1.0] * len(texts), self.metric.MEAN)

    def _likelihoods(self) -> list[Likelihood]:
        prompts, references = zip(*self.measured, strict=True)
        return likelihoods(base_of(self.student), self.tokenizer, prompts, references, self.sampling.batch_tokens)


def answer_prompts(spec: RunSpec, metric: Metric, tokenizer: PreTrainedTokenizerBase) -> AnswerPrompts:
    """Read the prompts of the validation set; too long ones are left out or cut, as in training.

    Args:
        spec: Spec of the run.
        metric: Metric of the answers.
        tokenizer: Tokenizer of the student.

    Raises:
        InputError: No prompt is left, or the validation set has faults.
    """
    data = spec.data
    assert data.validation is not None
    records = read_records(data.validation, "data.validation")
    samples = _rendered(records, spec, tokenizer, "none")
    ids = [prompt[: data.cut_prompts_to] for prompt in prompt_ids(samples, tokenizer)]
    fitting = [row for row, prompt in enumerate(ids) if len(prompt) <= data.max_prompt_length]
    if not fitting:
        problem = f"every validation prompt is longer than {data.max_prompt_length} tokens ({len(ids)} rows)"
        expected = f"at least one prompt that fits, to score answers by {metric.NAME}"
        raise InputError([Fault("data.max_prompt_length", problem, expected, "Raise data.max_prompt_length.")])
    return AnswerPrompts(records, samples, ids, fitting[: spec.training.eval_prompts], len(ids) - len(fitting))


def validation_answers(
    spec: RunSpec,
    metric: Metric,
    engine: Engine,
    student: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    turn_end: TurnEnd,
) -> ValidationAnswers:
    """Read prompts and references of the validation set, see ``answer_prompts``.

    Args:
        spec: Spec of the run.
        metric: Metric of the answers.
        engine: Engine that generates with the live student.
        student: Student under training.
        tokenizer: Tokenizer of the student.
        turn_end: What ends a response in its tokens.

    Raises:
        InputError: No prompt is left.
    """
    section, data = spec.training.generation, spec.data
    assert section is not None
    chosen = answer_prompts(spec, metric, tokenizer)
    records, samples, asked, rows = chosen.records, chosen.samples, chosen.ids, chosen.used
    trained = _rendered(records, spec, tokenizer, "last")
    texts = SampleTokenizer(tokenizer, turn_end, None, data.cut_prompts_to).tokenise(trained)
    return ValidationAnswers(
        metric,
        engine,
        student,
        tokenizer,
        prompts=[samples[row].prompt for row in rows],
        prompt_ids=[asked[row] for row in rows],
        references=[samples[row].references for row in rows],
        measured=[PromptedResponse(texts[row].prompt_ids.tolist(), texts[row].response_ids.tolist()) for row in rows],
        questions=[records[row].question for row in rows],
        sampling=Sampling(0.0, 1.0, max_new_tokens(spec), section.batch_tokens),
        cache_dir=spec.metric_cache,
    )


def _rendered(
    records: Sequence[Record], spec: RunSpec, tokenizer: PreTrainedTokenizerBase, supervise: Literal["last", "none"]
) -> list[Sample]:
    data = spec.data
    return render_prompts(
        records,
        data.template,
        tokenizer,
        options=data.template_options,
        supervise=supervise,
        add_special_tokens=data.add_special_tokens,
    )


def max_new_tokens(spec: RunSpec) -> int:
    """Maximum number of tokens of a response that is generated during training."""
    section = spec.training.generation
    assert section is not None
    return section.max_new_tokens or spec.data.max_length - spec.data.max_prompt_length
