"""Reads the data sets of an ``evaluation`` section as prompts for a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from mta_framework.data.left_cut import shorten_prompts
from mta_framework.data.prompts import render_prompts
from mta_framework.data.records import read_records
from mta_framework.data.tokens import SampleTokenizer, as_responses, require_end
from mta_framework.errors import Fault, FaultList, collect_faults
from mta_framework.evaluation.evaluate import EvaluationSet
from mta_framework.models.turn_end import TurnEnd, settle_turn_end
from mta_framework.spec.evaluation import ScoringSection

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def read_sets(
    section: ScoringSection | None,
    template: Literal["alpaca", "chat"],
    tokenizer: PreTrainedTokenizerBase,
    template_field: str = "data.template",
    options: Mapping[str, Any] | None = None,
    turn_end: TurnEnd | None = None,
) -> list[EvaluationSet]:
    """Read and tokenise all evaluation sets.

    Prompts beyond the limit are shortened (``shorten_prompts``) and counted, or refused, as the section says.

    Args:
        section: Section ``evaluation`` of the spec; None gives no sets.
        template: Template that instruction rows are put into.
        tokenizer: Tokenizer of the model.
        template_field: Field of the spec that names the template, for errors.
        options: Variables of the chat template by name.
        turn_end: What ends a response of the model; None: what its tokenizer alone says.

    Raises:
        InputError: All faults of all files.
    """
    faults = FaultList()
    sets: list[EvaluationSet] = []
    if section is None:
        return sets
    turn_end = turn_end or settle_turn_end(tokenizer, ())
    for name, part in section.sets.items():
        with collect_faults(faults):
            records = read_records(part, f"evaluation.sets.{name}")
            samples = render_prompts(
                records, template, tokenizer, where=template_field, options=options, supervise="none"
            )
            require_end(samples, turn_end, template_field)
            texts = SampleTokenizer(tokenizer, turn_end, None).tokenise(as_responses(samples))
            limit = section.max_prompt_length
            asked = shorten_prompts(records, samples, texts, limit, tokenizer.bos_token_id)
            prompts = [prompt for prompt in asked if prompt is not None]
            long = [text.prompt_length for text in texts if text.prompt_length > limit]
            if long and section.long_prompts == "refuse":
                faults.append(_too_long(name, long, limit))
            elif len(prompts) < len(asked):
                faults.append(_no_room(name, len(asked) - len(prompts), limit))
            sets.append(
                EvaluationSet(
                    name,
                    [prompt.text for prompt in prompts],
                    [prompt.ids for prompt in prompts],
                    [sample.references for sample in samples],
                    [text.ids[text.prompt_length :].tolist() for text in texts],
                    [record.question for record in records],
                    len(long),
                    records.unused,
                )
            )
    faults.raise_any()
    return sets


def _no_room(name: str, count: int, limit: int) -> Fault:
    return Fault(
        f"evaluation.sets.{name}",
        f"has prompts whose template and system's turn leave no room for what is asked (got {count})",
        f"room for it within the {limit} tokens of evaluation.max_prompt_length",
        "Raise evaluation.max_prompt_length.",
    )


def _too_long(name: str, lengths: Sequence[int], limit: int) -> Fault:
    got = f"{len(lengths)} longer one{'s' if len(lengths) > 1 else ''}, up to {max(lengths)} tokens"
    return Fault(
        f"evaluation.sets.{name}",
        f"has prompts of more than evaluation.max_prompt_length (got {got})",
        f"at most {limit} tokens where evaluation.long_prompts is 'refuse'",
        "Raise evaluation.max_prompt_length, or set evaluation.long_prompts to 'cut'.",
    )
