"""The attention of a text's last token, as importance."""

from __future__ import annotations

import math

import pytest
import torch

from mta_framework import Head, States
from mta_plugins.importance_estimators.last_token import LastToken

LENGTHS = (6, 3, 2, 1)
MASK_BT = (torch.arange(6) < torch.tensor(LENGTHS)[:, None]).long()


def _states(dtype=torch.float32):
    final_BTD = torch.randn(4, 6, 8, generator=torch.Generator().manual_seed(1)).to(dtype)
    return States(final_BTD, {1: torch.zeros_like(final_BTD)}, Head(torch.zeros(3, 8)))


def _weigh(states, mask_BT=MASK_BT):
    return LastToken(LastToken.Params()).weigh(states, 1, mask_BT)


def test_weight_is_the_softmax_of_the_scaled_products_with_the_last_token():
    states = _states()
    weight_BT = _weigh(states)
    for text, length in enumerate(LENGTHS[:3]):
        rows = states.final_BTD[text, :length].double()
        rows = rows / (rows.std(1, correction=1, keepdim=True) + 1e-5)
        powers = [math.exp((rows[-1] @ row).item() / math.sqrt(8)) for row in rows[:-1]]
        expected = [power / sum(powers) for power in powers]
        assert weight_BT[text, : length - 1].tolist() == pytest.approx(expected, rel=1e-5)


def test_the_last_token_gets_the_mean_of_the_others_and_one_where_there_are_none():
    weight_BT = _weigh(_states())
    for text, length in enumerate(LENGTHS[:3]):
        assert weight_BT[text, length - 1].item() == pytest.approx(weight_BT[text, : length - 1].mean().item())
    assert weight_BT[3].tolist() == [1.0, 0, 0, 0, 0, 0]


def test_tokens_are_weighed_by_the_last_layer_whatever_the_key_layer():
    states = _states()
    assert torch.equal(LastToken(LastToken.Params()).weigh(states, 7, MASK_BT), _weigh(states))


def test_what_stands_on_padding_changes_nothing():
    states, padded = _states(), _states()
    padded.final_BTD[MASK_BT == 0] = 1e4
    assert torch.equal(_weigh(states), _weigh(padded))


def test_weights_are_float32_without_gradient_for_bf16_states_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        weight_BT = _weigh(_states(torch.bfloat16))
    assert weight_BT.dtype == torch.float32
    torch.testing.assert_close(weight_BT, _weigh(_states()), rtol=0.05, atol=0.05)
