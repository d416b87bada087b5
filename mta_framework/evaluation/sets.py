"""Data sets of the evaluation section -> prompts for a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from mta_framework.data.prompts import Sample, render
from mta_framework.data.records import read_records
from mta_framework.data.tokens import prompt_ids
from mta_framework.errors import Fault, InputError, collecting
from mta_framework.evaluation.evaluate import EvaluationSet
from mta_framework.spec.sections import EvaluationSection

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def read_sets(
    section: EvaluationSection | None, template: Literal["alpaca", "chat"], tokenizer: PreTrainedTokenizerBase
) -> list[EvaluationSet]:
    """Read and tokenise all evaluation sets (None: no set); prompts beyond the limit are cut on the left, and counted.

    Raises:
        InputError: All faults of all files.
    """
    faults: list[Fault] = []
    sets: list[EvaluationSet] = []
    if section is None:
        return sets
    for name, part in section.sets.items():
        with collecting(faults):
            samples = render(read_records(part, f"evaluation.sets.{name}"), template, tokenizer)
            sets.append(_tokenised(name, samples, tokenizer, section.max_prompt_length))
    if faults:
        raise InputError(faults)
    return sets


def _tokenised(name: str, samples: list[Sample], tokenizer: PreTrainedTokenizerBase, limit: int) -> EvaluationSet:
    ids, cut = prompt_ids(samples, tokenizer, limit)
    prompts = [sample.prompt for sample in samples]
    return EvaluationSet(name, prompts, ids, [sample.references for sample in samples], cut)
