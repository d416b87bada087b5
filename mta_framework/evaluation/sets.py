"""Reads the data sets of an ``evaluation`` section as prompts for a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from mta_framework.data.left_cut import Prompt, shorten_prompts
from mta_framework.data.prompts import Sample, render_prompts
from mta_framework.data.records import Records, read_records
from mta_framework.data.tokens import PromptedResponse, SampleTokenizer, require_end
from mta_framework.errors import Fault, FaultList, InputError, apply_to_all, collect_faults
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
    add_special_tokens: bool = True,
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
        add_special_tokens: Whether the tokens that begin a sequence are added to prompts that no chat template writes.

    Raises:
        InputError: All faults of all files.
    """
    if section is None:
        return []
    turn_end = turn_end or settle_turn_end(tokenizer, ())
    reader = _SetReader(section, template, tokenizer, template_field, options or {}, turn_end, add_special_tokens)
    return apply_to_all(reader.read, section.sets)


class _Rows(NamedTuple):
    """Rows as text and as tokens.

    Attributes:
        samples: The rows as text.
        lengths: Number of tokens of each prompt.
        prompts: The prompts, shortened where they are too long; None where nothing of what is asked fits.
        responses: Token ids of the responses.
    """

    samples: list[Sample]
    lengths: list[int]
    prompts: list[Prompt | None]
    responses: list[list[int]]


@dataclass(frozen=True)
class _SetReader:
    section: ScoringSection
    template: Literal["alpaca", "chat"]
    tokenizer: PreTrainedTokenizerBase
    template_field: str
    options: Mapping[str, Any]
    turn_end: TurnEnd
    add_special_tokens: bool

    def read(self, name: str) -> EvaluationSet:
        """Read one set.

        Raises:
            InputError: Its rows are faulty, or its prompts too long.
        """
        records = read_records(self.section.sets[name], f"evaluation.sets.{name}")
        asked, limit = self._rows(records, "none"), self.section.max_prompt_length
        long = [length for length in asked.lengths if length > limit]
        if long and self.section.long_prompts == "refuse":
            raise InputError([_too_long(name, long, limit)])
        prompts = [prompt for prompt in asked.prompts if prompt is not None]
        if len(prompts) < len(records):
            raise InputError([_no_room(name, len(records) - len(prompts), limit)])
        measured, unmeasured = self._measured(name, records)
        return EvaluationSet(
            name,
            [prompt.text for prompt in prompts],
            [prompt.ids for prompt in prompts],
            [sample.references for sample in asked.samples],
            measured,
            [record.question for record in records],
            len(long),
            records.unused,
            unmeasured,
        )

    def _measured(self, name: str, records: Records) -> tuple[list[PromptedResponse], InputError | None]:
        """The rows as training would have them, with prompts that are shortened as in evaluation; or why not."""
        faults = FaultList([_not_trained(name)])
        with collect_faults(faults):
            rows = self._rows(records, "last")
            pairs = zip(rows.prompts, rows.responses, strict=True)
            measured = [PromptedResponse(prompt.ids, response) for prompt, response in pairs if prompt is not None]
            if len(measured) == len(records):
                return measured, None
            faults.append(_no_room(name, len(records) - len(measured), self.section.max_prompt_length))
        return [], InputError(faults)

    def _rows(self, records: Records, supervise: Literal["last", "none"]) -> _Rows:
        samples = render_prompts(
            records,
            self.template,
            self.tokenizer,
            where=self.template_field,
            options=self.options,
            supervise=supervise,
            add_special_tokens=self.add_special_tokens,
        )
        require_end(samples, self.turn_end, self.template_field)
        texts = SampleTokenizer(self.tokenizer, self.turn_end, None).tokenise(samples)
        limit = self.section.max_prompt_length
        prompts = shorten_prompts(records, samples, texts, limit, self.tokenizer, self.options)
        responses = [text.response_ids.tolist() for text in texts]
        return _Rows(samples, [text.prompt_length for text in texts], prompts, responses)


def _not_trained(name: str) -> Fault:
    problem = "has references whose likelihood cannot be measured, because training would refuse them"
    expected = "references that can be trained, where a metric asks for their likelihood"
    return Fault(f"evaluation.sets.{name}", problem, expected, "Correct the rows, or leave out the metric.")


def _no_room(name: str, count: int, limit: int) -> Fault:
    problem = f"has prompts whose template and system's turn leave no room for what is asked (got {count})"
    expected = f"room for it within the {limit} tokens of evaluation.max_prompt_length"
    return Fault(f"evaluation.sets.{name}", problem, expected, "Raise evaluation.max_prompt_length.")


def _too_long(name: str, lengths: Sequence[int], limit: int) -> Fault:
    got = f"{len(lengths)} longer one{'s' if len(lengths) > 1 else ''}, up to {max(lengths)} tokens"
    problem = f"has prompts of more than evaluation.max_prompt_length (got {got})"
    expected = f"at most {limit} tokens where evaluation.long_prompts is 'refuse'"
    hint = "Raise evaluation.max_prompt_length, or set evaluation.long_prompts to 'cut'."
    return Fault(f"evaluation.sets.{name}", problem, expected, hint)
