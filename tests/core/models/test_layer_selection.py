from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from mta_framework import InputError
from mta_framework.models.export import save_student
from mta_framework.models.layer_selection import select_layers
from mta_framework.models.loading import load_student
from mta_framework.spec.student import StudentSection

FAMILIES = {
    "llama": "model.layers",
    "llama_tied": "model.layers",
    "gpt2": "transformer.h",
    "opt": "model.decoder.layers",
    "qwen2": "model.layers",
    "gemma2": "model.layers",
}


@pytest.mark.parametrize(("family", "blocks"), FAMILIES.items())
def test_student_computes_what_the_teacher_does_without_the_other_blocks(tiny, padded, family, blocks):
    teacher = tiny(family)
    student = select_layers(teacher, [2, 4]).eval()
    by_hand = copy.deepcopy(teacher)
    parent, _, name = blocks.rpartition(".")
    kept = by_hand.get_submodule(blocks)
    setattr(by_hand.get_submodule(parent), name, nn.ModuleList([kept[1], kept[3]]))
    by_hand.config.num_hidden_layers = 2
    if getattr(by_hand.config, "layer_types", None):
        types = by_hand.config.layer_types
        by_hand.config.layer_types = [types[1], types[3]]
    input_ids_BT, attention_mask_BT = padded
    inputs = {"input_ids": input_ids_BT, "attention_mask": attention_mask_BT, "use_cache": False}
    with torch.no_grad():
        assert torch.equal(student(**inputs).logits, by_hand(**inputs).logits)
        assert not torch.allclose(student(**inputs).logits, teacher(**inputs).logits)
    assert student.config.num_hidden_layers == 2


def test_lists_per_block_are_cut_with_the_blocks(tiny):
    teacher = tiny("gemma2")
    assert teacher.config.layer_types == ["sliding_attention", "full_attention"] * 2
    assert select_layers(teacher, [2, 3, 4]).config.layer_types == [
        "full_attention",
        "sliding_attention",
        "full_attention",
    ]
    assert teacher.config.layer_types == ["sliding_attention", "full_attention"] * 2


def test_all_blocks_give_an_independent_float32_copy(tiny):
    teacher = tiny("llama_tied").bfloat16()
    student = select_layers(teacher, [1, 2, 3, 4])
    for name, tensor in student.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, teacher.state_dict()[name].float())
    assert student.lm_head.weight is student.get_input_embeddings().weight
    nn.init.zeros_(student.get_input_embeddings().weight)
    assert teacher.get_input_embeddings().weight.any()


def test_layer_beyond_the_teacher_is_refused(tiny, tokenizer):
    section = StudentSection(teacher_layers=[1, 4, 5, 9])
    with pytest.raises(InputError) as raised:
        load_student(section, tiny("gpt2"), tokenizer, seed=0)
    (fault,) = raised.value.faults
    assert str(fault).startswith(
        "student.teacher_layers: goes beyond the teacher's depth (got [5, 9]); expected layers from 1 to 4"
    )


def test_shortened_student_survives_export(tiny, tokenizer, tmp_path):
    student = load_student(StudentSection(teacher_layers=[1, 4]), tiny("gemma2"), tokenizer, seed=0)
    save_student(student, tokenizer, [256], tmp_path / "student")
    again = load_student(StudentSection(path=str(tmp_path / "student")), None, tokenizer, seed=0)
    assert again.config.layer_types == student.config.layer_types
    for name, tensor in student.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
