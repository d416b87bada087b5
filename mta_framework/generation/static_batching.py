"""Writes responses in fixed batches with transformers' own loop, for models whose caches cannot be taken apart.

Shape suffixes: B rows of a batch, P prompt tokens (padded on the left), R response tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel

from mta_framework.generation.request import DecodingConfig, Request
from mta_framework.generation.token_sampling import Choice


def write_in_batches(model: PreTrainedModel, rows: Sequence[Request], rules: DecodingConfig) -> Iterator[Request]:
    """As ``write_continuously``, but a batch is done when the last of its rows is, and only then gives them."""
    size = rules.sampling.rows(len(rows[0].prompt))
    for first in range(0, len(rows), size):
        batch = rows[first : first + size]
        for row, ids in zip(batch, _responses(model, batch, rules), strict=True):
            row.ids += ids
            yield row


def _responses(model: PreTrainedModel, rows: Sequence[Request], rules: DecodingConfig) -> list[list[int]]:
    input_ids_BP, attention_mask_BP = _padded([row.prompt for row in rows], rules.padding)
    config = GenerationConfig(
        max_new_tokens=rules.sampling.max_new_tokens,
        eos_token_id=list(rules.ends) or None,
        pad_token_id=rules.padding,
        use_cache=True,
        do_sample=False,
    )
    choice = Choice(rules.sampling, [row.stream for row in rows], rules.size)
    output_BPR: Tensor = model.generate(  # type: ignore[operator, assignment]
        input_ids=input_ids_BP.to(model.device),
        attention_mask=attention_mask_BP.to(model.device),
        generation_config=config,
        logits_processor=LogitsProcessorList([choice]),
    )
    return output_BPR[:, input_ids_BP.shape[1] :].tolist()


def _padded(prompts: Sequence[Sequence[int]], padding: int) -> tuple[Tensor, Tensor]:
    width = max(map(len, prompts))
    ids_BP = torch.full((len(prompts), width), padding, dtype=torch.int64)
    mask_BP = torch.zeros_like(ids_BP)
    for row, ids in enumerate(prompts):
        ids_BP[row, width - len(ids) :] = torch.tensor(ids)
        mask_BP[row, width - len(ids) :] = 1
    return ids_BP, mask_BP
