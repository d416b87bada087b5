"""Generation in the midst of training: adapters, recomputation, hooks and autocast are on; steps go on as before."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from mta_framework.generation.generate import generate
from mta_framework.generation.sampling_settings import Sampling, prompt_seeds
from mta_framework.models.state_reader import StateReader

ENDS = [40]
PROMPTS = [[3, 1, 4], [1, 5, 9, 2, 6, 5, 35], [8], [9, 7, 9, 3], [2, 3]]
SEEDS = prompt_seeds(1, 5)
SAMPLING = Sampling(temperature=1.0, top_p=1.0, max_new_tokens=12, batch_tokens=40)

SIZES = {
    "vocab_size": 43,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": 41,
}
SHORT = {name: SIZES[name] for name in SIZES if name not in ("num_key_value_heads", "intermediate_size")}
LONG_ROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 4,
    "long_factor": [4.0] * 4,
    "original_max_position_embeddings": 8,
}
FAMILIES = {
    "llama": ("llama", SIZES),
    "llama with long rope": ("llama", SIZES | {"rope_parameters": LONG_ROPE}),
    "gpt2": ("gpt2", SHORT),
    "opt": ("opt", SHORT | {"ffn_dim": 32, "dropout": 0.1}),
    "gemma2": ("gemma2", SIZES | {"head_dim": 8, "sliding_window": 3}),
    "qwen2": ("qwen2", SIZES),
}


@pytest.fixture(params=list(FAMILIES))
def family(request):
    """A tiny model of each family in training mode, with dropout where it has any."""
    model_type, fields = FAMILIES[request.param]
    torch.manual_seed(2)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **fields))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model.train()


def gradients(model):
    """Of one training step's loss, by name."""
    ids = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6, 5, 3]])
    torch.manual_seed(5)
    model.zero_grad()
    model(ids, labels=ids).loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


def require_equal(first, second):
    assert first
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_training_step_after_generation_has_the_gradients_of_one_before(family, tokenizer):
    before = gradients(family)
    generations = generate(family, tokenizer, ENDS, PROMPTS, SAMPLING, SEEDS, None)
    require_equal(gradients(family), before)
    with torch.no_grad():
        next(family.parameters()).mul_(-1.0)
    assert generate(family, tokenizer, ENDS, PROMPTS, SAMPLING, SEEDS, None) != generations


def test_first_step_of_a_model_may_follow_its_generation(family, tokenizer):
    fresh = copy.deepcopy(family)
    generate(family, tokenizer, ENDS, PROMPTS, SAMPLING, SEEDS, None)
    require_equal(gradients(family), gradients(fresh))


def test_adapters_recomputation_and_hooks_change_no_response(family, tokenizer):
    plain = generate(family, tokenizer, ENDS, PROMPTS, SAMPLING, SEEDS, None)
    wrapped = get_peft_model(family, LoraConfig(r=2, target_modules="all-linear", lora_dropout=0.5))
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5)
    merged = copy.deepcopy(wrapped).merge_and_unload().eval()
    expected = generate(merged, tokenizer, ENDS, PROMPTS, SAMPLING, SEEDS, None)
    assert expected != plain
    wrapped.train()
    wrapped.get_base_model().gradient_checkpointing_enable({"use_reentrant": False})
    wrapped.enable_input_require_grads()
    reader = StateReader(wrapped, [1, 3])
    mask = torch.ones(1, 3, dtype=torch.int64)
    torch.manual_seed(6)
    before = reader.read(torch.tensor([[3, 1, 4]]), mask)
    assert generate(wrapped, tokenizer, ENDS, PROMPTS, SAMPLING, SEEDS, None) == expected
    torch.manual_seed(6)
    after = reader.read(torch.tensor([[3, 1, 4]]), mask)
    assert all(torch.equal(after.layers[layer], before.layers[layer]) for layer in (1, 3))
    after.final_BTD.sum().backward()
    trained = {name: parameter for name, parameter in wrapped.named_parameters() if parameter.requires_grad}
    assert all(parameter.grad is not None and not parameter.grad.is_inference() for parameter in trained.values())
    assert all("lora" in name for name in trained)


def test_every_token_is_computed_once(family, tokenizer):
    family.gradient_checkpointing_enable({"use_reentrant": False})
    widths = []
    embedding = family.get_input_embeddings()
    embedding.register_forward_hook(lambda module, inputs, output: widths.append(inputs[0].shape[1]))
    generate(family, tokenizer, ENDS, [[3, 1, 4]], SAMPLING, [1], None)
    assert widths[0] == 3
    assert set(widths[1:]) == {1}


def test_step_within_the_same_autocast_context_still_has_gradients(llama, tokenizer):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = gradients(copy.deepcopy(llama))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        generate(llama, tokenizer, ENDS, PROMPTS, SAMPLING, SEEDS, None)
        actual = gradients(llama)
    require_equal(actual, expected)


def test_parameters_and_buffers_stay_outside_inference_mode(llama, tokenizer):
    generate(llama, tokenizer, ENDS, PROMPTS, SAMPLING, SEEDS, None)
    assert not any(parameter.is_inference() for parameter in llama.parameters())
    assert not torch.is_inference_mode_enabled()
