"""How probable a model finds given responses.

Shape suffixes: B texts of a batch, T tokens (padded on the right), N supervised positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mta_framework.chunked_loss import chunked_values, cross_entropy, select_positions
from mta_framework.data.tokens import joined, tokenise
from mta_framework.generation.isolation import isolated
from mta_framework.generation.limits import first_id
from mta_framework.models.decoder import base_of
from mta_framework.models.states import StateReader
from mta_framework.types import Likelihood

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def likelihoods(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt_ids: Sequence[Sequence[int]],
    references: Sequence[str],
    batch_tokens: int,
) -> list[Likelihood]:
    """The likelihood of one reference after each prompt, its end token included.

    The distribution is over the model's whole vocabulary, at temperature 1. Texts are batched by length, longest first;
    the head is applied to the references' positions alone, in chunks of float32 logits. A value does not depend on
    the other texts, but for the rounding of sums over more or less padding.

    Args:
        model: A causal language model, on its device; its modes are the same afterwards.
        tokenizer: The model's own, a fast one.
        prompt_ids: Token ids without padding. An empty prompt starts from the tokenizer's first special token.
        references: One per prompt. An empty one is its end token alone.
        batch_tokens: Tokens that are held at once, padding included; one text is, however long.

    Returns:
        In the order of the prompts: the sum of -log p in nats, and over how many tokens. A reference that does not fit
        into the model's positions after its prompt is cut on the right, and has no end token then.

    Raises:
        ValueError: A prompt alone is longer than the model's positions, or the numbers differ.
    """
    texts = _texts(tokenizer, prompt_ids, references, _room(model))
    order = sorted(range(len(texts)), key=lambda row: -len(texts[row].ids))
    found: dict[int, Likelihood] = {}
    with isolated(base_of(model)):
        reader = StateReader(model)
        for rows in _batches(order, [len(text.ids) for text in texts], batch_tokens):
            found.update(zip(rows, _measured(reader, [texts[row] for row in rows], model.device), strict=True))
    return [found[row] for row in range(len(texts))]


class _Text(NamedTuple):
    """Prompt and reference as one row of ids, of which the prompt's are the first ``start``."""

    ids: NDArray[np.int32]
    start: int


def _room(model: PreTrainedModel) -> int | None:
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)


def _texts(
    tokenizer: PreTrainedTokenizerBase,
    prompt_ids: Sequence[Sequence[int]],
    references: Sequence[str],
    room: int | None,
) -> list[_Text]:
    if not references:
        return []
    tokens = tokenise(list(references), tokenizer, add_special_tokens=False)
    texts = []
    for prompt, reference in zip(prompt_ids, tokens, strict=True):
        start = np.array(list(prompt) or [first_id(tokenizer)], dtype=np.int32)
        if room is not None and len(start) > room:
            raise ValueError(f"a prompt has {len(start)} tokens, and the model {room} positions")
        # What the last position predicts needs no position of its own.
        ids = joined(start, reference.ids, tokenizer.eos_token_id)[: None if room is None else room + 1]
        texts.append(_Text(ids, len(start)))
    return texts


def _batches(order: Sequence[int], lengths: Sequence[int], batch_tokens: int) -> Iterator[Sequence[int]]:
    start = 0
    while start < len(order):
        size = max(1, batch_tokens // lengths[order[start]])
        yield order[start : start + size]
        start += size


def _measured(reader: StateReader, texts: Sequence[_Text], device: torch.device) -> list[Likelihood]:
    ids_BT, mask_BT = _padded(texts)
    width = ids_BT.shape[1]
    rows = [(row * width, text) for row, text in enumerate(texts)]
    position_N = torch.cat([torch.arange(first + text.start - 1, first + len(text.ids) - 1) for first, text in rows])
    target_N = torch.cat([torch.from_numpy(text.ids[text.start :].astype(np.int64)) for text in texts])
    states = reader.read(ids_BT.to(device), mask_BT.to(device))
    nats_N = chunked_values(cross_entropy, select_positions(states, position_N.to(device)), None, target_N.to(device))
    counts = [len(text.ids) - text.start for text in texts]
    sums = [float(part.sum()) for part in nats_N.cpu().double().split(counts)]
    return [Likelihood(nats, tokens) for nats, tokens in zip(sums, counts, strict=True)]


def _padded(texts: Sequence[_Text]) -> tuple[Tensor, Tensor]:
    """Ids without the last one of each text, which predicts nothing that is asked for, and their mask."""
    width = max(len(text.ids) for text in texts) - 1
    ids_BT = torch.zeros((len(texts), width), dtype=torch.int64)
    mask_BT = torch.zeros_like(ids_BT)
    for row, text in enumerate(texts):
        ids_BT[row, : len(text.ids) - 1] = torch.from_numpy(text.ids[:-1].astype(np.int64))
        mask_BT[row, : len(text.ids) - 1] = 1
    return ids_BT, mask_BT
