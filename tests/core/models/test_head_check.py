from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from mta_framework import InputError
from mta_framework.models.decoder import head_of
from mta_framework.models.head_check import check_head

FAMILIES = [
    "llama",
    "llama_tied",
    "gpt2",
    "opt",
    "opt_projected",
    "qwen2",
    "gemma2",
    "cohere",
    "granite",
    "phi",
    "llama4",
]


def logits_of(head, final_BTD):
    """The definition, in float64: cap(scale * (h W^T + b))."""
    logits = final_BTD.double() @ head.weight_VD.double().T
    if head.bias_V is not None:
        logits = logits + head.bias_V.double()
    logits = logits * head.scale
    return logits if head.softcap is None else head.softcap * torch.tanh(logits / head.softcap)


@pytest.mark.parametrize("family", FAMILIES)
def test_head_reproduces_the_logits_of_the_model(tiny, padded, family):
    model = tiny(family)
    input_ids_BT, attention_mask_BT = padded
    with torch.no_grad():
        output = model(input_ids=input_ids_BT, attention_mask=attention_mask_BT, output_hidden_states=True)
    expected = logits_of(head_of(model), output.hidden_states[-1])
    torch.testing.assert_close(output.logits.double(), expected, rtol=1e-4, atol=1e-5)
    check_head(model)


@pytest.mark.parametrize(
    ("family", "scale", "softcap", "bias"),
    [("llama", 1.0, None, False), ("gemma2", 1.0, 2.0, False), ("cohere", 0.0625, None, False),
     ("granite", 0.125, None, False), ("phi", 1.0, None, True)],
)  # fmt: skip
def test_scale_softcap_and_bias_are_the_familys(tiny, family, scale, softcap, bias):
    head = head_of(tiny(family))
    assert (head.scale, head.softcap, head.bias_V is not None) == (scale, softcap, bias)


def test_weight_is_the_parameter_of_the_model(tiny):
    tied = tiny("llama_tied")
    assert head_of(tied).weight_VD is tied.get_input_embeddings().weight
    assert head_of(tiny("llama")).weight_VD.requires_grad


def test_head_is_found_under_peft(tiny, padded):
    model = tiny("llama")
    weight = model.lm_head.weight
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=2, target_modules="all-linear"))
    assert head_of(adapted).weight_VD is weight
    assert not head_of(adapted).weight_VD.requires_grad
    check_head(adapted)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_accepted(tiny, dtype):
    check_head(tiny("gemma2").to(dtype))


def test_checking_changes_neither_mode_nor_random_state(tiny):
    model = tiny("llama").train()
    before = torch.get_rng_state()
    check_head(model)
    assert model.training
    assert torch.equal(before, torch.get_rng_state())


def test_logits_that_are_processed_further_are_refused(tiny):
    model = tiny("llama")
    model.lm_head.register_forward_hook(lambda module, inputs, output: output * 1.1)
    with pytest.raises(InputError, match=r"student\.path: LlamaForCausalLM post-processes its logits"):
        check_head(model, "student.path")


def test_an_adapter_on_the_head_is_refused(tiny):
    adapted = get_peft_model(tiny("llama"), LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["lm_head"]))
    with pytest.raises(InputError, match="no linear output layer"):
        head_of(adapted)


def test_a_model_without_head_is_refused(tiny):
    model = tiny("llama")
    model.set_output_embeddings(nn.Identity())
    with pytest.raises(InputError, match="got Identity"):
        head_of(model)


def test_a_decoder_that_cannot_be_run_by_itself_is_a_fault(tiny, monkeypatch):
    monkeypatch.setattr("mta_framework.models.head_check.decoder_of", lambda model: model)
    with pytest.raises(InputError, match=r"teacher: LlamaForCausalLM cannot be run without its output layer .got Attr"):
        check_head(tiny("llama"), "teacher")
