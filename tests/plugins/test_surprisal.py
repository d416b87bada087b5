"""How little the teacher expected a token, as importance."""

from __future__ import annotations

import math

import pytest
import torch

from mta_framework import Head, States
from mta_plugins.importance_estimators.surprisal import Surprisal

LENGTHS = (6, 3, 2, 1)
VOCABULARY = 13


def _states(dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    final_BTD = torch.randn(4, 6, 8, generator=generator).to(dtype)
    ids_BT = torch.randint(VOCABULARY, (4, 6), generator=generator)
    head = Head(torch.randn(VOCABULARY, 8, generator=generator).to(dtype))
    return States(final_BTD, {}, head, input_ids_BT=ids_BT)


MASK_BT = (torch.arange(6) < torch.tensor(LENGTHS)[:, None]).long()


def _weigh(states, mask_BT=MASK_BT):
    return Surprisal(Surprisal.Params()).weigh(states, 1, mask_BT)


def test_weight_is_minus_the_log_of_the_probability_given_by_the_token_before():
    states = _states()
    logits_BTV = states.final_BTD.double() @ states.head.weight_VD.double().T
    weight_BT = _weigh(states)
    for text, length in enumerate(LENGTHS):
        expected = []
        for token in range(1, length):
            powers = logits_BTV[text, token - 1].exp().tolist()
            expected.append(-math.log(powers[states.input_ids_BT[text, token]] / sum(powers)))
        assert weight_BT[text, 1:].tolist() == pytest.approx(expected + [0.0] * (6 - length), rel=1e-5)


def test_the_first_token_gets_the_mean_of_the_others_and_one_where_there_are_none():
    weight_BT = _weigh(_states())
    for text, length in enumerate(LENGTHS[:3]):
        assert weight_BT[text, 0].item() == pytest.approx(weight_BT[text, 1:length].mean().item())
    assert weight_BT[3].tolist() == [1.0, 0, 0, 0, 0, 0]


def test_a_batch_of_single_tokens_weighs_one_each():
    states = _states()
    single = States(states.final_BTD[:, :1], {}, states.head, input_ids_BT=states.input_ids_BT[:, :1])
    assert _weigh(single, MASK_BT[:, :1]).tolist() == [[1.0]] * 4


def test_what_stands_on_padding_changes_nothing():
    states, other = _states(), _states()
    other.final_BTD[MASK_BT == 0] = 1e4
    other.input_ids_BT[MASK_BT == 0] = 0
    assert torch.equal(_weigh(states), _weigh(other))


def test_weights_are_float32_without_gradient_for_bf16_states_of_a_teacher_in_inference_mode():
    with torch.inference_mode():
        states = _states(torch.bfloat16)
    weight_BT = _weigh(states)
    assert weight_BT.dtype == torch.float32
    assert not weight_BT.requires_grad
    torch.testing.assert_close(weight_BT, _weigh(_states()), rtol=0.05, atol=0.05)


def test_states_without_tokens_are_refused():
    states = _states()
    with pytest.raises(ValueError, match="input_ids_BT"):
        _weigh(States(states.final_BTD, {}, states.head))


def test_it_weighs_by_the_teacher():
    assert Surprisal.BY_TEACHER
