from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model

from mta_framework import ModelShape
from mta_framework.models.decoder import blocks_of
from mta_framework.models.state_reader import StateReader, shape_of

ALL = (1, 2, 3, 4)
FAMILIES = ["llama", "llama_tied", "gpt2", "opt", "qwen2", "gemma2"]


def hidden_states(model, padded):
    input_ids_BT, attention_mask_BT = padded
    return model(input_ids=input_ids_BT, attention_mask=attention_mask_BT, output_hidden_states=True).hidden_states


@pytest.mark.parametrize("family", FAMILIES)
def test_states_equal_hidden_states_in_every_layer_and_row(tiny, padded, family):
    model = tiny(family)
    expected = hidden_states(model, padded)
    states = StateReader(model, ALL).read(*padded)
    assert list(states.layers) == list(ALL)
    for layer in ALL:
        assert torch.equal(states.layers[layer], expected[layer])
    assert torch.equal(states.final_BTD, expected[-1])


def test_last_layer_has_the_width_of_the_others_where_the_decoder_projects(tiny, padded):
    model = tiny("opt_projected")
    expected = hidden_states(model, padded)
    states = StateReader(model, ALL).read(*padded)
    for layer in ALL[:-1]:
        assert torch.equal(states.layers[layer], expected[layer])
    assert states.layers[4].shape == (2, 7, 16)
    assert torch.equal(model.model.decoder.project_out(states.layers[4]), states.final_BTD)
    assert torch.equal(states.final_BTD, expected[4])
    assert shape_of(model) == ModelShape(num_layers=4, hidden_size=16)


@pytest.mark.parametrize("family", FAMILIES)
def test_shape_is_that_of_model_and_configuration(tiny, family):
    model = tiny(family)
    assert shape_of(model) == shape_of(model.config) == ModelShape(num_layers=4, hidden_size=16)


def test_only_the_layers_asked_for_are_kept(tiny, padded):
    model = tiny("gpt2")
    assert list(StateReader(model, [4, 2, 2]).read(*padded).layers) == [2, 4]
    assert StateReader(model, []).read(*padded).layers == {}


def test_head_is_not_called_and_no_cache_is_kept(tiny, padded):
    model = tiny("llama")
    reader = StateReader(model, [2])

    def refuse(*_):
        raise AssertionError("the head ran")

    model.lm_head.register_forward_hook(refuse)
    seen = {}
    model.model.register_forward_hook(lambda module, inputs, output: seen.update(output))
    reader.read(*padded)
    assert seen.get("past_key_values") is None
    assert "hidden_states" not in seen


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_equal_those_of_the_whole_model(tiny, padded, family):
    weights_BTD = torch.randn(2, 7, 16, generator=torch.Generator().manual_seed(1))
    model = tiny(family)
    expected_states = hidden_states(model, padded)
    sum((state * weights_BTD).sum() for state in expected_states[1:]).backward()
    expected = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    states = StateReader(model, ALL).read(*padded)
    sum((state * weights_BTD).sum() for state in states.layers.values()).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("lora", [False, True])
def test_gradient_checkpointing_changes_no_bit(tiny, padded, family, lora):
    def gradients(checkpointing):
        model = tiny(family)
        if lora:
            torch.manual_seed(0)
            model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=2, target_modules="all-linear"))
        model.train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        inner = next(blocks_of(model)[1][0].children())
        calls = []
        inner.register_forward_hook(lambda *_: calls.append(1))
        states = StateReader(model, ALL).read(*padded)
        kept = {layer: state.detach().clone() for layer, state in states.layers.items()}
        sum(state.square().sum() * layer for layer, state in states.layers.items()).backward()
        for layer, state in states.layers.items():
            assert torch.equal(state, kept[layer])
        assert len(calls) == (2 if checkpointing else 1)
        return {name: p.grad for name, p in model.named_parameters() if p.requires_grad}, kept

    (plain, plain_states), (checkpointed, states) = gradients(False), gradients(True)
    assert all(torch.equal(plain_states[layer], states[layer]) for layer in ALL)
    assert plain.keys() == checkpointed.keys()
    # A parameter without gradient (an untied head) has none in both.
    assert {name for name, grad in plain.items() if grad is None} == {
        name for name, grad in checkpointed.items() if grad is None
    }
    assert any(grad is not None and bool(grad.any()) for grad in plain.values())
    for name, grad in plain.items():
        assert grad is None or torch.equal(grad, checkpointed[name])


def test_adapters_take_part_under_peft(tiny, padded):
    plain = StateReader(tiny("llama"), ALL).read(*padded)
    config = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules="all-linear", init_lora_weights=False)
    adapted = get_peft_model(tiny("llama"), config).eval()
    states = StateReader(adapted, ALL).read(*padded)
    expected = hidden_states(adapted, padded)
    for layer in ALL:
        assert torch.equal(states.layers[layer], expected[layer])
        assert not torch.equal(states.layers[layer], plain.layers[layer])


def test_reading_works_in_inference_mode(tiny, padded):
    model = tiny("gpt2")
    reader = StateReader(model, ALL)
    with torch.inference_mode():
        states = reader.read(*padded)
        assert all(state.is_inference() for state in states.layers.values())
    expected = hidden_states(model, padded)
    assert all(torch.equal(states.layers[layer], expected[layer]) for layer in ALL)


def test_generation_and_other_forwards_leave_states_alone(tiny, padded):
    model = tiny("llama")
    reader = StateReader(model, [1])
    states = reader.read(*padded)
    before = states.layers[1].clone()
    model.generate(input_ids=padded[0], attention_mask=padded[1], max_new_tokens=3, do_sample=False)
    assert torch.equal(states.layers[1], before)
    assert reader._captured is None


def test_two_readers_share_a_model(tiny, padded):
    model = tiny("llama")
    first, second = StateReader(model, [1]), StateReader(model, [1, 3])
    assert list(first.read(*padded).layers) == [1]
    assert list(second.read(*padded).layers) == [1, 3]


def test_a_failed_read_leaves_the_reader_usable(tiny, padded):
    reader = StateReader(tiny("llama"), [2])
    with pytest.raises(IndexError):
        reader.read(torch.full((1, 2), 10_000), torch.ones(1, 2, dtype=torch.long))
    assert list(reader.read(*padded).layers) == [2]


def test_closing_takes_the_hooks_off(tiny):
    model = tiny("llama")
    reader = StateReader(model, [1, 2])
    assert sum(len(module._forward_hooks) for module in model.modules()) > 0
    reader.close()
    assert sum(len(module._forward_hooks) for module in model.modules()) == 0


NORMS = {
    "llama": "norm",
    "gpt2": "ln_f",
    "opt": "final_layer_norm",
    "opt_projected": "final_layer_norm",
    "qwen2": "norm",
    "gemma2": "norm",
    "cohere": "norm",
    "phi": "final_layernorm",
    "mixtral": "norm",
    "neox": "final_layer_norm",
}


@pytest.mark.parametrize("family", NORMS)
@pytest.mark.parametrize("lora", [False, True])
def test_tail_leads_from_the_last_block_to_the_final_state(tiny, padded, family, lora):
    model = tiny(family)
    decoder = model.get_decoder()
    if lora:
        model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=2, target_modules="all-linear")).eval()
    last = {}
    blocks_of(model)[1][-1].register_forward_hook(
        lambda module, inputs, output: last.update(state=output[0] if isinstance(output, tuple) else output)
    )
    states = StateReader(model, [2]).read(*padded)
    assert states.final_layers.shape == shape_of(model)
    assert states.final_layers.norm is getattr(decoder, NORMS[family])
    assert (states.final_layers.projection is None) is (family != "opt_projected")
    hidden_BTD = states.final_layers.norm(last["state"])
    if states.final_layers.projection is not None:
        hidden_BTD = states.final_layers.projection(hidden_BTD)
    assert torch.equal(hidden_BTD.view_as(states.final_BTD), states.final_BTD)


def test_decoder_without_a_final_norm_has_none_in_its_tail(tiny, padded):
    for changes in ({"do_layer_norm_before": False}, {"_remove_final_layer_norm": True}):
        states = StateReader(tiny("opt_projected", **changes), [2, 4]).read(*padded)
        assert states.final_layers.norm is None
        assert torch.equal(states.final_layers.projection(states.layers[4]), states.final_BTD)


def test_tail_is_seen_in_inference_mode_and_at_every_read(tiny, padded):
    model = tiny("llama")
    reader = StateReader(model, [4])
    with torch.inference_mode():
        assert reader.read(*padded).final_layers.norm is model.model.norm
    assert reader.read(*padded).final_layers.norm is model.model.norm


@pytest.mark.parametrize("layers", [[0], [5], [1, -1]])
def test_layers_out_of_range_are_refused(tiny, layers):
    with pytest.raises(ValueError, match="the model has layers 1 to 4"):
        StateReader(tiny("llama"), layers)


@pytest.mark.parametrize(
    ("family", "name"),
    [("llama", "model.layers"), ("gpt2", "transformer.h"), ("opt", "model.decoder.layers")],
)
def test_blocks_are_found_by_name(tiny, family, name):
    model = tiny(family)
    path, blocks = blocks_of(model)
    assert path == name
    assert blocks is model.get_submodule(name)
