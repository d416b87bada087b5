"""Divergences against numbers computed with the authors' code."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch

from mta_framework.chunked_loss import (
    HeadInputs,
    chunked_sum,
    forward_kl,
    jensen_shannon,
    reverse_kl,
    skew_forward_kl,
    skew_reverse_kl,
    total_variation,
)
from mta_framework.types import Head

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "divergences.json").read_text())
CASES = range(len(GOLDEN["cases"]))
KERNELS = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "skew_forward_kl": partial(skew_forward_kl, skew=0.1),
    "skew_reverse_kl": partial(skew_reverse_kl, skew=0.1),
    "js": partial(jensen_shannon, beta=0.1),
    "tv": total_variation,
}
"""Name in the golden file -> kernel; its js has lam = 1 - beta = 0.9."""


def _tensor(entry):
    return torch.tensor(entry["data"], dtype=torch.float32).view(entry["shape"])


def _mean_and_gradient(case, kernel):
    """The loss over supervised positions, through a head that is the identity, and its gradient on all positions."""
    student = _tensor(case["student_logits"]).requires_grad_()
    teacher = _tensor(case["teacher_logits"])
    chosen = _tensor(case["supervised_mask"]).flatten().bool()
    identity = Head(torch.eye(student.shape[-1]))
    inputs = [HeadInputs(logits.flatten(0, 1)[chosen], identity) for logits in (student, teacher)]
    loss = chunked_sum(kernel, *inputs, chunk_size=2) / chosen.sum()
    loss.backward()
    return loss.item(), student.grad


@pytest.mark.parametrize("index", CASES)
@pytest.mark.parametrize(("name", "kernel"), KERNELS.items())
def test_loss_and_gradient_are_those_of_the_authors_code(index, name, kernel):
    case = GOLDEN["cases"][index]
    expected = case["expected"][name]["loss"]
    if name in ("forward_kl", "skew_forward_kl"):  # the golden value is the cross-entropy part alone
        expected -= case["expected"]["teacher_entropy_mean"]
    loss, gradient = _mean_and_gradient(case, kernel)
    assert loss == pytest.approx(expected, rel=1e-5)
    golden = _tensor(case["expected"][name]["grad_student_logits"])
    tolerance = 1e-4 * golden.abs().max().item()
    torch.testing.assert_close(gradient, golden, rtol=1e-4, atol=tolerance)
