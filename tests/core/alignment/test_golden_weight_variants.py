"""The weight variants of the authors' code: values and gradients computed with it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mta_framework.alignment import Alignment, WeightedTerm
from mta_framework.types import Head, LayerPair, ModelShape
from mta_plugins.alignment_terms.dsa import DSA
from mta_plugins.alignment_terms.hid import Hid
from mta_plugins.importance_estimators.attention import Attention
from mta_plugins.importance_estimators.entropy import Entropy

CASES = json.loads((Path(__file__).parents[2] / "golden" / "weight_variants.json").read_text())["cases"]
_ATTENTION = Attention(Attention.Params(padding_rows=True))
_VARIANTS = {
    "attention": (_ATTENTION, None, "importance"),
    "entropy": (Entropy(Entropy.Params()), _ATTENTION, "importance"),
    "no_weight": (_ATTENTION, None, "equal"),
}
"""Variant -> importance, pooling, and weights of both terms."""


@pytest.mark.parametrize("variant", _VARIANTS)
@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_variants_have_the_values_and_gradients_of_the_authors_code(case, variant, make_batch, make_states):
    importance, pooling, weights = _VARIANTS[variant]
    student = torch.tensor(case["student_hidden"], requires_grad=True)
    teacher_states = make_states(torch.tensor(case["teacher_hidden"]))
    teacher = replace(teacher_states, head=Head(torch.tensor(case["teacher_head"])))
    terms = [
        WeightedTerm(DSA(DSA.Params(reduction="batch", weights=weights)), 1.0),
        WeightedTerm(Hid(Hid.Params(weights=weights)), 0.1),
    ]
    shapes = ModelShape(1, student.shape[-1]), ModelShape(1, teacher.final_BTD.shape[-1])
    alignment = Alignment([LayerPair(1, 1, "words")], importance, terms, *shapes, pooling)
    (projection,) = alignment.term_modules["hid"]
    with torch.no_grad():
        projection.weight.copy_(torch.tensor(case["projection_weight"]))
        projection.bias.copy_(torch.tensor(case["projection_bias"]))
    batch = make_batch(case["lengths"], case["token_spans"], student.shape[1])
    loss_terms = alignment(make_states(student), teacher, batch)
    total = sum(term.weight * term.sum / batch.counts[term.unit] for term in loss_terms)
    gradients = torch.autograd.grad(total, [student, projection.weight])
    expected = case["expected"][variant]
    assert total.item() == pytest.approx(expected["dsa_plus_a_tenth_of_hid"], rel=1e-5)
    names = ("grad_student_hidden", "grad_projection_weight")
    for gradient, name in zip(gradients, names, strict=True):
        golden = torch.tensor(expected[name])
        torch.testing.assert_close(gradient, golden, rtol=1e-4, atol=1e-4 * golden.abs().max().item())
