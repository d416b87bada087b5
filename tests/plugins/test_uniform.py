"""Uniform importance."""

from __future__ import annotations

import torch

from mta_framework.types import Head, States
from mta_plugins.importance_estimators.uniform import Uniform


def test_tokens_weigh_one_and_padding_nothing_whatever_the_states():
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    hidden = torch.full((2, 3, 4), float("nan"), requires_grad=True)
    weight = Uniform(Uniform.Params()).weigh(States(hidden, {1: hidden}, Head(torch.zeros(1, 4))), 1, mask)
    assert weight.tolist() == [[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]]
    assert weight.dtype == torch.float32
    assert not weight.requires_grad
