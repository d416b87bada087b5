from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from mta_framework import RunError
from mta_framework.models.export import load_weights, save_student, save_weights
from mta_framework.models.loading import load_student
from mta_framework.spec.student import StudentSection


@pytest.fixture
def student(tiny, tokenizer, tmp_path):
    """``student(family, lora)``: with adapters that do something."""

    def make(family, lora):
        folder = tmp_path / f"source-{family}"
        tiny(family).save_pretrained(folder)
        section = StudentSection(path=str(folder), lora={"rank": 2, "alpha": 8} if lora else None)
        model = load_student(section, None, tokenizer, seed=0).eval()
        generator = torch.Generator().manual_seed(5)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
        return model

    return make


def logits_of(model, padded):
    with torch.no_grad():
        return model(input_ids=padded[0], attention_mask=padded[1]).logits


@pytest.mark.parametrize("family", ["llama", "llama_tied", "gpt2", "opt_projected", "mixtral"])
@pytest.mark.parametrize("lora", [False, True])
def test_export_loads_as_a_plain_model_with_the_same_logits(student, tokenizer, tmp_path, padded, family, lora):
    model = student(family, lora)
    save_student(model, tokenizer, [256], tmp_path / "export")
    plain, report = AutoModelForCausalLM.from_pretrained(tmp_path / "export", output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert not any("lora" in name or "base_layer" in name for name in plain.state_dict())
    torch.testing.assert_close(logits_of(plain.eval(), padded), logits_of(model, padded), rtol=1e-4, atol=1e-4)
    assert {parameter.dtype for parameter in plain.parameters()} == {torch.float32}
    if not lora:
        # Loaded weights lie where the file has them; copies are aligned like the model's own: no sum changes its order.
        assert torch.equal(logits_of(copy.deepcopy(plain), padded), logits_of(model, padded))


@pytest.mark.parametrize("family", ["llama_tied", "gpt2"])
def test_export_leaves_the_trained_model_as_it_is(student, tokenizer, tmp_path, padded, family):
    model = student(family, lora=True)
    before, trained = logits_of(model, padded), [name for name, p in model.named_parameters() if p.requires_grad]
    save_student(model, tokenizer, [256], tmp_path / "export")
    assert torch.equal(logits_of(model, padded), before)
    assert [name for name, p in model.named_parameters() if p.requires_grad] == trained


def test_export_has_tokenizer_and_safetensors_alone(student, tokenizer, tmp_path):
    save_student(student("llama", lora=True), tokenizer, [256], tmp_path / "export")
    names = {path.name for path in (tmp_path / "export").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert not any(name.endswith((".bin", ".pt", ".pkl")) or "adapter" in name for name in names)
    again = AutoTokenizer.from_pretrained(tmp_path / "export")
    assert again("naïve 😀").input_ids == tokenizer("naïve 😀").input_ids
    assert again.eos_token_id == again.pad_token_id == 256


def test_export_replaces_an_earlier_one(student, tokenizer, tmp_path):
    folder = tmp_path / "deep" / "export"
    (folder / "old").mkdir(parents=True)
    save_student(student("llama", lora=False), tokenizer, [256], folder)
    assert not (folder / "old").exists()
    assert [path.name for path in folder.parent.iterdir()] == ["export"]


def test_export_that_fails_leaves_the_earlier_one(student, tokenizer, tmp_path, monkeypatch):
    model = student("llama", lora=False)
    save_student(model, tokenizer, [256], tmp_path / "export")
    before = sorted((path.name, path.stat().st_mtime_ns) for path in (tmp_path / "export").iterdir())

    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(type(tokenizer), "save_pretrained", fail)
    with pytest.raises(OSError, match="disk full"):
        save_student(model, tokenizer, [256], tmp_path / "export")
    assert sorted((path.name, path.stat().st_mtime_ns) for path in (tmp_path / "export").iterdir()) == before


@pytest.mark.parametrize("family", ["llama", "llama_tied", "gpt2"])
@pytest.mark.parametrize("lora", [False, True])
def test_trained_weights_return_bit_by_bit(student, tmp_path, family, lora):
    model = student(family, lora)
    save_weights(model, tmp_path / "checkpoint")
    expected = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    identities = [id(parameter) for parameter in model.parameters()]
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.ones_(parameter)
    load_weights(model, tmp_path / "checkpoint")
    assert [id(parameter) for parameter in model.parameters()] == identities
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, expected[name])
    assert [path.name for path in (tmp_path / "checkpoint").iterdir()] == ["student.safetensors"]


def test_adapters_alone_are_kept_in_checkpoints(student, tmp_path):
    save_weights(student("llama", lora=True), tmp_path / "adapters")
    save_weights(student("llama", lora=False), tmp_path / "all")
    sizes = [(tmp_path / name / "student.safetensors").stat().st_size for name in ("adapters", "all")]
    assert sizes[0] < sizes[1] / 2


def test_weights_of_another_student_are_refused(student, tiny, tmp_path):
    save_weights(student("llama", lora=False), tmp_path)
    with pytest.raises(RunError, match="is of another student"):
        load_weights(student("gpt2", lora=False), tmp_path)
    with pytest.raises(RunError, match=r"differs in 12 weights: .*mlp"):
        load_weights(tiny("llama", intermediate_size=8), tmp_path)
