"""Divergences over the teacher's likeliest tokens and one class for all others, held to float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mta_framework.chunked_loss import class_log_probs, divergence_sum, forward_kl, reverse_kl
from mta_framework.registry import discover
from mta_framework.types import Batch, Head, States, TopTokens

N, D, V, K = 9, 8, 60, 6


def made_logits(seed, size=V, spread=3.0):
    return spread * torch.randn(N, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def classes(logits_NV, id_NK):
    """Probabilities of the classes: sums over a dense matrix, in float64."""
    member_NVC = torch.zeros(*logits_NV.shape, id_NK.shape[1] + 1, dtype=torch.float64)
    member_NVC[..., -1] = 1
    for row, ids in enumerate(id_NK.tolist()):
        for column, index in enumerate(ids):
            member_NVC[row, index, -1], member_NVC[row, index, column] = 0, 1
    return torch.einsum("nv,nvc->nc", logits_NV.softmax(-1), member_NVC)


def batch_and_states(student_NV, teacher_NV, k=K, dtype=torch.float32):
    """A student whose logits are its states, by an identity as head, and a teacher of which top tokens are known."""
    ids_BT = torch.zeros(1, N + 1, dtype=torch.int64)
    batch = Batch(ids_BT, torch.ones_like(ids_BT), torch.arange(N), torch.zeros(N, dtype=torch.int64))
    hidden = torch.cat([student_NV, student_NV[:1]]).to(dtype)[None].requires_grad_()
    student = States(hidden, {}, Head(torch.eye(student_NV.shape[1], dtype=dtype)))
    top = teacher_NV.log_softmax(-1).topk(k)
    nothing = torch.full((1, 1), torch.nan)
    top_tokens = TopTokens(top.indices, top.values.float(), teacher_NV.shape[1])
    return batch, student, States(nothing.expand(1, N + 1, 1), {}, Head(nothing), top_tokens=top_tokens)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("k", [1, K, V - 1])
def test_kl_is_that_of_the_class_probabilities_and_so_is_its_gradient(k, reverse):
    student_NV, teacher_NV = made_logits(1), made_logits(2)
    batch, student, teacher = batch_and_states(student_NV, teacher_NV, k)
    value = divergence_sum(reverse_kl if reverse else forward_kl, student, teacher, batch)
    value.backward()
    exact_NV = student_NV.clone().requires_grad_()
    q, p = classes(exact_NV, teacher.top_tokens.id_NK), classes(teacher_NV, teacher.top_tokens.id_NK)
    first, second = (q, p) if reverse else (p, q)
    expected = (first * (first / second).log()).sum()
    expected.backward()
    assert value.item() == pytest.approx(expected.item(), rel=1e-4)
    # The teacher's rounded log-probabilities leave an error of float32's resolution in the probability of the others.
    rounding = (q[:, -1] * 2**-22 / p[:, -1]).max().item() if reverse else 0.0
    tolerance = 1e-5 * exact_NV.grad.abs().max().item() + rounding
    np.testing.assert_allclose(student.final_BTD.grad[0, :N], exact_NV.grad, rtol=0, atol=tolerance)


def losses():
    """Every built-in base loss that takes top tokens, with its default options."""
    offers = discover().families["base_losses"]
    made = {}
    for name in sorted(offers):
        plugin = offers[name][0].plugin
        if getattr(plugin, "TAKES_TOP_TOKENS", False):
            made[name] = plugin(plugin.Params())
    return made


def test_these_base_losses_take_a_teacher_behind_a_server():
    assert set(losses()) == {"ab", "akl", "amid", "csd", "distillm", "jsd", "kl", "taid", "todi"}


@pytest.mark.parametrize("name", sorted(losses()))
def test_a_base_loss_on_classes_is_that_on_their_probabilities_as_a_vocabulary(name):
    """The loss of whole distributions over C tokens, in float64, is what the classes must give in float32."""
    from mta_framework.types import Progress

    student_NV, teacher_NV = made_logits(3), made_logits(4)
    batch, student, teacher = batch_and_states(student_NV, teacher_NV)
    ids = teacher.top_tokens.id_NK
    by_class = [classes(logits_NV, ids).log() for logits_NV in (student_NV, teacher_NV)]
    _, whole_student, _ = batch_and_states(by_class[0], by_class[1], 1, torch.float64)
    whole_teacher = States(torch.cat([by_class[1], by_class[1][:1]])[None], {}, Head(torch.eye(K + 1).double()))
    values = [
        losses()[name].compute(side, other, batch, Progress(0, 10, 0.0))[0].sum
        for side, other in ((student, teacher), (whole_student, whole_teacher))
    ]
    assert values[0].item() == pytest.approx(values[1].item(), rel=1e-4)
    for value in values:
        value.backward()
    assert student.final_BTD.grad.isfinite().all()


def test_cross_entropy_in_the_mixture_is_over_the_whole_vocabulary():
    from mta_plugins.base_losses.kl import KL

    student_NV, teacher_NV = made_logits(5), made_logits(6)
    batch, student, teacher = batch_and_states(student_NV, teacher_NV)
    (term,) = KL(KL.Params(cross_entropy=0.25)).compute(student, teacher, batch, None)
    q, p = classes(student_NV, teacher.top_tokens.id_NK), classes(teacher_NV, teacher.top_tokens.id_NK)
    expected = 0.75 * (p * (p / q).log()).sum() - 0.25 * student_NV.log_softmax(-1)[:, 0].sum()
    assert term.sum.item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_divergence_is_at_most_that_of_whole_distributions_and_grows_with_k():
    student_NV, teacher_NV = made_logits(7), made_logits(8)
    whole = forward_kl(student_NV, teacher_NV).sum().item()
    values = [
        divergence_sum(forward_kl, student, teacher, batch).item()
        for batch, student, teacher in (batch_and_states(student_NV, teacher_NV, k) for k in (1, 2, 5, 20, V - 1))
    ]
    assert values == sorted(values)
    assert values[-1] == pytest.approx(whole, rel=1e-3)
    assert values[0] < 0.9 * whole


def test_tokens_that_only_the_teacher_has_belong_to_the_others():
    """The student's vocabulary is 10 tokens smaller; its class of others holds none of them."""
    student_NV, teacher_NV = made_logits(9, V - 10), made_logits(10)
    batch, student, teacher = batch_and_states(student_NV, teacher_NV, 20)
    ids = teacher.top_tokens.id_NK
    assert (ids >= V - 10).any()
    log_q, log_p = class_log_probs(student_NV, ids, teacher.top_tokens.log_prob_NK, V)
    p, shared = teacher_NV.softmax(-1), ids < V - 10
    q = student_NV.softmax(-1)
    for row in range(N):
        inside = ids[row][shared[row]]
        np.testing.assert_allclose(log_q[row, :-1][shared[row]].exp(), q[row, inside], rtol=1e-5)
        np.testing.assert_allclose(log_p[row, :-1][shared[row]].exp(), p[row, inside], rtol=1e-5)
        np.testing.assert_allclose(log_q[row, -1].exp(), 1 - q[row, inside].sum(), rtol=1e-4)
        np.testing.assert_allclose(log_p[row, -1].exp(), 1 - p[row, inside].sum(), rtol=1e-4)
    assert not log_q[:, :-1][~shared].exp().any()
    value = divergence_sum(reverse_kl, student, teacher, batch)
    value.backward()
    assert value.isfinite()
    assert student.final_BTD.grad.isfinite().all()


@pytest.mark.parametrize("k", [1, 5])
def test_a_teacher_without_doubt_gives_finite_losses_and_gradients(k):
    student_NV, teacher_NV = made_logits(11), made_logits(12)
    teacher_NV[:, 3] += 200
    for divergence in (forward_kl, reverse_kl):
        batch, student, teacher = batch_and_states(student_NV, teacher_NV, k)
        value = divergence_sum(divergence, student, teacher, batch)
        value.backward()
        assert value.isfinite()
        assert student.final_BTD.grad.isfinite().all()


def test_without_positions_the_sum_is_0_and_has_a_gradient():
    batch, student, teacher = batch_and_states(made_logits(13), made_logits(14))
    empty = Batch(batch.input_ids_BT, batch.attention_mask_BT, batch.position_N[:0], batch.target_N[:0])
    top = teacher.top_tokens
    none = States(teacher.final_BTD, {}, teacher.head, top_tokens=TopTokens(top.id_NK[:0], top.log_prob_NK[:0], V))
    value = divergence_sum(forward_kl, student, none, empty)
    value.backward()
    assert value.item() == 0
    assert not student.final_BTD.grad.any()


@pytest.mark.parametrize(("alpha", "beta"), [(0.0, 0.0), (0.5, -0.5), (0.2, 0.7)])
def test_a_token_that_neither_model_can_write_adds_nothing_whatever_is_added_to_the_logits(alpha, beta):
    """A token that only the teacher has belongs to the class of others, in both models."""
    from mta_plugins.base_losses.ab import AB

    student_NV, teacher_NV = made_logits(11, V - 10, 1.0), made_logits(12, spread=1.0)
    values = []
    for added in (0.0, 10.0):
        batch, student, teacher = batch_and_states(student_NV + added, teacher_NV, 20)
        assert (teacher.top_tokens.id_NK >= V - 10).any()
        (term,) = AB(AB.Params(alpha=alpha, beta=beta)).compute(student, teacher, batch, None)
        values.append(term.sum.item())
    expected, ids = 0.0, teacher.top_tokens.id_NK
    for row in range(N):
        kept = ids[row][ids[row] < V - 10]
        q, p = student_NV[row].softmax(-1)[kept], teacher_NV[row].softmax(-1)[kept]
        q, p = torch.cat([q, 1 - q.sum()[None]]), torch.cat([p, 1 - p.sum()[None]])
        if alpha == beta == 0:
            expected += 0.5 * (q.log() - p.log()).square().sum().item()
        elif alpha + beta == 0:
            expected += ((q / p).pow(beta) - 1 - beta * (q / p).log()).sum().item() / beta**2
        else:
            whole = alpha + beta
            parts = p**alpha * q**beta - alpha / whole * p**whole - beta / whole * q**whole
            expected -= parts.sum().item() / (alpha * beta)
    assert values == pytest.approx([expected, expected], rel=1e-4)
