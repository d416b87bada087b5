"""Approximate likelihood matching between two tokenizations, against its formula in float64."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from mta_framework import CHUNKS, TOKENS, Example, Head, Progress, States
from mta_framework.data.batches import collate
from mta_plugins.base_losses.alm import ALM

PROGRESS = Progress(step=0, total_steps=1, epoch=0.0)
STUDENT_VOCABULARY, TEACHER_VOCABULARY = 11, 7
TEXTS = [
    # Student: prompt 0 1, response 2 3 4 5 6. Teacher: prompt 0, response 1 2 3 4 5 6 7.
    {"prompts": (2, 1), "lengths": (7, 8), "matched": [(2, 1), (4, 2), (5, 6)], "truncated": False},
    # The first tokens of the responses match nothing; what follows the last match was cut off.
    {"prompts": (1, 2), "lengths": (6, 8), "matched": [(2, 4), (4, 6)], "truncated": True},
]
CHUNK_TOKENS = [
    # Row, tokens of the student, tokens of the teacher: written out from the matches above.
    (0, [2, 3], [1]),
    (0, [4], [2, 3, 4, 5]),
    (0, [5, 6], [6, 7]),
    (1, [2, 3], [4, 5]),
]


def example(side, vocabulary, text, seed):
    ids = np.random.default_rng(seed).integers(0, vocabulary, text["lengths"][side]).astype(np.int32)
    return Example(ids, text["prompts"][side], {})


def two_tokenizations():
    examples = []
    for seed, text in enumerate(TEXTS):
        student, teacher = (
            example(side, vocabulary, text, seed)
            for side, vocabulary in enumerate((STUDENT_VOCABULARY, TEACHER_VOCABULARY))
        )
        matched = np.array(text["matched"], dtype=np.int32)
        examples.append(replace(student, teacher=teacher, matched_R2=matched, truncated=text["truncated"]))
    return collate(examples, 0, ())


def states(batch, width, vocabulary, seed):
    generator = torch.Generator().manual_seed(seed)
    final = torch.randn(*batch.input_ids_BT.shape, width, generator=generator).requires_grad_(seed == 0)
    head = Head(torch.randn(vocabulary, width, generator=generator).requires_grad_(seed == 0))
    return States(final, {}, head, input_ids_BT=batch.input_ids_BT)


@pytest.fixture
def sides():
    batch = two_tokenizations()
    student = states(batch, 5, STUDENT_VOCABULARY, 0)
    return batch, student, states(batch.teacher, 6, TEACHER_VOCABULARY, 1)


def log_likelihood(model, row, tokens):
    logits = model.final_BTD[row].double() @ model.head.weight_VD.double().T
    log_probs = logits.log_softmax(-1)
    return sum(log_probs[token - 1, model.input_ids_BT[row, token]] for token in tokens)


def expected_of(student, teacher, temperature):
    total = 0
    for row, student_tokens, teacher_tokens in CHUNK_TOKENS:
        q = (log_likelihood(student, row, student_tokens) / temperature - 1e-6).exp()
        p = (log_likelihood(teacher, row, teacher_tokens) / temperature - 1e-6).exp()
        total = total + temperature * (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log())
    return total


def require_same_gradient(got, expected, student):
    inputs = student.final_BTD, student.head.weight_VD
    pairs = zip(torch.autograd.grad(got, inputs), torch.autograd.grad(expected, inputs), strict=True)
    for gradient, wanted in pairs:
        torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-5 * wanted.abs().max().item())


@pytest.mark.parametrize("temperature", [1, 2, 100])
def test_term_is_the_binary_divergence_of_the_likelihoods_of_chunks(sides, temperature):
    batch, student, teacher = sides
    params = ALM.Params(temperature=temperature)
    matching, entropy = ALM(params).compute(student, teacher, batch, PROGRESS)
    expected = expected_of(student, teacher, temperature)
    assert (matching.name, matching.unit, matching.weight) == ("alm", CHUNKS, 1.0)
    assert (entropy.name, entropy.unit, entropy.weight) == ("alm_cross_entropy", TOKENS, 1.0)
    assert batch.counts[CHUNKS] == len(CHUNK_TOKENS)
    assert matching.sum.item() == pytest.approx(expected.item(), rel=1e-5)
    require_same_gradient(matching.sum, expected, student)
    supervised = [(0, token) for token in range(2, 7)] + [(1, token) for token in range(1, 6)]
    nats = -sum(log_likelihood(student, row, [token]) for row, token in supervised)
    assert entropy.sum.item() == pytest.approx(nats.item(), rel=1e-5)


def test_a_high_temperature_approaches_the_divergence_of_the_log_likelihoods(sides):
    """The limit that the authors' code offers: log p - log q + log p (log -log q - log -log p)."""
    batch, student, teacher = sides
    expected = 0.0
    for row, student_tokens, teacher_tokens in CHUNK_TOKENS:
        log_q = log_likelihood(student, row, student_tokens).item()
        log_p = log_likelihood(teacher, row, teacher_tokens).item()
        expected += log_p - log_q + log_p * (np.log(-log_q) - np.log(-log_p))
    distances = []
    for temperature in (10, 100, 1000):
        loss = ALM(ALM.Params(temperature=temperature, cross_entropy=0))
        (term,) = loss.compute(student, teacher, batch, PROGRESS)
        distances.append(abs(term.sum.item() - expected))
    assert distances[0] > distances[1] > distances[2]
    assert distances[2] < 0.01 * expected


def test_equal_likelihoods_give_zero_without_gradient():
    batch = collate([Example(np.arange(6, dtype=np.int32), 2, {})], 0, ())
    student = states(batch, 5, STUDENT_VOCABULARY, 0)
    same = States(student.final_BTD.detach(), {}, Head(student.head.weight_VD.detach()))
    (term,) = ALM(ALM.Params(cross_entropy=0)).compute(student, same, batch, PROGRESS)
    assert abs(term.sum.item()) < 1e-6
    (gradient,) = torch.autograd.grad(term.sum, student.final_BTD)
    assert gradient.abs().max() < 1e-6


def test_with_one_tokenizer_each_supervised_token_is_a_chunk():
    batch = collate([Example(np.arange(6, dtype=np.int32), 2, {})], 0, ())
    student, teacher = states(batch, 5, STUDENT_VOCABULARY, 0), states(batch, 6, STUDENT_VOCABULARY, 1)
    (term,) = ALM(ALM.Params(temperature=1, cross_entropy=0)).compute(student, teacher, batch, PROGRESS)
    expected = 0
    for token in range(2, 6):
        q, p = (log_likelihood(model, 0, [token]).exp() for model in (student, teacher))
        expected = expected + p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    assert term.unit == TOKENS
    assert term.sum.item() == pytest.approx(expected.item(), rel=1e-4)
    require_same_gradient(term.sum, expected, student)


def test_validation_has_the_same_value(sides):
    batch, student, teacher = sides
    values = [ALM(ALM.Params()).compute(student, teacher, batch, PROGRESS)[0].sum.item()]
    with torch.no_grad():
        values.append(ALM(ALM.Params()).compute(student, teacher, batch, PROGRESS)[0].sum.item())
    assert values[1] == pytest.approx(values[0], rel=1e-6)
