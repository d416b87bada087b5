"""Layers of real models compared by what they make of spans."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mta_framework import InputError
from mta_framework.alignment.layer_similarity import layer_similarity

SPANS = [[(0, 2), (2, 3), (3, 6)], [(1, 3), (0, 1), (3, 4)]]


def _model(layers, width, seed=0, dropout=0.0):
    torch.manual_seed(seed)
    sizes = {"hidden_size": width, "intermediate_size": 2 * width, "num_attention_heads": 2, "num_key_value_heads": 2}
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=30, num_hidden_layers=layers, attention_dropout=dropout, initializer_range=0.4, **sizes)
    )


@pytest.fixture
def batch(make_batch):
    ids = torch.randint(30, (2, 6), generator=torch.Generator().manual_seed(3))
    return replace(make_batch([6, 4], SPANS, 6), input_ids_BT=ids)


def _means(model, batch, layer):
    hidden = model(batch.input_ids_BT, attention_mask=batch.attention_mask_BT, output_hidden_states=True).hidden_states
    rows = [hidden[layer][text, a:b].double().mean(0) for text, ranges in enumerate(SPANS) for a, b in ranges]
    return torch.stack([row / row.norm() for row in rows])


def _hsic(one, other):
    n = len(one)
    k, h = ((x @ x.T).fill_diagonal_(0) for x in (one, other))
    sums = k.sum() * h.sum() / ((n - 1) * (n - 2))
    return (((k @ h).trace() + sums - 2 * (k @ h).sum() / (n - 2)) / (n * (n - 3))).item()


@torch.no_grad()
def test_all_layers_are_compared_by_the_means_of_their_spans(batch):
    student, teacher = _model(2, 8), _model(3, 12, seed=1)
    measured = layer_similarity(student, teacher, [batch], ["words"])
    assert (len(measured.across), len(measured.across[0]), len(measured.within)) == (2, 3, 2)
    for student_layer in (1, 2):
        for other in (1, 2, 3):
            pair = _means(student, batch, student_layer), _means(teacher, batch, other)
            expected = _hsic(*pair) / math.sqrt(_hsic(pair[0], pair[0]) * _hsic(pair[1], pair[1]))
            assert measured.across[student_layer - 1][other - 1] == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_a_model_is_most_like_itself(batch):
    model = _model(3, 8)
    measured = layer_similarity(model, model, [batch, batch], ["words"])
    # Over and below the line stand float64 sums of 36 products in another order, each within 36 eps of its scale.
    for across, within in zip(measured.across, measured.within, strict=True):
        assert across == pytest.approx(within, rel=0, abs=2 * 36 * torch.finfo(torch.float64).eps)
    assert [measured.across[layer][layer] for layer in range(3)] == pytest.approx([1, 1, 1])


def test_models_are_left_as_they_were_and_no_randomness_is_used(batch):
    student, teacher = _model(2, 8, dropout=0.5).train(), _model(2, 8, seed=1).eval()
    state = torch.get_rng_state()
    first = layer_similarity(student, teacher, [batch], ["words"])
    assert layer_similarity(student, teacher, [batch], ["words"]) == first
    assert torch.equal(torch.get_rng_state(), state)
    assert student.training
    assert not teacher.training
    assert student(batch.input_ids_BT).logits.requires_grad
    assert not any(module._forward_hooks for module in student.modules())


def test_where_tokenizers_differ_each_model_reads_its_own_tokens(batch, make_batch):
    wide = [[(2 * a, 2 * b) for a, b in ranges] for ranges in SPANS]
    ids = batch.input_ids_BT.repeat_interleave(2, dim=1)
    other = replace(make_batch([12, 8], wide, 12), input_ids_BT=ids)
    student, teacher = _model(2, 8), _model(2, 8, seed=1)
    both = layer_similarity(student, teacher, [replace(batch, teacher=other)], ["words"])
    assert both.within == layer_similarity(student, teacher, [batch], ["words"]).within
    swapped = layer_similarity(teacher, student, [replace(other, teacher=batch)], ["words"])
    assert torch.allclose(torch.tensor(both.across), torch.tensor(swapped.across).T)


def test_of_very_many_spans_some_from_all_over_are_compared(batch, monkeypatch):
    monkeypatch.setattr("mta_framework.alignment.layer_similarity._MOST_SPANS", 4)
    student, teacher = _model(1, 8), _model(1, 8, seed=1)
    few = layer_similarity(student, teacher, [batch], ["words"])
    with torch.no_grad():
        rows = [_means(model, batch, 1)[[0, 2, 3, 5]] for model in (student, teacher)]
    expected = _hsic(*rows) / math.sqrt(_hsic(rows[0], rows[0]) * _hsic(rows[1], rows[1]))
    assert few.across[0][0] == pytest.approx(expected, rel=1e-4)


def test_texts_without_spans_cannot_be_compared(make_batch):
    with pytest.raises(InputError, match="too few spans"):
        layer_similarity(_model(1, 8), _model(1, 8), [make_batch([3, 2], [[], [(0, 1)]], 3)], ["words"])
