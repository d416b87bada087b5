"""Turns responses that models generate during training into training examples."""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mta_framework.data.tokens import join_response, special_ids, tokenise
from mta_framework.interfaces import SpanExtractor
from mta_framework.spans.char_to_token import LeadingCharacter
from mta_framework.spans.cross_tokenizer import TokenisedText
from mta_framework.spans.extraction import SpanArrays, extract
from mta_framework.spans.field_extraction import extract_by_field
from mta_framework.spans.generated_offsets import generated_offsets, text_of
from mta_framework.types import Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class TokenResponse:
    """A generated response.

    Args:
        ids: Token ids, without the end token.
        finished: Whether the model generated an end token; False: the response was truncated at its maximum length.
        log_probs: Log-probability of each token when it was drawn, and possibly of the end token; empty: not kept.
    """

    ids: tuple[int, ...]
    finished: bool
    log_probs: tuple[float, ...] = ()


class ResponseEncoder:
    """Encodes prompts and generated responses as training examples. Several threads may use it at once.

    Args:
        tokenizer: Fast tokenizer of the student. It is copied, so that it can be used elsewhere at the same time.
        end_id: Id of the token that ends a response.
        extractor: Span extractor; None without alignment.
        max_length: Maximum number of tokens of prompt and response; longer responses are truncated.
        leading: Character that a token may have before a span that it belongs to.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        end_id: int,
        extractor: SpanExtractor | None,
        max_length: int,
        leading: LeadingCharacter = "space",
    ):
        # Each call changes the padding and truncation settings of a tokenizer, under the feet of other threads.
        self._tokenizer = copy.deepcopy(tokenizer)
        self._lock = threading.Lock()
        self._special_ids = special_ids(tokenizer)
        self._end_id = end_id
        self._extractor = extractor
        self._max_length = max_length
        self._leading = leading

    def texts(self, prompts: Sequence[Example], responses: Sequence[TokenResponse]) -> list[str]:
        """Return prompts with their responses as text, which spans are extracted from.

        Args:
            prompts: Examples, of which only the prompts are used.
            responses: One response per prompt; their special tokens are left out.
        """
        with self._lock:
            pairs = zip(prompts, responses, strict=True)
            written = [text_of(response.ids, self._tokenizer, self._before(prompt)) for prompt, response in pairs]
        return [prompt.prompt_text + text for prompt, text in zip(prompts, written, strict=True)]

    def encode(
        self,
        prompts: Sequence[Example],
        responses: Sequence[TokenResponse],
        by_student: bool,
        span_sets: Sequence[SpanArrays] | None = None,
    ) -> list[Example]:
        """Encode prompts and responses as training examples.

        The generated token ids are used unchanged, not tokenised again. A finished response ends with the end
        token, once, whichever token the model stopped at. A truncated one has no end token, so an empty truncated
        response supervises nothing.

        Args:
            prompts: Examples, of which only the prompts are used.
            responses: One response per prompt.
            by_student: Whether the student generated the responses.
            span_sets: Spans of ``texts(prompts, responses)``; None: they are extracted now, if there is an extractor.

        Returns:
            One example per prompt, in their order.

        Raises:
            RunError: The extractor fails or breaks its contract.
        """
        texts = self.texts(prompts, responses)
        if span_sets is None and self._extractor is not None:
            with self._lock:
                boundaries = [prompt.prompt_boundaries for prompt in prompts]
                span_sets = extract_by_field(texts, boundaries, partial(extract, self._extractor))
        examples = [
            self._unparsed(prompt, response, by_student) for prompt, response in zip(prompts, responses, strict=True)
        ]
        if span_sets is None:
            return examples
        parsed = zip(examples, texts, self._offsets(examples, responses, texts), span_sets, strict=True)
        return [
            replace(example, spans=self._tokenised(example, offset_T2).token_ranges(text, span_set))
            for example, text, offset_T2, span_set in parsed
        ]

    def has_ended(self, example: Example) -> bool:
        """Whether an encoded response ended before its limit: only then it has an end token."""
        response = example.input_ids[example.prompt_length :]
        return bool(len(response) and response[-1] == self._end_id)

    def _tokenised(self, example: Example, offset_T2: NDArray[np.int32]) -> TokenisedText:
        special_T = np.isin(example.input_ids[: len(offset_T2)], self._special_ids)
        return TokenisedText(example.input_ids, offset_T2, example.prompt_length, special_T, leading=self._leading)

    def _unparsed(self, prompt: Example, response: TokenResponse, by_student: bool) -> Example:
        ids = np.array(response.ids, dtype=np.int32)
        whole = join_response(prompt.prompt_ids, ids, self._end_id if response.finished else None)
        room = self._max_length - prompt.prompt_length
        log_probs = np.array(response.log_probs[:room], dtype=np.float32) if response.log_probs else None
        ids = whole[: self._max_length]
        return replace(prompt, input_ids=ids, spans={}, by_student=by_student, log_probs=log_probs)

    def _offsets(
        self, prompts: Sequence[Example], responses: Sequence[TokenResponse], texts: Sequence[str]
    ) -> list[NDArray[np.int32]]:
        """Character ranges of the tokens of prompts and responses, truncated like the token ids."""
        written = [text[len(prompt.prompt_text) :] for prompt, text in zip(prompts, texts, strict=True)]
        offsets = []
        with self._lock:
            retokenised = tokenise(written, self._tokenizer, add_special_tokens=False) if written else []
            for prompt, response, text, tokens in zip(prompts, responses, written, retokenised, strict=True):
                offset_T2 = tokens.offsets + len(prompt.prompt_text)
                if tokens.ids.tolist() != list(response.ids):
                    offset_T2 = self._offsets_after(prompt, response.ids, text)
                assert prompt.prompt_offsets is not None, "spans need the character ranges of the prompt's tokens"
                offsets.append(np.concatenate([prompt.prompt_offsets, offset_T2]))
        return [offset_T2[: self._max_length] for offset_T2 in offsets]

    def _offsets_after(self, prompt: Example, ids: Sequence[int], text: str) -> NDArray[np.int32]:
        """Character ranges of tokens that continue a prompt, in the whole text."""
        border = len(prompt.prompt_text)
        [whole] = tokenise([prompt.prompt_text + text], self._tokenizer, add_special_tokens=False)
        offset_T2 = whole.offsets[-len(ids) :]
        if ids and whole.ids[-len(ids) :].tolist() == list(ids) and offset_T2[0, 0] >= border:
            return offset_T2
        return generated_offsets(ids, text, self._tokenizer, self._before(prompt)) + border

    def _before(self, prompt: Example) -> list[int]:
        """The last token of a prompt that is decoded."""
        return prompt.prompt_ids[~np.isin(prompt.prompt_ids, self._special_ids)][-1:].tolist()
