"""The log-probabilities with which tokens were drawn, kept with responses."""

from __future__ import annotations

import copy

import pytest
import torch

from mta_framework.generation.generate import generate
from mta_framework.generation.sampling_settings import Generation, Sampling, prompt_seeds

PROMPTS = [[3, 1, 4], [1, 5, 9, 2, 6, 5, 35], [8], [9, 7, 9, 3], [2, 3]]
SEEDS = prompt_seeds(3, len(PROMPTS))
SIZE = 43
LIKELY_END = 2.5
"""Added to the end token's logit by a bias, so that some responses end."""


def sampling(temperature=1.0, top_p=1.0):
    return Sampling(temperature, top_p, max_new_tokens=8, batch_tokens=32)


@pytest.fixture(params=["continuous", "static"])
def written(request, monkeypatch, tokenizer):
    """Responses with log-probabilities of a model in training, by both ways of batching."""
    if request.param == "static":
        name = "mta_framework.generation.generate.supports_continuous_batching"
        monkeypatch.setattr(name, lambda model, parameters: False)

    def write(model, settings, ends=(40,), keep=True):
        return generate(model, tokenizer, ends, PROMPTS, settings, SEEDS, None, keep_log_probs=keep)

    return write


def ending(model):
    head = torch.nn.Linear(32, SIZE)
    with torch.no_grad():
        head.weight.copy_(model.get_output_embeddings().weight)
        head.bias.zero_()[40] = LIKELY_END
    model.set_output_embeddings(head)
    return model


def by_hand(model, prompt, ids, temperature):
    """Each token's log-probability from one pass over the whole text, without batch and cache."""
    with torch.no_grad():
        logits = copy.deepcopy(model).eval()(torch.tensor([[*prompt, *ids]])).logits[0].double()
    log_probs = (logits / temperature).log_softmax(-1)
    return [log_probs[len(prompt) - 1 + step, token].item() for step, token in enumerate(ids)]


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_kept_values_are_those_of_the_distribution_that_was_drawn_from(written, llama, temperature):
    model = ending(llama)
    responses = written(model, sampling(temperature))
    assert {response.finished for response in responses} == {True, False}
    for prompt, response in zip(PROMPTS, responses, strict=True):
        ids = [*response.ids, *([40] if response.finished else [])]
        assert response.log_probs == pytest.approx(by_hand(model, prompt, ids, temperature), abs=1e-4)


def test_responses_are_the_same_whether_or_not_values_are_kept(written, model):
    kept, plain = (written(model, sampling(), keep=keep) for keep in (True, False))
    assert [response.ids for response in kept] == [response.ids for response in plain]
    assert all(response.log_probs == () for response in plain)


def test_values_of_nucleus_sampling_are_those_of_the_nucleus(written, llama):
    for prompt, response in zip(PROMPTS, written(llama, sampling(top_p=0.5)), strict=True):
        whole = by_hand(llama, prompt, response.ids, 1.0)
        gains = [kept - all_ for kept, all_ in zip(response.log_probs, whole, strict=False)]
        # What is left has at least half of the probability, so no token gains more than a factor of 2.
        assert all(-1e-4 < gain <= 0.6932 for gain in gains)
        assert max(gains) > 0.1


def test_greedy_tokens_are_certain(written, llama):
    assert all(set(response.log_probs) == {0.0} for response in written(llama, sampling(0.0)))


def test_the_end_has_none_where_several_tokens_may_have_ended_the_response(tokenizer):
    both = Generation.from_ids([3, 4, 40], [40, 42], tokenizer, [-1.0, -2.0, -3.0])
    one = Generation.from_ids([3, 4, 40, 41], [40], tokenizer, [-1.0, -2.0, -3.0, -9.0])
    assert (both.log_probs, one.log_probs) == ((-1.0, -2.0), (-1.0, -2.0, -3.0))
