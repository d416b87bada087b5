"""Tokenises samples into examples: token ids, the length of the prompt, and the token ranges of spans.

Prompts are tokenised alone, as in generation. A response has the tokens that follow those of its prompt where the whole
text is tokenised at once. Where a token of the whole text reaches across the border between the two, the response is
tokenised alone as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mta_framework.data.prompts import Sample
from mta_framework.data.supervision import supervised_tokens
from mta_framework.errors import Fault, InputError
from mta_framework.models.turn_end import TurnEnd
from mta_framework.spans.char_to_token import LeadingCharacter
from mta_framework.spans.cross_tokenizer import TokenisedText, common_spans, matched_tokens
from mta_framework.types import Example, SpanSet

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from mta_framework.spec.data import DataSection

_CHUNK = 1000
"""Samples tokenised per call: the offsets that a tokenizer returns are large until converted to arrays."""


@dataclass(frozen=True)
class EncodedSet:
    """A tokenised data set.

    Args:
        examples: Examples, in the order of the samples.
        too_long: Number of samples left out because their prompt was too long.
        truncated: Number of responses that were truncated.
        cut_prompts: Number of prompts that kept only their first tokens.
        end_id: Id of the token that ends a response in the student's tokens.
    """

    examples: list[Example]
    too_long: int
    truncated: int
    cut_prompts: int
    end_id: int


def encode(
    samples: Sequence[Sample],
    span_sets: Sequence[SpanSet | Mapping[str, ArrayLike]] | None,
    tokenizers: Sequence[SampleTokenizer],
    max_prompt_length: int,
) -> EncodedSet:
    """Tokenise samples for training.

    A response ends with one end token, after which nothing is supervised, unless it is truncated. Of an empty response
    only that token is supervised.

    Args:
        samples: Prompts and responses, at least one.
        span_sets: Spans of each sample's whole text, as character ranges; None without alignment.
        tokenizers: That of the student, and that of the teacher where it is another one. The limits then apply to both,
            and only spans with tokens on both sides are kept.
        max_prompt_length: Maximum number of tokens of the prompt; samples with longer prompts are left out.

    Raises:
        InputError: It cannot be settled what ends a response.
    """
    examples: list[Example] = []
    too_long = truncated = cut_prompts = 0
    for first in range(0, len(samples), _CHUNK):
        chunk = samples[first : first + _CHUNK]
        texts = zip(*(side.tokenise(chunk) for side in tokenizers), strict=True)
        for index, (sample, both) in enumerate(zip(chunk, texts, strict=True), start=first):
            if any(text.prompt_length > max_prompt_length for text in both):
                too_long += 1
                continue
            truncated += any(text.truncated for text in both)
            cut_prompts += any(text.prompt_cut for text in both)
            examples.append(_example(sample, index, both, span_sets[index] if span_sets else {}))
    return EncodedSet(examples, too_long, truncated, cut_prompts, end_id(samples[0], tokenizers[0].turn_end))


def require_examples(encoded: EncodedSet, max_prompt_length: int) -> None:
    """Check that a tokenised data set has an example.

    Args:
        encoded: The whole data set.
        max_prompt_length: Maximum number of tokens of its prompts.

    Raises:
        InputError: Every prompt was too long.
    """
    if not encoded.examples:
        problem = f"every prompt is longer than {max_prompt_length} tokens ({encoded.too_long} rows)"
        hint = "Raise data.max_prompt_length."
        raise InputError([Fault("data.max_prompt_length", problem, "at least one prompt that fits", hint)])


class SampleTokenizer:
    """Tokenises samples with one tokenizer, as they are trained on.

    Args:
        tokenizer: Fast tokenizer.
        turn_end: What ends a response in its tokens.
        max_length: Maximum number of tokens of prompt and response; longer responses are truncated. None: no limit.
        cut_prompts_to: Number of first tokens that are kept of longer prompts; None: prompts are not cut.
        leading: Character that a token may have before a span that it belongs to.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        turn_end: TurnEnd,
        max_length: int | None,
        cut_prompts_to: int | None = None,
        leading: LeadingCharacter = "space",
    ):
        self.tokenizer = tokenizer
        self.turn_end = turn_end
        self._max_length = max_length
        self._cut_prompts_to = cut_prompts_to
        self._leading = leading
        self._special = special_ids(tokenizer)

    @classmethod
    def of(cls, section: DataSection, tokenizer: PreTrainedTokenizerBase, turn_end: TurnEnd) -> SampleTokenizer:
        """Make the one for the rows of a data section.

        Args:
            section: Limits and leading character.
            tokenizer: Fast tokenizer.
            turn_end: What ends a response in its tokens.
        """
        return cls(tokenizer, turn_end, section.max_length, section.cut_prompts_to, section.leading_character)

    def tokenise(self, samples: Sequence[Sample]) -> list[TokenisedText]:
        """Tokenise the prompts and responses of samples.

        Raises:
            InputError: It cannot be settled what ends a response in a conversation.
        """
        require_end(samples, self.turn_end)
        prompts = _texts(samples, [sample.prompt for sample in samples], self.tokenizer)
        responses = _responses(samples, prompts, self.tokenizer)
        return [self._text(*parts) for parts in zip(samples, prompts, responses, strict=True)]

    def _text(self, sample: Sample, prompt: Tokens, response: Tokens) -> TokenisedText:
        end: int | None = end_id(sample, self.turn_end)
        whole_length = len(prompt.ids)
        prompt = Tokens(prompt.ids[: self._cut_prompts_to], prompt.offsets[: self._cut_prompts_to])
        if sample.templated:
            last = sample.supervised[-1][0] if sample.supervised else len(sample.prompt)
            response = _up_to_end(response, self.turn_end, last)
        else:
            response = _up_to_stop(response, self.turn_end, sample.text)
        # Some templates end a call of a tool with another token than an answer, and a completion may hold its end.
        end = None if np.isin(response.ids[-1:], self.turn_end.stop_ids).any() else end
        ids = join_response(prompt.ids, response.ids, end)
        offsets = np.concatenate([prompt.offsets, response.offsets])[: self._max_length]
        special = np.isin(ids[: len(offsets)], self._special)
        marker = special | np.isin(ids[: len(offsets)], self.turn_end.stop_ids)
        truncated = len(ids) > len(ids[: self._max_length])
        ids = ids[: self._max_length]
        supervised = supervised_tokens(offsets, sample.supervised, len(ids), marker) if sample.supervised else None
        prompt_cut = len(prompt.ids) < whole_length
        return TokenisedText(ids, offsets, len(prompt.ids), special, truncated, supervised, prompt_cut, self._leading)


def _example(
    sample: Sample, index: int, sides: Sequence[TokenisedText], span_set: SpanSet | Mapping[str, ArrayLike]
) -> Example:
    student = sides[0]
    example = Example(
        student.ids,
        student.prompt_length,
        {},
        prompt_text=sample.prompt,
        prompt_offsets=student.offsets[: student.prompt_length],
        prompt_boundaries=tuple(boundary for boundary in sample.boundaries if boundary <= len(sample.prompt)),
        supervised_T=student.supervised,
        index=index,
    )
    if len(sides) == 1:
        return replace(example, spans=student.token_ranges(sample.text, span_set))
    teacher = sides[1]
    student_spans, teacher_spans = common_spans(sample.text, student, teacher, span_set)
    return replace(
        example,
        spans=student_spans,
        teacher=Example(teacher.ids, teacher.prompt_length, teacher_spans, supervised_T=teacher.supervised),
        matched_R2=matched_tokens(sample.text, len(sample.prompt), student, teacher),
        truncated=student.truncated or teacher.truncated,
    )


class PromptedResponse(NamedTuple):
    """Token ids of a prompt and of a response to it.

    Attributes:
        prompt: Token ids of the prompt.
        response: Token ids of the response, with the end token.
    """

    prompt: list[int]
    response: list[int]


def require_end(samples: Sequence[Sample], turn_end: TurnEnd, where: str = "data.template") -> None:
    """Check that it is settled what ends a response to these prompts.

    Args:
        samples: Samples, of which only the prompts are used.
        turn_end: What ends a response.
        where: Field of the spec that names the template, for errors.

    Raises:
        InputError: It is not.
    """
    if turn_end.chat_id is None and any(sample.templated for sample in samples):
        hint = "Add it to the tokenizer as a special token, or use a chat template that ends answers with such a token."
        raise InputError([Fault(where, turn_end.chat_problem, "one token that ends an answer", hint)])


def end_id(sample: Sample, turn_end: TurnEnd) -> int:
    """Return the id of the token that ends a training response; ``require_end`` checks that it is settled.

    Args:
        sample: Sample, of which only the prompt is used.
        turn_end: What ends a response.
    """
    chosen = turn_end.chat_id if sample.templated else turn_end.plain_id
    assert chosen is not None, turn_end.chat_problem
    return chosen


def prompt_ids(samples: Sequence[Sample], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Tokenise prompts for generation, exactly as ``encode`` does for training.

    Args:
        samples: Samples, of which only the prompts are used.
        tokenizer: Fast tokenizer with an end token.

    Returns:
        The token ids of each prompt, without padding.
    """
    prompts: list[list[int]] = []
    for first in range(0, len(samples), _CHUNK):
        chunk = samples[first : first + _CHUNK]
        prompts += [prompt.ids.tolist() for prompt in _texts(chunk, [sample.prompt for sample in chunk], tokenizer)]
    return prompts


class Tokens(NamedTuple):
    """A tokenised text.

    Attributes:
        ids: T token ids, int32.
        offsets: (T, 2) half-open character ranges, int32.
    """

    ids: NDArray[np.int32]
    offsets: NDArray[np.int32]


def _texts(samples: Sequence[Sample], texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[Tokens]:
    """Tokenise texts that begin as the prompts of samples do: in a templated one the template wrote special tokens."""
    tokenised: list[Tokens] = []
    adds = [sample.add_special_tokens and not sample.templated for sample in samples]
    for add_special_tokens, run in groupby(zip(adds, texts, strict=True), key=lambda pair: pair[0]):
        tokenised += tokenise([text for _, text in run], tokenizer, add_special_tokens)
    return tokenised


def _responses(
    samples: Sequence[Sample], prompts: Sequence[Tokens], tokenizer: PreTrainedTokenizerBase
) -> list[Tokens]:
    """Tokenise responses as they continue their prompts; character ranges are those of the whole text."""
    responses = []
    wholes = _texts(samples, [sample.text for sample in samples], tokenizer)
    for sample, prompt, whole in zip(samples, prompts, wholes, strict=True):
        later = [sample.text[:start] for start, _ in sample.supervised[1:]]
        parts = zip([sample.prompt, *later], [prompt, *_texts([sample] * len(later), later, tokenizer)], strict=True)
        if all(_begins_with(whole, part, len(text)) for text, part in parts):
            responses.append(Tokens(whole.ids[len(prompt.ids) :], whole.offsets[len(prompt.ids) :]))
        else:
            responses.append(_alone(sample, tokenizer))
    return responses


def _begins_with(whole: Tokens, part: Tokens, end: int) -> bool:
    """Whether the tokens of a text are those of its first ``end`` characters, and others after them."""
    length = len(part.ids)
    # The range tells apart a token for unknown characters on both sides of the border, which has the same id.
    within = whole.offsets[:length, 1].max(initial=0) <= end
    return bool(within and np.array_equal(whole.ids[:length], part.ids))


def _alone(sample: Sample, tokenizer: PreTrainedTokenizerBase) -> Tokens:
    """Tokenise a response without its prompt, and each later answer without what stands before it."""
    starts = [len(sample.prompt), *(start for start, _ in sample.supervised[1:])]
    texts = [sample.text[start:end] for start, end in zip(starts, [*starts[1:], None], strict=True)]
    parts = tokenise(texts, tokenizer, add_special_tokens=False)
    offsets = [part.offsets + start for part, start in zip(parts, starts, strict=True)]
    return Tokens(np.concatenate([part.ids for part in parts]), np.concatenate(offsets))


def _up_to_end(response: Tokens, turn_end: TurnEnd, start: int) -> Tokens:
    """Leave out what a chat template writes after the end of the last answer, which begins at character ``start``."""
    ends = np.flatnonzero((response.ids == turn_end.chat_id) & (response.offsets[:, 0] >= start))
    return response if not len(ends) else Tokens(response.ids[: ends[-1] + 1], response.offsets[: ends[-1] + 1])


def _up_to_stop(response: Tokens, turn_end: TurnEnd, text: str) -> Tokens:
    """Leave out white space behind an end that a completion holds."""
    for last in np.flatnonzero(np.isin(response.ids, turn_end.stop_ids))[-1:]:
        if not text[response.offsets[last, 1] :].strip():
            return Tokens(response.ids[: last + 1], response.offsets[: last + 1])
    return response


def tokenise(texts: list[str], tokenizer: PreTrainedTokenizerBase, add_special_tokens: bool) -> list[Tokens]:
    """Tokenise texts without padding or truncation, whatever the tokenizer is set to.

    Args:
        texts: Any strings.
        tokenizer: A fast tokenizer.
        add_special_tokens: Whether a text gets the special tokens with which the tokenizer begins a sequence, unless it
            begins with them itself. The end token that some tokenizers append is left out.
    """
    encoded = tokenizer(
        texts,
        add_special_tokens=add_special_tokens,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        padding=False,
        truncation=False,
        verbose=False,
    )
    rows = zip(encoded["input_ids"], encoded["offset_mapping"], encoded["special_tokens_mask"], strict=True)
    tokenised = []
    for ids, offsets, added in rows:
        used = _used(ids, added, tokenizer.eos_token_id)
        offset_T2 = np.array(offsets, dtype=np.int32).reshape(-1, 2)
        tokenised.append(Tokens(np.array(ids, dtype=np.int32)[used], offset_T2[used]))
    return tokenised


def _used(ids: Sequence[int], added: Sequence[int], eos_token_id: int) -> slice:
    """The tokens of a text without an appended end and without a second beginning, from a mask of the added ones."""
    begin = next((index for index, flag in enumerate(added) if not flag), 1)
    stop = len(ids) - 1 if len(ids) > begin and added[-1] and ids[-1] == eos_token_id else len(ids)
    begins_itself = begin > 0 and ids[begin : 2 * begin] == ids[:begin]
    return slice(begin if begins_itself else 0, stop)


def join_response(prompt: NDArray[np.int32], response: NDArray[np.int32], end: int | None) -> NDArray[np.int32]:
    """Concatenate the token ids of prompt and response, and append the end token unless the response ends with it.

    Args:
        prompt: Token ids of the prompt.
        response: Token ids of the response.
        end: Id of the end token; None: no end token is appended.
    """
    ending = [] if end is None or response[-1:].tolist() == [end] else [end]
    return np.concatenate([prompt, response, np.array(ending, dtype=np.int32)])


def special_ids(tokenizer: PreTrainedTokenizerBase) -> NDArray[np.int32]:
    """Return the ids of special tokens, sorted, int32, without a token that only stands for unknown words."""
    added = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    special = added | set(tokenizer.all_special_ids)
    # The token for unknown words stands for content, unless it has another task as well (GPT-2).
    if tokenizer.unk_token_id not in (tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id):
        special.discard(tokenizer.unk_token_id)
    return np.array(sorted(special), dtype=np.int32)
