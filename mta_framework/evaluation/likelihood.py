"""The likelihood of given responses under a model.

Shape suffixes: B texts of a batch, T tokens (padded on the right), N supervised positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from mta_framework.chunked_loss import chunked_values, cross_entropy, select_positions
from mta_framework.generation.isolation import isolated
from mta_framework.generation.limits import first_id, max_positions
from mta_framework.models.decoder import base_of
from mta_framework.models.state_reader import StateReader
from mta_framework.types import Likelihood

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def likelihoods(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt_ids: Sequence[Sequence[int]],
    reference_ids: Sequence[Sequence[int]],
    batch_tokens: int,
) -> list[Likelihood]:
    """Negative log-likelihood of one reference after each prompt.

    The distribution is over the model's whole vocabulary, at temperature 1. Texts are batched by length, longest first;
    the head is applied to the positions of the references alone, in chunks of float32 logits. A value does not depend
    on the other texts, except for the rounding of sums over more or less padding.

    Args:
        model: Causal language model on its device; its training mode and settings are restored afterwards.
        tokenizer: The model's own tokenizer.
        prompt_ids: Token ids without padding. An empty prompt starts from the tokenizer's first special token.
        reference_ids: Token ids of one reference per prompt, with the end token; of an empty one that token alone.
        batch_tokens: Most tokens per batch, padding included; a longer text is a batch of its own.

    Returns:
        The sum of -log p in nats and the number of tokens, in the order of the prompts. A reference that exceeds the
        model's positions is truncated on the right, and then has no end token.

    Raises:
        ValueError: A prompt alone is longer than the model's positions, or there are not as many references as prompts.
    """
    texts = _texts(tokenizer, prompt_ids, reference_ids, max_positions(model.config))
    order = sorted(range(len(texts)), key=lambda row: -len(texts[row].ids))
    values: dict[int, Likelihood] = {}
    with isolated(base_of(model)):
        reader = StateReader(model)
        for rows in _batches(order, [len(text.ids) for text in texts], batch_tokens):
            batch = [texts[row] for row in rows]
            values.update(zip(rows, _batch_likelihoods(reader, batch, model.device), strict=True))
    return [values[row] for row in range(len(texts))]


class _Text(NamedTuple):
    """Prompt and reference as one sequence of ids, in which the reference begins at ``start``."""

    ids: NDArray[np.int32]
    start: int


def _texts(
    tokenizer: PreTrainedTokenizerBase,
    prompt_ids: Sequence[Sequence[int]],
    reference_ids: Sequence[Sequence[int]],
    room: int | None,
) -> list[_Text]:
    texts = []
    for prompt, reference in zip(prompt_ids, reference_ids, strict=True):
        start = np.array(list(prompt) or [first_id(tokenizer)], dtype=np.int32)
        if room is not None and len(start) > room:
            raise ValueError(f"a prompt has {len(start)} tokens, and the model {room} positions")
        # What the last position predicts needs no position of its own.
        ids = np.concatenate([start, np.array(reference, dtype=np.int32)])
        texts.append(_Text(ids[: None if room is None else room + 1], len(start)))
    return texts


def _batches(order: Sequence[int], lengths: Sequence[int], batch_tokens: int) -> Iterator[Sequence[int]]:
    start = 0
    while start < len(order):
        size = max(1, batch_tokens // lengths[order[start]])
        yield order[start : start + size]
        start += size


def _batch_likelihoods(reader: StateReader, texts: Sequence[_Text], device: torch.device) -> list[Likelihood]:
    # Without the last id of each text, after which nothing is scored.
    ids = [torch.from_numpy(text.ids[:-1].astype(np.int64)) for text in texts]
    ids_BT, mask_BT = (pad_sequence(rows, batch_first=True) for rows in (ids, list(map(torch.ones_like, ids))))
    width = ids_BT.shape[1]
    rows = [(row * width, text) for row, text in enumerate(texts)]
    position_N = torch.cat([torch.arange(first + text.start - 1, first + len(text.ids) - 1) for first, text in rows])
    target_N = torch.cat([torch.from_numpy(text.ids[text.start :].astype(np.int64)) for text in texts])
    states = reader.read(ids_BT.to(device), mask_BT.to(device))
    nats_N = chunked_values(cross_entropy, select_positions(states, position_N.to(device)), None, target_N.to(device))
    counts = [len(text.ids) - text.start for text in texts]
    sums = [float(part.sum()) for part in nats_N.cpu().double().split(counts)]
    return [Likelihood(nats, tokens) for nats, tokens in zip(sums, counts, strict=True)]
