"""Turns samples into token ids, what is supervised, and the token ranges of spans.

Prompt and response are tokenised on their own and joined: training prompts are then exactly those of generation, and
supervision begins exactly with the first token of the response.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mta_framework.data.prompts import Sample
from mta_framework.errors import Fault, InputError
from mta_framework.spans.cross_tokenizer import TokenisedText, common_spans, matched
from mta_framework.types import Example, SpanSet

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CHUNK = 1000
"""Samples that are tokenised at once: offsets are bulky until they are arrays."""


@dataclass(frozen=True)
class EncodedSet:
    """The texts of a data set as tokens.

    Args:
        examples: In the order of the samples.
        too_long: How many samples were left out because their prompt was too long.
        cut: How many responses were cut off.
    """

    examples: list[Example]
    too_long: int
    cut: int


def encode(
    samples: Sequence[Sample],
    span_sets: Sequence[SpanSet | Mapping[str, ArrayLike]] | None,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    max_prompt_length: int,
    teacher_tokenizer: PreTrainedTokenizerBase | None = None,
) -> EncodedSet:
    """Tokenise samples for training.

    A response ends with the tokenizer's end-of-sequence token, once, unless it is cut off. Of an empty response only
    that token is supervised.

    Args:
        samples: Prompts and responses.
        span_sets: The spans of each sample's whole text, as character offsets; None without alignment.
        tokenizer: A fast one, as offsets are needed.
        max_length: Tokens of prompt and response; the rest of a response is cut off.
        max_prompt_length: Samples with longer prompts are left out.
        teacher_tokenizer: The teacher's where it is another one: the limits hold for both, and only spans with tokens
            on both sides are kept.

    Raises:
        InputError: A tokenizer cannot be used, or no sample is left.
    """
    sides = [Side(tokenizer, max_length)]
    if teacher_tokenizer is not None:
        sides.append(Side(teacher_tokenizer, max_length))
    examples: list[Example] = []
    too_long = cut = 0
    for first in range(0, len(samples), _CHUNK):
        chunk = samples[first : first + _CHUNK]
        texts = zip(*(side.texts(chunk) for side in sides), strict=True)
        for number, (sample, both) in enumerate(zip(chunk, texts, strict=True), start=first):
            if any(text.prompt_length > max_prompt_length for text in both):
                too_long += 1
                continue
            cut += any(text.cut for text in both)
            examples.append(_example(sample, number, both, span_sets[number] if span_sets else {}))
    if not examples:
        raise InputError([_nothing_left(len(samples), max_prompt_length)])
    return EncodedSet(examples, too_long, cut)


class Side:
    """One tokenizer at work on prompts and responses.

    Args:
        tokenizer: A fast one with an end token.
        max_length: Tokens of prompt and response; the rest of a response is cut off.

    Raises:
        InputError: The tokenizer cannot be used.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int):
        _check(tokenizer)
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._special = special_ids(tokenizer)

    def texts(self, samples: Sequence[Sample]) -> list[TokenisedText]:
        """Samples as they are trained on."""
        prompts = _prompts(samples, self._tokenizer)
        responses = tokenise([sample.response for sample in samples], self._tokenizer, add_special_tokens=False)
        return [self._text(*parts) for parts in zip(samples, prompts, responses, strict=True)]

    def _text(self, sample: Sample, prompt: Tokens, response: Tokens) -> TokenisedText:
        ids = joined(prompt.ids, response.ids, self._tokenizer.eos_token_id)
        offsets = np.concatenate([prompt.offsets, response.offsets + len(sample.prompt)])[: self._max_length]
        special = np.isin(ids[: len(offsets)], self._special)
        cut = len(ids) > self._max_length
        return TokenisedText(ids[: self._max_length], offsets, len(prompt.ids), special, cut)


def _example(
    sample: Sample, number: int, sides: Sequence[TokenisedText], span_set: SpanSet | Mapping[str, ArrayLike]
) -> Example:
    own, others = sides[0], sides[1:]
    told = sample.prompt, own.offsets[: own.prompt_length]
    cuts = tuple(place for place in sample.cuts if place <= len(sample.prompt))
    if not others:
        spans = own.ranges(sample.text, span_set)
        return Example(own.ids, own.prompt_length, spans, False, *told, prompt_boundaries=cuts, index=number)
    own_spans, other_spans = common_spans(sample.text, own, others[0], span_set)
    teacher = Example(others[0].ids, others[0].prompt_length, other_spans)
    pairs = matched(sample.text, len(sample.prompt), own, others[0])
    return Example(own.ids, own.prompt_length, own_spans, False, *told, teacher, pairs, cuts, number)


def prompt_ids(samples: Sequence[Sample], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Tokenise prompts for generation, exactly as ``encode`` does.

    Returns:
        The ids of each prompt, without padding.

    Raises:
        InputError: The tokenizer cannot be used.
    """
    _check(tokenizer)
    prompts: list[list[int]] = []
    for first in range(0, len(samples), _CHUNK):
        prompts += [prompt.ids.tolist() for prompt in _prompts(samples[first : first + _CHUNK], tokenizer)]
    return prompts


class Tokens(NamedTuple):
    """A text as tokens: their ids, and (T, 2) half-open character ranges."""

    ids: NDArray[np.int32]
    offsets: NDArray[np.int32]


def _prompts(samples: Sequence[Sample], tokenizer: PreTrainedTokenizerBase) -> list[Tokens]:
    prompts: list[Tokens] = []
    for templated, run in groupby(samples, key=lambda sample: sample.templated):
        texts = [sample.prompt for sample in run]
        tokens = tokenise(texts, tokenizer, add_special_tokens=not templated)
        if not templated and _appends_end(tokens[0].ids, texts[0], tokenizer):
            tokens = [Tokens(ids[:-1], offsets[:-1]) for ids, offsets in tokens]
        prompts += tokens
    return prompts


def _appends_end(ids: NDArray[np.int32], text: str, tokenizer: PreTrainedTokenizerBase) -> bool:
    # Where one token is both beginning and end of a sequence (OPT), looking at the last id alone would not do.
    plain = tokenise([text], tokenizer, add_special_tokens=False)[0].ids
    ends = ids[-1:].tolist() == [tokenizer.eos_token_id]
    return ends and ids[len(ids) - len(plain) :].tolist() != plain.tolist()


def tokenise(texts: list[str], tokenizer: PreTrainedTokenizerBase, add_special_tokens: bool) -> list[Tokens]:
    """Tokenise texts, whatever padding and truncation the tokenizer is set to."""
    encoded = tokenizer(
        texts,
        add_special_tokens=add_special_tokens,
        return_offsets_mapping=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        padding=False,
        truncation=False,
        verbose=False,
    )
    return [
        Tokens(np.array(ids, dtype=np.int32), np.array(offsets, dtype=np.int32).reshape(-1, 2))
        for ids, offsets in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    ]


def joined(prompt: NDArray[np.int32], response: NDArray[np.int32], end: int | None) -> NDArray[np.int32]:
    """The ids of prompt and response, and the end (None: none) unless the response has it."""
    ending = [] if end is None or response[-1:].tolist() == [end] else [end]
    return np.concatenate([prompt, response, np.array(ending, dtype=np.int32)])


def special_ids(tokenizer: PreTrainedTokenizerBase) -> NDArray[np.int32]:
    """The ids of tokens that are no content."""
    added = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    special = added | set(tokenizer.all_special_ids)
    # The token for unknown words stands for content, unless it has another task as well (GPT-2).
    if tokenizer.unk_token_id not in (tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id):
        special.discard(tokenizer.unk_token_id)
    return np.array(sorted(special), dtype=np.int32)


def _check(tokenizer: PreTrainedTokenizerBase) -> None:
    faults = []
    name = tokenizer.name_or_path or type(tokenizer).__name__
    if not tokenizer.is_fast:
        problem = f"the tokenizer is a slow one, without character offsets (got {name})"
        faults.append(Fault("student.tokenizer", problem, "a tokenizer with a tokenizer.json is allowed", _REPLACE))
    if tokenizer.eos_token_id is None:
        problem = f"the tokenizer has no end-of-sequence token (got {name})"
        faults.append(Fault("student.tokenizer", problem, "a tokenizer with an eos_token is allowed", _REPLACE))
    if faults:
        raise InputError(faults)


_REPLACE = "Name the folder of such a tokenizer in student.tokenizer."


def _nothing_left(samples: int, max_prompt_length: int) -> Fault:
    problem = f"every prompt is longer than {max_prompt_length} tokens ({samples} rows)"
    return Fault("data.max_prompt_length", problem, "at least one prompt must fit", "Raise data.max_prompt_length.")
