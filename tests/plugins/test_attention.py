"""Importance from hidden states."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mta_framework.types import Head, States
from mta_plugins.importance_estimators import attention
from mta_plugins.importance_estimators.attention import Attention

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "token_importance.json").read_text())


def _tensor(entry):
    return torch.tensor(entry["data"], dtype=torch.float32).view(entry["shape"])


def _weigh(hidden, mask, **params):
    states = States(hidden, {4: hidden}, Head(torch.zeros(1, hidden.shape[-1])))
    return Attention(Attention.Params(**params)).weigh(states, 4, mask)


def _random(texts, length, width=8):
    return torch.randn(texts, length, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("case", GOLDEN["cases"])
def test_with_padding_rows_weights_are_those_of_the_authors_code(case):
    mask = _tensor(case["attention_mask"]).long()
    expected = _tensor(case["expected_weights"]).view(mask.shape)
    weight = _weigh(_tensor(case["hidden"]), mask, padding_rows=True)
    torch.testing.assert_close(weight, expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("case", GOLDEN["cases"])
def test_without_padding_rows_full_texts_still_have_the_weights_of_the_authors_code(case):
    mask = _tensor(case["attention_mask"]).long()
    expected = _tensor(case["expected_weights"]).view(mask.shape)
    weight = _weigh(_tensor(case["hidden"]), mask)
    full = mask.bool().all(1)
    assert full.any()
    torch.testing.assert_close(weight[full], expected[full], rtol=1e-5, atol=1e-8)


def test_weights_of_a_text_do_not_depend_on_padding_or_what_stands_there():
    hidden = _random(2, 9)
    mask = torch.tensor([[1] * 9, [1] * 4 + [0] * 5])
    hidden[1, 4:] = 100
    alone = _weigh(hidden[1:, :4], mask[1:, :4])
    torch.testing.assert_close(_weigh(hidden, mask)[1, :4], alone[0])


@pytest.mark.parametrize("padding_rows", [False, True])
def test_weights_are_zero_on_padding_and_sum_to_one_over_a_text(padding_rows):
    mask = torch.tensor([[1] * 6, [1] * 3 + [0] * 3, [1, 1] + [0] * 4])
    weight = _weigh(_random(3, 6), mask, padding_rows=padding_rows)
    assert not weight[mask == 0].any()
    torch.testing.assert_close(weight.sum(1), torch.ones(3))


@pytest.mark.parametrize("padding_rows", [False, True])
@pytest.mark.parametrize("length", [1, 5])
def test_only_token_of_a_text_has_weight_one(length, padding_rows):
    mask = torch.tensor([[1] + [0] * (length - 1)])
    assert _weigh(_random(1, length), mask, padding_rows=padding_rows).tolist() == [[1.0] + [0.0] * (length - 1)]


def test_row_by_row_in_float64_without_causal_mask_or_self_loops():
    hidden = _random(1, 5).double()[0]
    scaled = [row / (((row - row.mean()) ** 2).sum().div(7).sqrt() + 1e-5) for row in hidden]
    expected = torch.zeros(5, dtype=torch.float64)
    for t in range(5):
        others = [u for u in range(5) if u != t]
        powers = {u: float(torch.exp(scaled[t] @ scaled[u] / 8**0.5)) for u in others}
        for u in others:
            expected[u] += powers[u] / sum(powers.values()) / 5
    weight = _weigh(hidden[None].float(), torch.ones(1, 5, dtype=torch.int64))
    torch.testing.assert_close(weight[0].double(), expected, rtol=1e-5, atol=0)


def test_weights_are_float32_without_gradient_also_for_bf16_states_under_autocast():
    hidden = _random(2, 6)
    mask = torch.ones(2, 6, dtype=torch.int64)
    with torch.autocast("cpu", torch.bfloat16):
        weight = _weigh(hidden.requires_grad_(), mask)
    assert not weight.requires_grad
    # Between the roundings of float32, 2^-24, and one of bfloat16, 2^-9.
    torch.testing.assert_close(weight, _weigh(hidden.detach(), mask), rtol=2**-16, atol=0)
    assert _weigh(hidden.detach().bfloat16(), mask).dtype == torch.float32


def test_states_without_spread_stay_finite():
    assert _weigh(torch.ones(1, 4, 8), torch.ones(1, 4, dtype=torch.int64)).tolist() == [[0.25] * 4]


@pytest.mark.parametrize("padding_rows", [False, True])
@pytest.mark.parametrize("block_pairs", [1, 40, 60])
def test_blocks_of_rows_give_the_same_weights(monkeypatch, block_pairs, padding_rows):
    hidden, mask = _random(2, 11), torch.tensor([[1] * 11, [1] * 6 + [0] * 5])
    whole = _weigh(hidden, mask, padding_rows=padding_rows)
    monkeypatch.setattr(attention, "_BLOCK_PAIRS", block_pairs)
    torch.testing.assert_close(_weigh(hidden, mask, padding_rows=padding_rows), whole)
