"""The micro-batch of a run that takes most memory, as far as that is known before a step is taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mta_framework.data.batches import GroupedSampler
from mta_framework.interfaces import BatchPolicy
from mta_framework.types import Example


def largest_micro_batch(
    examples: Sequence[Example], sampler: GroupedSampler, micro_batch_size: int, steps: int
) -> list[Example]:
    """Find the micro-batch with most tokens, padding included, of all that the sampler will make.

    Args:
        examples: Training set.
        sampler: Order of its epochs.
        micro_batch_size: Texts per forward pass.
        steps: Optimiser steps of the whole training.
    """
    lengths = np.array([len(example.input_ids) for example in examples])
    teacher_lengths = np.array([len((example.teacher or example).input_ids) for example in examples])
    largest: tuple[int, list[int]] = (0, [])
    for epoch in range(-(-steps // sampler.steps_per_epoch)):
        drawn = sampler.global_batches(epoch)[: steps - epoch * sampler.steps_per_epoch]
        rows = drawn.reshape(-1, micro_batch_size)
        widths = lengths[rows].max(1) + teacher_lengths[rows].max(1)
        row = int(widths.argmax())
        largest = max(largest, (int(widths[row]), rows[row].tolist()))
    return [examples[index] for index in largest[1]]


def longest_responses(prompts: Sequence[Example], policy: BatchPolicy, max_new_tokens: int, most: int) -> list[Example]:
    """The texts of a micro-batch that a batch policy may make of some prompts, each as long as it can be.

    Args:
        prompts: Texts of the training set.
        policy: Batch policy, which trains on responses that are written during training.
        max_new_tokens: Most tokens of a response.
        most: Most tokens of a text.
    """
    texts = [_longest(example, min(example.prompt_length + max_new_tokens, most)) for example in prompts]
    copies = [replace(example, by_student=copy == 0) for example in texts for copy in range(policy.TEXTS_PER_PROMPT)]
    return [
        replace(example, log_probs=np.zeros(len(example.input_ids) - example.prompt_length, dtype=np.float32))
        if example.by_student
        else example
        for example in copies
    ]


def _longest(example: Example, length: int) -> Example:
    """The text with its response, and the spans of that, repeated up to a length; as it is with a second tokenizer."""
    size = len(example.input_ids) - example.prompt_length
    if example.teacher is not None or size < 1 or len(example.input_ids) >= length:
        return example
    repeats = -(-(length - example.prompt_length) // size)
    response = np.tile(example.input_ids[example.prompt_length :], repeats)
    spans = {}
    for name, span_K2 in example.spans.items():
        of_response_K2 = span_K2[span_K2[:, 0] >= example.prompt_length]
        parts = [of_response_K2 + size * copy for copy in range(1, repeats)]
        repeated_K2 = np.concatenate([span_K2, *parts])
        spans[name] = repeated_K2[repeated_K2[:, 1] <= length].astype(np.int32)
    ids = np.concatenate([example.prompt_ids, response])[:length]
    return replace(example, input_ids=ids, spans=spans, supervised_T=None)
