"""A response depends on its own seed, and not on what else is generated."""

from __future__ import annotations

import random

import pytest
import torch

from mta_framework.generation.generate import generate
from mta_framework.generation.sampling_settings import Sampling, prompt_seeds

ENDS = [40]
PROMPTS = [[(7 * row + step) % 39 for step in range(1 + (5 * row) % 11)] for row in range(12)]
SEEDS = prompt_seeds(3, 12)


def responses(model, tokenizer, prompts=PROMPTS, seeds=SEEDS, batch_tokens=8 * 23, **changes):
    sampling = Sampling(
        **{"temperature": 0.9, "top_p": 1.0, "max_new_tokens": 12, **changes}, batch_tokens=batch_tokens
    )
    return generate(model, tokenizer, ENDS, prompts, sampling, seeds, None)


@pytest.mark.parametrize("top_p", [1.0, 0.7])
def test_response_is_the_same_in_batches_of_any_size(model, tokenizer, top_p):
    together = responses(model, tokenizer, top_p=top_p)
    assert responses(model, tokenizer, batch_tokens=1, top_p=top_p) == together
    assert responses(model, tokenizer, batch_tokens=5 * 23, top_p=top_p) == together
    assert len({generation.ids for generation in together}) == 12


def test_response_is_the_same_among_other_prompts_in_another_order(model, tokenizer):
    together = responses(model, tokenizer)
    rows = list(range(12))
    random.Random(1).shuffle(rows)
    subset = rows[:7]
    shuffled = responses(model, tokenizer, [PROMPTS[row] for row in subset], [SEEDS[row] for row in subset])
    assert shuffled == [together[row] for row in subset]


def test_shorter_response_is_the_beginning_of_a_longer_one(model, tokenizer):
    long, short = responses(model, tokenizer), responses(model, tokenizer, max_new_tokens=4)
    assert [generation.ids for generation in short] == [generation.ids[:4] for generation in long]


def test_same_prompt_with_other_seeds_gets_other_responses(llama, tokenizer):
    generations = responses(llama, tokenizer, [[3, 4]] * 12)
    assert len({generation.ids for generation in generations}) == 12


def test_random_state_of_torch_does_not_count(llama, tokenizer):
    first = responses(llama, tokenizer)
    torch.manual_seed(99)
    assert responses(llama, tokenizer) == first


def test_one_seed_per_prompt_is_required(llama, tokenizer):
    with pytest.raises(ValueError, match="zip"):
        responses(llama, tokenizer, seeds=SEEDS[:-1])
