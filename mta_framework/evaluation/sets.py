"""Reads the data sets of an ``evaluation`` section as prompts for a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from mta_framework.data.prompts import render
from mta_framework.data.records import read_records
from mta_framework.data.tokens import SampleTokenizer, as_responses, require_end
from mta_framework.errors import Fault, FaultList, collect_faults
from mta_framework.evaluation.evaluate import EvaluationSet
from mta_framework.models.turn_end import TurnEnd
from mta_framework.spec.evaluation import ScoringSection

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def read_sets(
    section: ScoringSection | None,
    template: Literal["alpaca", "chat"],
    tokenizer: PreTrainedTokenizerBase,
    turn_end: TurnEnd,
    template_field: str = "data.template",
    options: Mapping[str, Any] | None = None,
) -> list[EvaluationSet]:
    """Read and tokenise all evaluation sets.

    Prompts beyond the limit are truncated on the left, and counted, or refused, as the section says.

    Args:
        section: Section ``evaluation`` of the spec; None gives no sets.
        template: Template that instruction rows are put into.
        tokenizer: Tokenizer of the model.
        turn_end: What ends a response in its tokens.
        template_field: Field of the spec that names the template, for errors.
        options: Variables of the chat template by name.

    Raises:
        InputError: All faults of all files.
    """
    faults = FaultList()
    sets: list[EvaluationSet] = []
    if section is None:
        return sets
    for name, part in section.sets.items():
        with collect_faults(faults):
            records = read_records(part, f"evaluation.sets.{name}")
            samples = render(records, template, tokenizer, where=template_field, options=options, supervise="none")
            require_end(samples, turn_end, template_field)
            texts = SampleTokenizer(tokenizer, turn_end, None).tokenise(as_responses(samples))
            limit = section.max_prompt_length
            ids = [text.ids[: text.prompt_length].tolist() for text in texts]
            long = [len(prompt) for prompt in ids if len(prompt) > limit]
            if long and section.long_prompts == "refuse":
                faults.append(_too_long(name, long, limit))
            prompts, references = [sample.prompt for sample in samples], [sample.references for sample in samples]
            questions = [record.question for record in records]
            cut = [prompt[-limit:] for prompt in ids]
            reference_ids = [text.ids[text.prompt_length :].tolist() for text in texts]
            sets.append(
                EvaluationSet(name, prompts, cut, references, reference_ids, questions, len(long), records.unused)
            )
    faults.raise_any()
    return sets


def _too_long(name: str, lengths: Sequence[int], limit: int) -> Fault:
    got = f"{len(lengths)} longer one{'s' if len(lengths) > 1 else ''}, up to {max(lengths)} tokens"
    return Fault(
        f"evaluation.sets.{name}",
        f"has prompts of more than evaluation.max_prompt_length (got {got})",
        f"at most {limit} tokens where evaluation.long_prompts is 'refuse'",
        "Raise evaluation.max_prompt_length, or set evaluation.long_prompts to 'cut'.",
    )
