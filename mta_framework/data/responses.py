"""Makes training texts of responses that models wrote during training."""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mta_framework.data.tokens import joined, special_ids, tokenise
from mta_framework.interfaces import SpanExtractor
from mta_framework.spans.cross_tokenizer import TokenisedText
from mta_framework.spans.extraction import SpanArrays, extract
from mta_framework.spans.generated_offsets import generated_offsets, text_of
from mta_framework.spans.template_pieces import parse_pieces
from mta_framework.types import Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Response:
    """What a model wrote.

    Args:
        ids: Tokens, without the end token.
        finished: Whether the model came to an end; else the response was cut off by its length.
    """

    ids: tuple[int, ...]
    finished: bool


class ResponseEncoder:
    """Makes training texts of prompts and responses. Several threads may use it at once.

    Args:
        tokenizer: Fast; the encoder works with a copy, so that others may use it meanwhile.
        extractor: Finds spans; None without alignment.
        max_length: Tokens of prompt and response; the rest of a response is cut off.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, extractor: SpanExtractor | None, max_length: int):
        # Each call sets a tokenizer's padding and truncation, which another thread's call may be about to use.
        self._tokenizer = copy.deepcopy(tokenizer)
        self._lock = threading.Lock()
        self._special_ids = special_ids(tokenizer)
        self._extractor = extractor
        self._max_length = max_length

    def texts(self, prompts: Sequence[Example], responses: Sequence[Response]) -> list[str]:
        """Prompt and response as text, without the special tokens of the response: what spans are found in."""
        with self._lock:
            written = [text_of(response.ids, self._tokenizer) for response in responses]
        return [prompt.prompt_text + text for prompt, text in zip(prompts, written, strict=True)]

    def encode(
        self,
        prompts: Sequence[Example],
        responses: Sequence[Response],
        by_student: bool,
        span_sets: Sequence[SpanArrays] | None = None,
    ) -> list[Example]:
        """Make training texts.

        The generated tokens are kept as they are. A finished response ends with the tokenizer's end token, once; one
        that was cut off has none, so an empty one leaves nothing to supervise.

        Args:
            prompts: Texts, of which only the prompts matter.
            responses: One for each.
            by_student: Whether the student wrote them.
            span_sets: Spans of ``texts(prompts, responses)``; None: the extractor finds them now, if there is one.

        Returns:
            One text per prompt, in their order.

        Raises:
            RunError: The extractor fails or breaks its contract.
        """
        texts = self.texts(prompts, responses)
        if span_sets is None and self._extractor is not None:
            with self._lock:
                cuts = [prompt.prompt_boundaries for prompt in prompts]
                span_sets = parse_pieces(texts, cuts, partial(extract, self._extractor))
        examples = [
            self._unparsed(prompt, response, by_student) for prompt, response in zip(prompts, responses, strict=True)
        ]
        if span_sets is None:
            return examples
        found = zip(examples, texts, self._offsets(examples, responses, texts), span_sets, strict=True)
        return [
            replace(example, spans=self._tokenised(example, offset_T2).ranges(text, span_set))
            for example, text, offset_T2, span_set in found
        ]

    def _tokenised(self, example: Example, offset_T2: NDArray[np.int32]) -> TokenisedText:
        special_T = np.isin(example.input_ids[: len(offset_T2)], self._special_ids)
        return TokenisedText(example.input_ids, offset_T2, example.prompt_length, special_T)

    def _unparsed(self, prompt: Example, response: Response, by_student: bool) -> Example:
        ids = np.array(response.ids, dtype=np.int32)
        whole = joined(prompt.prompt_ids, ids, self._tokenizer.eos_token_id if response.finished else None)
        return replace(prompt, input_ids=whole[: self._max_length], spans={}, by_student=by_student)

    def _offsets(
        self, prompts: Sequence[Example], responses: Sequence[Response], texts: Sequence[str]
    ) -> list[NDArray[np.int32]]:
        """Character ranges of the tokens of prompts and responses, cut like these."""
        written = [text[len(prompt.prompt_text) :] for prompt, text in zip(prompts, texts, strict=True)]
        offsets = []
        with self._lock:
            usual = tokenise(written, self._tokenizer, add_special_tokens=False) if written else []
            for prompt, response, text, tokens in zip(prompts, responses, written, usual, strict=True):
                own = tokens.offsets
                if tokens.ids.tolist() != list(response.ids):
                    own = generated_offsets(response.ids, text, self._tokenizer)
                assert prompt.prompt_offsets is not None, "spans need the character ranges of the prompt's tokens"
                offsets.append(np.concatenate([prompt.prompt_offsets, own + len(prompt.prompt_text)]))
        return [offset_T2[: self._max_length] for offset_T2 in offsets]
