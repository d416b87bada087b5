"""The implementation of attention that a spec names is the one that computes."""

from __future__ import annotations

import pytest
import torch

from mta_framework import InputError
from mta_framework.models.loading import load_student, load_teacher
from mta_framework.models.model_summary import summarise_student, summarise_teacher
from mta_framework.spec.student import StudentSection
from mta_framework.spec.teacher import TeacherSection

CONFIG = {"model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
CONFIG |= {"num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 64}


@pytest.mark.parametrize("attention", ["eager", "sdpa", None])
def test_teacher_and_student_attend_as_the_spec_says(tiny, tokenizer, tmp_path, padded, attention):
    tiny("llama").save_pretrained(tmp_path)
    teacher = load_teacher(TeacherSection(path=str(tmp_path), attention=attention), None, "float32")
    sections = [
        {"path": str(tmp_path)},
        {"config": CONFIG},
        {"teacher_layers": [1, 3]},
        {"path": str(tmp_path), "lora": {}},
    ]
    students = [load_student(StudentSection(attention=attention, **one), teacher, tokenizer, 0) for one in sections]
    for model in [teacher, *students]:
        assert model.config._attn_implementation == (attention or "sdpa")
    with torch.no_grad():
        expected = tiny("llama")(input_ids=padded[0], attention_mask=padded[1]).logits
        actual = teacher(input_ids=padded[0], attention_mask=padded[1]).logits
    torch.testing.assert_close(actual[padded[1] == 1], expected[padded[1] == 1], rtol=1e-4, atol=1e-4)


def test_an_architecture_without_the_implementation_is_refused_before_weights_are_read(tokenizer, tiny, tmp_path):
    bloom = {"model_type": "bloom", "hidden_size": 16, "n_layer": 2, "n_head": 2}
    for attention in ("sdpa", "flash_attention_2"):
        with pytest.raises(InputError) as refusal:
            summarise_student(StudentSection(config=bloom, attention=attention), None, tokenizer)
        assert str(refusal.value) == (
            f"student.attention: is no implementation that BloomForCausalLM has (got {attention!r}); "
            "expected eager. Choose one of these, or leave it out."
        )
    tiny("bloom").save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"^teacher\.attention: is no implementation that BloomForCausalLM has"):
        summarise_teacher(TeacherSection(path=str(tmp_path), attention="sdpa"), None, "float32")
    assert summarise_student(StudentSection(config=bloom, attention="eager"), None, tokenizer).parameters > 0
