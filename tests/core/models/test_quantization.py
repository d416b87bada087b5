"""Weights in 8 and 4 bit by bitsandbytes itself: their values, adapters that learn above them, and the export."""

from __future__ import annotations

import json

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from mta_framework import InputError
from mta_framework.models.decoder import head_of
from mta_framework.models.export import load_weights, save_adapters, save_student, save_weights
from mta_framework.models.head_check import check_head
from mta_framework.models.loading import load_adapted, load_student, load_teacher
from mta_framework.models.model_summary import summarise_student, summarise_teacher
from mta_framework.models.quantization import quantized_modules
from mta_framework.models.state_reader import StateReader
from mta_framework.spec.student import StudentSection
from mta_framework.spec.teacher import TeacherSection

pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")

NF4 = [-1.0, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.0910500, 0.0]
NF4 += [0.0795803, 0.1609302, 0.2461123, 0.3379152, 0.4407098, 0.5626170, 0.7229568, 1.0]
"""The 16 values of NF4 (Dettmers et al. 2023, QLoRA, appendix E)."""

KINDS = [{"bits": 4}, {"bits": 4, "use_double_quant": True}, {"bits": 8}]
SHAPE = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}


def nf4(weight: torch.Tensor) -> torch.Tensor:
    blocks = weight.reshape(-1, 64)
    scale, code = blocks.abs().amax(dim=1, keepdim=True), torch.tensor(NF4)
    return (code[((blocks / scale)[..., None] - code).abs().argmin(dim=-1)] * scale).reshape(weight.shape)


@pytest.fixture
def folder(tiny, tmp_path):
    """``folder(family)``: a plain model; GPT-2's linear modules are transposed, Llama's head may be tied."""

    def save(family="llama"):
        shape = {name: size for name, size in SHAPE.items() if family != "gpt2" or name != "intermediate_size"}
        tiny(family, **shape).save_pretrained(tmp_path / family)
        return str(tmp_path / family)

    return save


@pytest.fixture
def student(folder, tokenizer):
    """``student(kind, family, dtype)``: adapters that do nothing yet above quantised weights."""

    def load(kind, family="llama", dtype="float32", seed=0):
        section = StudentSection(path=folder(family), lora={"rank": 4}, quantization=kind)
        return load_student(section, None, tokenizer, seed, dtype)

    return load


def moved(model):
    """The model with adapters that do something."""
    generator = torch.Generator().manual_seed(5)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model


def logits_of(model, padded):
    with torch.no_grad():
        return model(input_ids=padded[0], attention_mask=padded[1]).logits[padded[1] == 1].float()


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("family", ["llama", "llama_tied", "gpt2"])
def test_export_is_the_base_rounded_to_its_bits_plus_the_adapters(student, tokenizer, tmp_path, tiny, kind, family):
    model = moved(student(kind, family))
    save_student(model, tokenizer, [256], tmp_path / "export")
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "export")
    original = AutoModelForCausalLM.from_pretrained(tmp_path / family)
    assert "quantization_config" not in json.loads((tmp_path / "export" / "config.json").read_text())
    adapters = dict(model.named_parameters())
    for name, actual in exported.named_parameters():
        weight = original.get_parameter(name).detach()
        a = adapters.get(f"base_model.model.{name.removesuffix('.weight')}.lora_A.default.weight")
        if a is None:
            assert torch.equal(actual, weight), name
            continue
        b = adapters[f"base_model.model.{name.removesuffix('.weight')}.lora_B.default.weight"]
        weight, actual = (weight.T.contiguous(), actual.T) if family == "gpt2" else (weight, actual)
        rounded = actual - 16 / 4 * b @ a
        if kind["bits"] == 8:  # the nearest of 255 values, found in float16
            assert ((rounded - weight).abs() <= 0.57 / 127 * weight.abs().amax(dim=1, keepdim=True)).all(), name
        else:
            # Double quantisation rounds each scale to 8 bit, non-linearly: by a percent or so of the mean scale.
            tolerance = 0.02 if "use_double_quant" in kind else 1e-6
            assert (rounded - nf4(weight)).abs().max() <= tolerance * weight.abs().max(), name


@pytest.mark.parametrize(
    ("width", "capability", "is_misread"),
    [(64, "AVX512", False), (48, "AVX512", True), (48, "AVX2", False), (40, "AVX512", False)],
)
def test_rows_that_the_processor_misreads_are_warned_of(
    tiny, tmp_path, tokenizer, caplog, monkeypatch, width, capability, is_misread
):
    tiny("llama", hidden_size=width, intermediate_size=128, num_hidden_layers=1).save_pretrained(tmp_path / "narrow")
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: capability)
    section = StudentSection(path=str(tmp_path / "narrow"), lora={"rank": 4}, quantization={"bits": 4})
    load_student(section, None, tokenizer, 0, "float32")
    warnings = [record.getMessage() for record in caplog.records if "misreads" in record.getMessage()]
    assert len(warnings) == is_misread
    assert all("layers.0.self_attn.q_proj and 5 others" in warning for warning in warnings)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_adapters_of_every_linear_module_get_a_gradient_in_float32(student, padded, kind, dtype):
    model = student(kind, dtype=dtype)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.1)
    quantized = dict(quantized_modules(model))
    assert len(quantized) == 14
    head = head_of(model)
    assert head.weight_VD.dtype == getattr(torch, dtype)
    assert head.weight_VD.shape == (300, 64)
    check_head(model)
    reader = StateReader(model, [1, 2])
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bfloat16"):
        states = reader.read(*padded)
        (states.final_BTD.float().square().sum() + states.layers[1].float().sum()).backward()
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert len(trained) == 28
    assert all(parameter.dtype == torch.float32 for parameter in trained.values())
    assert all(parameter.grad.abs().max() > 0 for parameter in trained.values())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_export_has_the_dtype_and_the_logits_of_the_student(student, tokenizer, tmp_path, padded, dtype):
    model = moved(student({"bits": 4}, dtype=dtype)).eval()
    before = logits_of(model, padded)
    save_student(model, tokenizer, [256], tmp_path / "export")
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "export", dtype="auto").eval()
    assert {parameter.dtype for parameter in exported.parameters()} == {getattr(torch, dtype)}
    scale = before.abs().max()
    # bfloat16 has 8 bits: states are rounded at a dozen operations in each of two blocks.
    tolerance = 1e-5 if dtype == "float32" else 2**-8 * 8
    assert (logits_of(exported, padded) - before).abs().max() <= tolerance * scale
    assert torch.equal(logits_of(model, padded), before)
    assert len(dict(quantized_modules(model))) == 14


def test_evaluation_between_steps_leaves_weights_from_which_gradients_flow(student, padded):
    model = student({"bits": 4})
    assert not any(module.support_avx512bf16_for_cpu for _, module in quantized_modules(model))
    packed = {name: module.weight.data.clone() for name, module in quantized_modules(model)}
    model.eval()
    logits_of(model, padded)
    assert all(module.weight.data.equal(packed[name]) for name, module in quantized_modules(model))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_checkpoints_hold_adapters_alone_and_the_same_student_comes_back(student, tmp_path, padded, kind):
    model = moved(student(kind)).eval()
    save_weights(model, tmp_path / "checkpoint")
    again = student(kind, seed=1).eval()
    load_weights(again, tmp_path / "checkpoint")
    assert torch.equal(logits_of(again, padded), logits_of(model, padded))
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert (tmp_path / "checkpoint" / "student.safetensors").stat().st_size < 4 * trained + 8000


@pytest.mark.parametrize("kind", [None, *KINDS], ids=str)
def test_adapters_alone_are_put_onto_the_model_that_they_were_trained_on(folder, tokenizer, tmp_path, padded, kind):
    section = StudentSection(path=folder(), lora={"rank": 4, "export": "adapters"}, quantization=kind)
    model = moved(load_student(section, None, tokenizer, 0)).eval()
    save_adapters(model, tokenizer, tmp_path / "export")
    files = {path.name for path in (tmp_path / "export").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json"} <= files
    assert not files & {"model.safetensors", "README.md"}
    again = load_adapted(section, tmp_path / "export", "float32", "cpu").eval()
    assert torch.equal(logits_of(again, padded), logits_of(model, padded))
    plain = AutoModelForCausalLM.from_pretrained(folder())
    expected = logits_of(PeftModel.from_pretrained(plain, tmp_path / "export").eval(), padded)
    if kind is None:
        assert torch.equal(logits_of(again, padded), expected)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("family", ["llama", "llama_tied", "gpt2"])
def test_summary_counts_the_bytes_of_quantised_weights(folder, tokenizer, kind, family):
    section = StudentSection(path=folder(family), lora={"rank": 4}, quantization=kind)
    model = load_student(section, None, tokenizer, 0, "bfloat16")
    measured = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    for _, module in quantized_modules(model):
        if kind["bits"] == 8:
            measured += module.weight.SCB.numel() * 4
        elif (state := module.weight.quant_state).nested:
            measured += state.absmax.numel() + state.state2.absmax.numel() * 4
        else:
            measured += state.absmax.numel() * 4
    assert summarise_student(section, None, tokenizer, "bfloat16").weight_bytes == measured


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_teacher_is_quantised_frozen_and_near_the_plain_one(folder, padded, kind):
    section = TeacherSection(path=folder(), quantization=kind)
    teacher = load_teacher(section, None, "float32")
    assert len(dict(quantized_modules(teacher))) == 14
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    check_head(teacher, "teacher")
    plain = load_teacher(TeacherSection(path=section.path), None, "float32")
    difference = (logits_of(teacher, padded) - logits_of(plain, padded)).norm() / logits_of(plain, padded).norm()
    # NF4 errs by about 9 % of a weight's deviation, int8 by under 1 %; errors of two blocks add up in quadrature.
    assert 0 < difference < (0.5 if kind["bits"] == 4 else 0.05)
    summary = summarise_teacher(section, None, "float32")
    assert summary.weight_bytes < summarise_teacher(TeacherSection(path=section.path), None, "float32").weight_bytes


def test_a_model_that_is_quantised_already_is_refused(student, tokenizer, tmp_path):
    base = student({"bits": 4}).get_base_model()
    base.save_pretrained(tmp_path / "quantised")
    section = StudentSection(path=str(tmp_path / "quantised"), lora={}, quantization={"bits": 8})
    with pytest.raises(InputError, match=r"^student\.quantization: .* is quantised already \(got bitsandbytes\)"):
        summarise_student(section, None, tokenizer)
