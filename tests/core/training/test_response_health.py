"""What is measured of the student's own responses, and when a collapse is put into words."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from mta_framework import Batch, Example, Head, States
from mta_framework.training.response_health import ResponseHealth, collapse_warnings, entropy_and_overlap
from mta_framework.types.log_entries import RESPONSE_HEALTH

END = 9
LENGTH, CUT, DISTINCT, ENTROPY, OVERLAP = RESPONSE_HEALTH


def text(*response):
    return Example(np.array([1, 2, *response], np.int32), 2, {}, by_student=True)


def has_ended(example):
    return example.input_ids[-1] == END


def test_lengths_ends_and_bigrams_are_those_of_all_responses_since_the_last_entry():
    health = ResponseHealth()
    health.begin_step([text(3, 4, 3, 4), text(3, 4, END)], has_ended)  # bigrams 34 43 34, 34 4E: 3 of 5
    health.begin_step([], has_ended)
    health.begin_step([text(5, 6, 7, END), text(END)], has_ended)  # all 3 of 3
    values = health.pop()
    assert values == {LENGTH: 12 / 4, CUT: 1 / 4, DISTINCT: pytest.approx((3 / 5 + 1) / 2)}
    assert health.pop() == {}


def test_only_steps_with_own_responses_are_measured():
    health = ResponseHealth()
    assert not health.is_measuring
    health.begin_step([], has_ended)
    assert not health.is_measuring
    health.begin_step([text(3, END)], has_ended)
    assert health.is_measuring
    health.end_step(lambda sums: sums)
    assert not health.is_measuring


def states(width, seed, vocabulary=40, length=6):
    generator = torch.Generator().manual_seed(seed)
    hidden_BTD = torch.randn(2, length, width, generator=generator)
    return States(hidden_BTD, {}, Head(torch.randn(vocabulary, width, generator=generator)))


def batch(by_student, positions=(1, 2, 4, 7, 8, 10), teacher=None):
    ids_BT, position_N = torch.zeros(2, 6, dtype=torch.int64), torch.tensor(positions)
    return Batch(
        ids_BT,
        torch.ones_like(ids_BT),
        position_N,
        torch.zeros(len(positions), dtype=torch.int64),
        by_student_B=torch.tensor(by_student),
        teacher=teacher,
    )


def expected(student, teacher, positions, size=40):
    """Entropy and overlap in float64, with Python's sets."""
    logits = [
        (side.final_BTD.double().flatten(0, 1) @ side.head.weight_VD.double().T)[:, :size]
        for side in (student, teacher)
    ]
    entropies, overlaps = [], []
    for position in positions:
        q_V = logits[0][position].softmax(-1).tolist()
        entropies.append(-sum(q * math.log(q) for q in q_V))
        tops = [{*side[position].argsort(descending=True)[:16].tolist()} for side in logits]
        overlaps.append(len(tops[0] & tops[1]) / 16)
    return np.mean(entropies), np.mean(overlaps)


@pytest.mark.parametrize(
    ("by_student", "positions"), [((True, True), (1, 2, 4, 7, 8, 10)), ((False, True), (7, 8, 10))]
)
def test_entropy_and_overlap_are_means_over_the_positions_of_own_responses(by_student, positions):
    health, student, teacher = ResponseHealth(), states(8, 0), states(5, 1)
    health.begin_step([text(3, END)], has_ended)
    health.measure(student, teacher, batch(by_student))
    health.end_step(lambda sums: sums)
    values = health.pop()
    assert (values[ENTROPY], values[OVERLAP]) == pytest.approx(expected(student, teacher, positions), rel=1e-5)


def test_logits_are_measured_at_one_step_per_log_entry_however_it_is_cut():
    student, teacher = states(8, 0), states(5, 1, vocabulary=44)  # four ids of the teacher pad its vocabulary
    whole, cut = ResponseHealth(), ResponseHealth()
    for health, parts in ((whole, [(1, 2, 4, 7)]), (cut, [(1, 2), (4, 7)])):
        health.begin_step([text(3, END)], has_ended)
        for positions in parts:
            health.measure(student, teacher, batch((True, True), positions))
        health.end_step(lambda sums: sums)
        health.begin_step([text(3, END)], has_ended)
        health.measure(states(8, 7), teacher, batch((True, True)))  # a later step before the entry
        health.end_step(lambda sums: sums)
    values = whole.pop(), cut.pop()
    assert values[0] == pytest.approx(values[1], rel=1e-6)  # logits of other shapes
    assert values[0][OVERLAP] == pytest.approx(expected(student, teacher, (1, 2, 4, 7))[1])


@pytest.mark.parametrize("tokenizer", ["none", "another"])
def test_without_a_teacher_that_reads_the_same_tokens_entropy_alone_is_measured(tokenizer):
    health, student = ResponseHealth(), states(8, 0)
    teacher, other = (None, None) if tokenizer == "none" else (states(5, 1, length=4), batch((True, True)))
    health.begin_step([text(3, END)], has_ended)
    health.measure(student, teacher, batch((True, True), teacher=other))
    health.end_step(lambda sums: sums)
    assert {LENGTH, CUT, DISTINCT, ENTROPY} == health.pop().keys()


def test_kernel_takes_certain_students_and_vocabularies_below_sixteen():
    logits = torch.tensor([[0.0, -torch.inf, -torch.inf], [0.0, 0.0, 0.0]])
    values = entropy_and_overlap(logits, logits.flip(-1))
    assert values[:, 0].tolist() == pytest.approx([0.0, math.log(3)])
    assert values[:, 1].tolist() == [1.0, 1.0]
    assert entropy_and_overlap(torch.zeros(0, 5)).shape == (0, 2)


def test_state_continues_between_two_entries_and_survives_json():
    student, teacher = states(8, 0), states(5, 1)
    straight, stopped = ResponseHealth(), ResponseHealth()
    for health in (straight, stopped):
        health.begin_step([text(3, 4, 3)], has_ended)
        health.measure(student, teacher, batch((True, False)))
        health.end_step(lambda sums: sums)
    resumed = ResponseHealth()
    resumed.restore(json.loads(json.dumps(stopped.state())))
    for health in (straight, resumed):
        health.begin_step([text(5, END)], has_ended)
        health.measure(states(8, 3), teacher, batch((True, True)))
        health.end_step(lambda sums: sums)
    assert resumed.pop() == straight.pop()


def history(name, *values):
    return [{"loss": 1.0, "step": 10 * (index + 1), name: value} for index, value in enumerate(values)]


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        (CUT, (0.2, 0.95, 0.91, 0.98), "From step 20, 98% of the student's responses are cut off at the limit."),
        (CUT, (0.95, 0.95, 0.9, 0.95, 0.95), None),
        (ENTROPY, (1.2, 0.04, 0.03, 0.01), "From step 20, the student is certain of nearly every token"),
        (LENGTH, (1.4, 1.2, 1.1), "From step 10, most responses of the student are empty (1.10 tokens on average)."),
        (DISTINCT, (0.8, 0.3, 0.35, 0.39), "From step 20, the student repeats itself (39% of the bigrams"),
        (DISTINCT, (0.8, 0.41, 0.3, 0.3), None),
        (OVERLAP, (0.6, 0.2, 0.2, 0.2), "From step 20, student and teacher agree less on the student's responses (20%"),
        (OVERLAP, (0.2, 0.2, 0.2, 0.2), None),
    ],
)
def test_three_bad_entries_in_a_row_are_a_collapse(name, values, message):
    warnings = collapse_warnings(history(name, *values))
    assert len(warnings) == (message is not None)
    assert all(warning.startswith(message) for warning in warnings)


def test_a_warning_stays_the_same_when_training_goes_on():
    values = (0.2, 0.95, 0.95, 0.95)
    assert collapse_warnings(history(CUT, *values)) == collapse_warnings(history(CUT, *values, 0.1, 0.99, 0.99, 0.99))
