"""Base losses that are one divergence per token: each against its formula in float64, and its limits."""

from __future__ import annotations

import json
import math

import pydantic
import pytest
import torch

from mta_framework import TOKENS, Batch, Head, Progress, States
from mta_framework.registry import discover
from mta_plugins.base_losses.taid import TAID

REGISTRY = discover()
PROGRESS = Progress(step=0, total_steps=10, epoch=0.0)
POSITION = [0, 2, 7]
BETWEEN = 1.2
"""Between the entropies of the teacher: 1.60, 0.95 and 1.53 nats."""


def states(width, seed, vocabulary=11, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    final = torch.randn(2, 4, width, generator=generator).requires_grad_(seed == 0)
    weight = scale * torch.randn(vocabulary, width, generator=generator)
    return States(final, {}, Head(weight.requires_grad_(seed == 0)))


def batch():
    ids, position_N = torch.ones(2, 4, dtype=torch.int64), torch.tensor(POSITION)
    return Batch(ids, ids, position_N, torch.zeros_like(position_N), counts={TOKENS: len(POSITION)})


def probabilities(model):
    return (model.final_BTD.flatten(0, 1)[POSITION] @ model.head.weight_VD.T).double().softmax(-1)


def kl(first, second):
    return (first * (first / second).log()).sum(-1)


def concrete_scores(q, p, first, second):
    """All pairs of tokens one by one, with weights that have no gradient."""
    uniform = torch.full_like(q, 1 / q.shape[-1])
    w, v = ({"student": q.detach(), "teacher": p, "uniform": uniform}[name] for name in (first, second))
    d = (q / p).log()
    differences = (d[:, :, None] - d[:, None, :]) ** 2
    return (w[:, :, None] * v[:, None, :] * differences).sum((1, 2)) / 4


def adaptive(q, p, mass):
    values = []
    for q_V, p_V in zip(q, p, strict=True):
        head, cumulated = [], 0.0
        for token in sorted(range(len(p_V)), key=lambda token: -p_V[token].item()):
            cumulated += p_V[token].item()
            if head and cumulated > mass:
                break
            head.append(token)
        gaps = (p_V - q_V).abs().detach()
        share = gaps[head].sum() / gaps.sum()
        values.append(share * kl(p_V, q_V) + (1 - share) * kl(q_V, p_V))
    return torch.stack(values)


def per_token(q, p):
    a = torch.sigmoid((p / q).log()).detach()
    return (a * p * (p / q).log() + (1 - a) * q * (q / p).log()).sum(-1)


def alpha_beta(q, p, a, b):
    terms = p**a * q**b - a / (a + b) * p ** (a + b) - b / (a + b) * q ** (a + b)
    return -terms.sum(-1) / (a * b)


def mixture(x, y, skew, alpha):
    c = (1 - alpha) / 2
    mixed = (skew * x**c + (1 - skew) * y**c) ** (1 / c) if c else x**skew * y ** (1 - skew)
    return mixed / mixed.sum(-1, keepdim=True)


def interpolated(q, p, share):
    target = (q.detach() ** (1 - share)) * p**share
    return -(target / target.sum(-1, keepdim=True) * q.log()).sum(-1)


def entropy_aware(q, p, threshold, weight=1.0):
    is_uncertain = -(p * p.log()).sum(-1) >= threshold
    return kl(q, p) + weight * is_uncertain * kl(p, q)


CASES = {
    "csd of student and student": ("csd", {}, lambda q, p: concrete_scores(q, p, "student", "student")),
    "csd of teacher and student": (
        "csd",
        {"first_weights": "teacher"},
        lambda q, p: concrete_scores(q, p, "teacher", "student"),
    ),
    "csd of student and uniform": (
        "csd",
        {"second_weights": "uniform"},
        lambda q, p: concrete_scores(q, p, "student", "uniform"),
    ),
    "akl": ("akl", {}, lambda q, p: adaptive(q, p, 0.5)),
    "akl with a long head": ("akl", {"head_mass": 0.9}, lambda q, p: adaptive(q, p, 0.9)),
    "todi": ("todi", {}, per_token),
    "ab": ("ab", {}, lambda q, p: alpha_beta(q, p, 0.2, 0.7)),
    "ab with a negative power": ("ab", {"alpha": 1.5, "beta": -0.5}, lambda q, p: alpha_beta(q, p, 1.5, -0.5)),
    "ab at (1, 0) is forward KL": ("ab", {"alpha": 1, "beta": 0}, lambda q, p: kl(p, q)),
    "ab at (0, 1) is reverse KL": ("ab", {"alpha": 0, "beta": 1}, lambda q, p: kl(q, p)),
    "ab at (0.5, 0.5) is Hellinger": (
        "ab",
        {"alpha": 0.5, "beta": 0.5},
        lambda q, p: 2 * ((p.sqrt() - q.sqrt()) ** 2).sum(-1),
    ),
    "ab at (0, 0)": ("ab", {"alpha": 0, "beta": 0}, lambda q, p: ((q / p).log() ** 2).sum(-1) / 2),
    "ab near (0.6, 0)": ("ab", {"alpha": 0.6, "beta": 0}, lambda q, p: alpha_beta(q, p, 0.6, 1e-7)),
    "ab near (0, 0.6)": ("ab", {"alpha": 0, "beta": 0.6}, lambda q, p: alpha_beta(q, p, 1e-7, 0.6)),
    "ab near (0.6, -0.6)": ("ab", {"alpha": 0.6, "beta": -0.6}, lambda q, p: alpha_beta(q, p, 0.6, -0.6 + 1e-7)),
    "amid reverse": ("amid", {}, lambda q, p: kl(q, mixture(q, p, 0.1, -3))),
    "amid forward": (
        "amid",
        {"divergence": "forward", "alpha": 3, "skew": 0.4},
        lambda q, p: kl(p, mixture(p, q, 0.4, 3)),
    ),
    "amid at alpha -1 is the reverse skew KL": ("amid", {"alpha": -1}, lambda q, p: kl(q, 0.1 * q + 0.9 * p)),
    "amid at alpha -1 is the forward skew KL": (
        "amid",
        {"alpha": -1, "divergence": "forward"},
        lambda q, p: kl(p, 0.1 * p + 0.9 * q),
    ),
    "amid at alpha 1 is geometric": ("amid", {"alpha": 1}, lambda q, p: kl(q, mixture(q, p, 0.1, 1))),
    "eopd": ("eopd", {}, lambda q, p: entropy_aware(q, p, 0.8)),
    "eopd with a threshold between the entropies": (
        "eopd",
        {"entropy_threshold": BETWEEN, "forward_weight": 0.3},
        lambda q, p: entropy_aware(q, p, BETWEEN, 0.3),
    ),
    "eopd of a teacher below the threshold is reverse KL": (
        "eopd",
        {"entropy_threshold": 2.5},  # more than log 11
        lambda q, p: kl(q, p),
    ),
    "eopd of a teacher above the threshold is the sum": (
        "eopd",
        {"entropy_threshold": 0},
        lambda q, p: kl(q, p) + kl(p, q),
    ),
    "taid": ("taid", {}, lambda q, p: interpolated(q, p, 0.4)),
    "taid at the end has the teacher as target": (
        "taid",
        {"start": 0.99, "end": 1},
        lambda q, p: interpolated(q, p, 0.99),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_term_is_the_formula_summed_over_supervised_tokens(case):
    name, options, formula = CASES[case]
    student, teacher = states(5, 0), states(6, 1)
    (term,) = REGISTRY.create("base_losses", name, options).compute(student, teacher, batch(), PROGRESS)
    expected = formula(probabilities(student), probabilities(teacher)).sum()
    assert (term.name, term.unit, term.weight) == (name, TOKENS, 1.0)
    assert term.sum.item() == pytest.approx(expected.item(), rel=2e-5)
    inputs = student.final_BTD, student.head.weight_VD
    for got, wanted in zip(torch.autograd.grad(term.sum, inputs), torch.autograd.grad(expected, inputs), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5 * wanted.abs().max().item())


@pytest.mark.parametrize("name", ["csd", "akl", "todi", "ab", "amid", "eopd"])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_divergence_of_a_model_from_itself_is_zero_without_gradient_also_where_tokens_are_ruled_out(name, scale):
    student = states(5, 0, scale=scale)
    same = States(student.final_BTD.detach(), {}, Head(student.head.weight_VD.detach()))
    (term,) = REGISTRY.create("base_losses", name, {}).compute(student, same, batch(), PROGRESS)
    # Of logits of size 30 the rounding of a log-probability is 30 * 2^-23.
    assert abs(term.sum.item()) < 3 * scale * 2**-23 * 11
    (gradient,) = torch.autograd.grad(term.sum, student.final_BTD)
    assert gradient.abs().max() < scale**2 * 2**-23 * 11


@pytest.mark.parametrize("name", ["csd", "akl", "todi", "ab", "amid", "taid", "eopd"])
def test_values_stay_finite_where_the_models_rule_out_different_tokens(name):
    student = states(5, 0, scale=40.0)
    (term,) = REGISTRY.create("base_losses", name, {}).compute(student, states(6, 1, scale=40.0), batch(), PROGRESS)
    assert torch.isfinite(term.sum)
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(term.sum, [student.final_BTD]))


def share_of(loss):
    return loss.state()["share"]


def test_share_of_the_teacher_rises_with_the_relative_fall_of_the_loss_and_at_least_linearly():
    loss = TAID(TAID.Params(start=0.4, rate=0.1, momentum=0.5))
    share, decrease = 0.4, 0.0
    losses = [2.0, 1.0, 1.5, 1.5]
    for step, value in enumerate(losses):
        loss.compute(states(5, 0), states(6, 1), batch(), Progress(step, 100, 0.0))
        loss.observe({"taid": value})
        if step:
            decrease = 0.5 * decrease + 0.5 * (losses[step - 1] - value) / losses[step - 1]
            share = max(0.4 + 0.6 * step / 100, share + 0.1 * (1 - share) * torch.tensor(decrease).sigmoid().item())
        assert share_of(loss) == pytest.approx(share, rel=1e-6)
    loss.compute(states(5, 0), states(6, 1), batch(), Progress(99, 100, 0.0))
    loss.observe({"taid": 9.0})
    assert share_of(loss) == pytest.approx(0.4 + 0.6 * 0.99)


def test_taid_takes_its_linear_course_after_a_loss_that_rose_without_bound():
    loss = TAID(TAID.Params(start=0.4, rate=0.1, momentum=0.0))
    for value in (0.004, 3.5, 0.0, 1.0):
        loss.observe({"taid": value})
    assert loss.state()["share"] == pytest.approx(0.4 + 0.1 * 0.6 / (1 + math.exp(-1.0)), rel=1e-12)


def test_restored_loss_continues_as_if_nothing_had_happened():
    options = {"start": 0.3, "rate": 0.2}
    whole, first = (REGISTRY.create("base_losses", "taid", options) for _ in range(2))
    for value in (3.0, 2.5):
        whole.observe({"taid": value}), first.observe({"taid": value})
    second = REGISTRY.create("base_losses", "taid", options)
    second.restore(json.loads(json.dumps(first.state())))
    for value in (2.2, 2.4):
        whole.observe({"taid": value}), second.observe({"taid": value})
    assert second.state() == whole.state()


@pytest.mark.parametrize(
    ("name", "options", "named"),
    [
        ("ab", {"alpha": 0.001}, "alpha must be 0"),
        ("ab", {"alpha": 0.5, "beta": -0.495}, r"alpha \+ beta"),
        ("ab", {"beta": 3}, "beta"),
        ("amid", {"alpha": 1.001}, "at least 0.01 away"),
        ("amid", {"skew": 1}, "skew"),
        ("akl", {"head_mass": 1}, "head_mass"),
        ("csd", {"first_weights": "both"}, "first_weights"),
        ("eopd", {"forward_weight": 0}, "forward_weight"),
        ("taid", {"start": 0.9, "end": 0.5}, "start must be at most end"),
    ],
)
def test_options_out_of_range_are_refused(name, options, named):
    plugin = REGISTRY.families["base_losses"][name][0].plugin
    with pytest.raises(pydantic.ValidationError, match=named):
        plugin.Params.model_validate(options)
