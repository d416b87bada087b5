"""Likelihoods of references."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, OPTConfig, OPTForCausalLM

from mta_framework.evaluation.likelihood import likelihoods

PROMPTS = [[3, 9, 27], [5], [8, 1, 30, 2, 11, 7], [], [12, 13]]
END, PAD = 40, 41
REFERENCES = [[4, 5, 6, END], [7, END], [END], [9, 10, 11, 12, END], [1, 2, 1, 2, 1, 2, END]]


def expected(model, prompt, reference, room=None):
    """transformers' own loss on one text in float64."""
    start = prompt or [END]
    ids = [*start, *reference]
    labels = torch.tensor([[-100] * len(start) + ids[len(start) :]])
    exact = copy.deepcopy(model).double().eval()
    with torch.no_grad():
        loss = exact(input_ids=torch.tensor([ids]), labels=labels).loss
    count = len(ids) - len(start)
    return loss.item() * count, count


def gpt2():
    torch.manual_seed(2)
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 12}
    return GPT2LMHeadModel(GPT2Config(vocab_size=48, initializer_range=0.4, **sizes)).train()


def opt():
    torch.manual_seed(3)
    sizes = {"hidden_size": 32, "ffn_dim": 40, "num_hidden_layers": 2, "num_attention_heads": 2}
    return OPTForCausalLM(OPTConfig(vocab_size=43, max_position_embeddings=32, init_std=0.4, **sizes)).train()


@pytest.fixture(params=["llama", "gpt2", "opt"])
def model(request, llama):
    return {"llama": lambda: llama, "gpt2": gpt2, "opt": opt}[request.param]()


@pytest.mark.parametrize("batch_tokens", [1, 20, 10_000])
def test_likelihoods_equal_the_loss_of_transformers_in_float64(model, tokenizer, batch_tokens):
    measured = likelihoods(model, tokenizer, PROMPTS, REFERENCES, batch_tokens)
    for one, prompt, reference in zip(measured, PROMPTS, REFERENCES, strict=True):
        nats, tokens = expected(model, prompt, reference)
        assert one.tokens == tokens
        assert one.nats == pytest.approx(nats, rel=2e-6)


def test_the_model_is_left_as_it_was(tokenizer):
    model = gpt2()
    likelihoods(model, tokenizer, PROMPTS, REFERENCES, 100)
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_an_empty_reference_is_its_end_token_alone(llama, tokenizer):
    (likelihood,) = likelihoods(llama, tokenizer, [[3, 9]], [[END]], 100)
    log_p = llama.double()(torch.tensor([[3, 9]])).logits[0, -1].log_softmax(-1)
    assert likelihood.tokens == 1
    assert likelihood.nats == pytest.approx(-log_p[END].item(), rel=1e-5)


def test_a_reference_beyond_the_positions_is_cut_and_loses_its_end(tokenizer):
    model = gpt2()
    prompt = list(range(8))
    reference = [*range(10, 20), END]
    (likelihood,) = likelihoods(model, tokenizer, [prompt], [reference], 100)
    read = [*prompt, 10, 11, 12, 13]
    log_p = model.double().eval()(torch.tensor([read])).logits[0].log_softmax(-1)
    assert likelihood.tokens == 5
    assert likelihood.nats == pytest.approx(-sum(log_p[7 + i, 10 + i].item() for i in range(5)), rel=1e-5)


def test_a_prompt_beyond_the_positions_is_refused(tokenizer):
    with pytest.raises(ValueError, match="13 tokens, and the model 12 positions"):
        likelihoods(gpt2(), tokenizer, [list(range(13))], [[1, END]], 100)


def test_no_prompts_have_no_likelihoods(llama, tokenizer):
    assert likelihoods(llama, tokenizer, [], [], 100) == []


def test_unequal_numbers_are_refused(llama, tokenizer):
    with pytest.raises(ValueError, match=r"shorter|longer"):
        likelihoods(llama, tokenizer, [[1]], [[1, END], [2, END]], 100)


def test_batches_hold_no_more_tokens_than_they_may(llama, tokenizer):
    sizes = []
    llama.model.register_forward_hook(
        lambda module, inputs, named, output: sizes.append(named["input_ids"].numel()), with_kwargs=True
    )
    likelihoods(llama, tokenizer, PROMPTS, REFERENCES, 20)
    assert len(sizes) > 1
    assert max(sizes) <= 20
