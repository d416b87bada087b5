"""Static batching with transformers' own generation loop, for models that do not support continuous batching.

Shape suffixes: B rows of a batch, P prompt tokens (padded on the left), R response tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel

from mta_framework.generation.left_padding import pad_left
from mta_framework.generation.request import DecodingConfig, GenerationRequest
from mta_framework.generation.token_sampling import SamplingProcessor


def generate_static(
    model: PreTrainedModel, rows: Sequence[GenerationRequest], config: DecodingConfig
) -> Iterator[GenerationRequest]:
    """Generate the responses to all requests in fixed batches, each of which is finished when its last row is.

    Args:
        model: Model in evaluation mode.
        rows: Requests, longest prompt first. Generated tokens are appended to their ``ids``.
        config: Decoding configuration of all requests.

    Yields:
        The requests of each batch when the batch is finished.

    Raises:
        RunError: The model's logits are NaN or infinite.
    """
    size = config.sampling.batch_size(len(rows[0].prompt))
    for first in range(0, len(rows), size):
        batch = rows[first : first + size]
        _respond(model, batch, config)
        yield from batch


def _respond(model: PreTrainedModel, rows: Sequence[GenerationRequest], config: DecodingConfig) -> None:
    """Append the generated tokens to the ``ids`` of all rows, and padding behind the end of a response."""
    input_ids_BP = pad_left([row.prompt for row in rows], config.padding)
    attention_mask_BP = pad_left([[1] * len(row.prompt) for row in rows], 0)
    generation_config = GenerationConfig(
        max_new_tokens=config.sampling.max_new_tokens,
        eos_token_id=list(config.ends) or None,
        pad_token_id=config.padding,
        use_cache=True,
        do_sample=False,
    )
    generators = [row.generator for row in rows]
    processor = SamplingProcessor(config.sampling, generators, config.size, config.keep_log_probs)
    output_BPR: Tensor = model.generate(  # type: ignore[operator, assignment]
        input_ids=input_ids_BP.to(model.device),
        attention_mask=attention_mask_BP.to(model.device),
        generation_config=generation_config,
        logits_processor=LogitsProcessorList([processor]),
    )
    for row, ids in zip(rows, output_BPR[:, input_ids_BP.shape[1] :].tolist(), strict=True):
        row.ids += ids
    if processor.log_probs:
        for row, log_probs in zip(rows, torch.stack(processor.log_probs, dim=1).tolist(), strict=True):
            row.log_probs += log_probs
