"""DSA and Hid against numbers computed with the authors' code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mta_framework.alignment import Alignment, WeightedTerm
from mta_framework.types import LayerPair, ModelShape
from mta_plugins.alignment_terms.dsa import DSA
from mta_plugins.alignment_terms.hid import Hid
from mta_plugins.importance_estimators.attention import Attention

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "span_losses.json").read_text())


def _tensor(entry):
    return torch.tensor(entry["data"], dtype=torch.float32).view(entry["shape"])


@pytest.fixture(params=range(len(GOLDEN["cases"])))
def case(request):
    return GOLDEN["cases"][request.param]


def _losses(case, make_batch, make_states):
    """The two terms, each divided by its count, and the student's states."""
    student, teacher = _tensor(case["student_hidden"]).requires_grad_(), _tensor(case["teacher_hidden"])
    lengths = _tensor(case["attention_mask"]).sum(1).int().tolist()
    batch = make_batch(lengths, case["token_spans"], student.shape[1])
    alignment = Alignment(
        [LayerPair(1, 1, "words")],
        Attention(Attention.Params(padding_rows=True)),
        [WeightedTerm(DSA(DSA.Params(reduction="batch")), 2.0), WeightedTerm(Hid(Hid.Params()), 0.2)],
        ModelShape(1, student.shape[-1]),
        ModelShape(1, teacher.shape[-1]),
    )
    (projection,) = alignment.term_modules["hid"]
    with torch.no_grad():
        projection.weight.copy_(_tensor(case["projector_weight"]))
        projection.bias.copy_(_tensor(case["projector_bias"]))
    terms = alignment(make_states(student), make_states(teacher), batch)
    return {term.name: term.sum / batch.counts[term.unit] for term in terms}, student


def _assert_gradient(got, entry):
    golden = _tensor(entry)
    torch.testing.assert_close(got, golden, rtol=1e-4, atol=1e-4 * golden.abs().max().item())


def test_values_are_those_of_the_authors_code(case, make_batch, make_states):
    losses, _ = _losses(case, make_batch, make_states)
    expected = case["expected"]
    assert losses["dsa"].item() == pytest.approx(expected["dsa"], rel=1e-5)
    assert losses["hid"].item() == pytest.approx(expected["hid"], rel=1e-5)
    both = (losses["dsa"] + 0.1 * losses["hid"]).item()
    assert both == pytest.approx(expected["dsa_plus_tenth_hid"], rel=1e-5)


def test_gradients_are_those_of_the_authors_code(case, make_batch, make_states):
    losses, student = _losses(case, make_batch, make_states)
    (dsa,) = torch.autograd.grad(losses["dsa"], student, retain_graph=True)
    _assert_gradient(dsa, case["expected"]["dsa_grad_student_hidden"])
    (both,) = torch.autograd.grad(losses["dsa"] + 0.1 * losses["hid"], student)
    _assert_gradient(both, case["expected"]["grad_student_hidden"])
