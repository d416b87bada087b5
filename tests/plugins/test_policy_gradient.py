"""The policy gradient of on-policy distillation."""

from __future__ import annotations

import math
from dataclasses import replace

import pydantic
import pytest
import torch

from mta_framework import TOKENS, Batch, Head, Progress, States
from mta_plugins.base_losses.fdd import FDD
from mta_plugins.base_losses.kl import KL
from mta_plugins.base_losses.policy_gradient import PolicyGradient

VOCABULARY = 7
LOSS = PolicyGradient(PolicyGradient.Params())


def states(width, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    final = torch.randn(1, 3, width, generator=generator).to(dtype).requires_grad_(seed == 0)
    return States(final, {}, Head(torch.randn(VOCABULARY, width, generator=generator).to(dtype)))


STUDENT, TEACHER = states(4, 0), states(5, 1)


def log_probs(model):
    """Next-token log-probabilities at the first two tokens."""
    return (model.final_BTD[0, :2] @ model.head.weight_VD.T).log_softmax(-1)


def batch(targets, written):
    ids = torch.ones(1, 3, dtype=torch.int64)
    log_prob_N = None if written is None else torch.tensor(written, dtype=torch.float64)
    return Batch(ids, ids, torch.tensor([0, 1]), torch.tensor(targets), counts={TOKENS: 2}, log_prob_N=log_prob_N)


def term_of(loss, texts, student=STUDENT):
    (term,) = loss.compute(student, TEACHER, texts, Progress(0, 10, 0.0))
    return term


def gradient_of(loss, texts):
    (gradient,) = torch.autograd.grad(term_of(loss, texts).sum, STUDENT.final_BTD)
    return gradient


def test_value_is_the_ratio_times_the_difference_of_log_probabilities():
    log_q, log_p = log_probs(STUDENT).detach(), log_probs(TEACHER)
    texts = batch([3, 6], [-1.25, -0.5])
    expected = sum(
        math.exp(log_q[row, token] - written) * (log_q[row, token] - log_p[row, token]).item()
        for row, (token, written) in enumerate([(3, -1.25), (6, -0.5)])
    )
    term = term_of(LOSS, texts)
    assert (term.name, term.unit, term.weight) == ("policy_gradient", TOKENS, 1.0)
    assert term.sum.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("writer", ["the student itself", "an earlier student"])
def test_expected_gradient_over_the_tokens_of_the_writer_is_that_of_reverse_kl(writer):
    """An exact sum over the vocabulary, with weights b(y): at the moment of writing b is q and the ratio is 1."""
    log_b = log_probs(STUDENT).detach() if writer == "the student itself" else log_probs(states(4, 2))
    expected = gradient_of(KL(KL.Params(reverse=True)), batch([0, 0], None))
    assert expected.abs().max() > 0.1
    mean = torch.zeros_like(expected)
    for token in range(VOCABULARY):
        gradient = gradient_of(LOSS, batch([token, token], log_b[:, token].tolist()))
        mean[0, :2] += log_b[:, token].exp()[:, None] * gradient[0, :2]
    torch.testing.assert_close(mean, expected, rtol=1e-10, atol=1e-12)


def test_a_token_that_the_teacher_expects_more_than_the_student_gets_likelier():
    log_q, log_p = log_probs(STUDENT).detach(), log_probs(TEACHER)
    for token in range(VOCABULARY):
        texts = batch([token, token], log_q[:, token].tolist())
        moved = STUDENT.final_BTD.detach() - 1e-4 * gradient_of(LOSS, texts)
        change = log_probs(replace(STUDENT, final_BTD=moved))[:, token] - log_q[:, token]
        assert torch.equal(change > 0, (log_p - log_q)[:, token] > 0)


@pytest.mark.parametrize("written", [None, [math.nan, math.nan]])
def test_without_kept_log_probabilities_it_is_reverse_kl(written):
    reverse, texts = KL(KL.Params(reverse=True)), batch([3, 6], written)
    assert term_of(LOSS, texts).sum.item() == pytest.approx(term_of(reverse, texts).sum.item(), rel=1e-12)
    torch.testing.assert_close(gradient_of(LOSS, texts), gradient_of(reverse, texts), rtol=1e-10, atol=1e-12)


def test_positions_with_and_without_log_probabilities_add_up():
    parts = [batch([3, 6], values) for values in ([-1.25, math.nan], [-1.25, -0.5], [math.nan, math.nan])]
    mixed, known, unknown = (gradient_of(LOSS, part) for part in parts)
    torch.testing.assert_close(mixed[0, 0], known[0, 0])
    torch.testing.assert_close(mixed[0, 1], unknown[0, 1])


def test_every_step_trains_on_own_responses_by_default_and_the_data_alone_are_refused():
    assert PolicyGradient.Params().batches.fraction == 1.0
    with pytest.raises(pydantic.ValidationError, match="on_policy"):
        PolicyGradient.Params.model_validate({"batches": {"policy": "fixed"}})


def test_as_output_of_fdd_it_gets_the_log_probabilities_too():
    assert FDD(FDD.Params(), LOSS).NEEDS_LOG_PROBS
    assert not FDD(FDD.Params(), KL(KL.Params())).NEEDS_LOG_PROBS
