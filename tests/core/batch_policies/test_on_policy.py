"""GKD's share of student responses."""

from __future__ import annotations

import math

import pytest

from mta_framework.batch_policies import OnPolicyBatches

DATA, STUDENT = 1, 3


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.8])
@pytest.mark.parametrize("seed", range(3))
def test_fraction_of_the_steps_trains_on_student_responses(fraction, seed, tools):
    drawn = tools.run(OnPolicyBatches(fraction=fraction).create(), tools.rollouts(seed=seed), range(2000))
    writers = tools.writers(drawn)
    assert all(len(names) == 1 for names in writers)
    share = sum(names == {STUDENT} for names in writers) / len(writers)
    assert abs(share - fraction) < 4 * math.sqrt(fraction * (1 - fraction) / 2000)


def test_all_steps_are_on_policy_at_fraction_one(tools):
    rollouts = tools.rollouts()
    drawn = tools.run(OnPolicyBatches(fraction=1, temperature=0.7).create(), rollouts, range(12))
    for step, texts in enumerate(drawn):
        prompts = [tools.origin(text)[0] for text in rollouts.batch(step)]
        assert [tools.origin(text) for text in texts] == [(row, row, STUDENT, step) for row in prompts]
    assert rollouts.calls == [(step, "student", 0.7) for step in range(12)]


def test_without_state_a_resumed_run_decides_as_a_straight_one(tools):
    options = OnPolicyBatches()
    straight = tools.run(options.create(), tools.rollouts(), range(12))
    policy = options.create()
    first = tools.run(policy, tools.rollouts(), range(5))
    assert policy.state() is None
    second = tools.run(tools.resumed(policy, options), tools.rollouts(), range(5, 12))
    assert tools.content([*first, *second]) == tools.content(straight)


def test_seeds_give_different_choices(tools):
    first, second = (
        tools.writers(tools.run(OnPolicyBatches().create(), tools.rollouts(seed=seed), range(60))) for seed in (1, 2)
    )
    assert first != second
