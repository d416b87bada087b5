"""DistiLLM-2's pairs: who answers which prompts, and when."""

from __future__ import annotations

import pytest

from mta_framework import RunError
from mta_framework.batch_policies import PairedBatches

TEACHER, STUDENT = 2, 3

# Six texts, two a step, three steps an epoch, twelve steps; worked out by hand: options, steps at which the student
# answers, and how many prompts it answers then.
INTERVALS = [
    (PairedBatches(), [0, 3, 6, 9], [6, 6, 6, 6]),
    (PairedBatches(every_epochs=2), [0, 6], [6, 6]),
    (PairedBatches(every_epochs=9), [0], [6]),
    (PairedBatches(every_steps=1), list(range(12)), [2] * 12),
    (PairedBatches(every_steps=5), [0, 5, 10], [6, 6, 4]),
]


@pytest.mark.parametrize(("options", "starts", "sizes"), INTERVALS)
def test_student_answers_anew_at_intervals_and_the_teacher_once(options, starts, sizes, tools):
    rollouts = tools.rollouts()
    tools.run(options.create(), rollouts, range(12))
    by_student = [(step, count) for step, by, _, count in rollouts.calls if by == "student"]
    assert by_student == list(zip(starts, sizes, strict=True))
    assert sum(count for _, by, _, count in rollouts.calls if by == "teacher") == 6


@pytest.mark.parametrize(("options", "starts", "_"), INTERVALS)
def test_step_has_the_teachers_responses_to_its_prompts_then_the_students(options, starts, _, tools):
    rollouts = tools.rollouts()
    for step, texts in enumerate(tools.run(options.create(), rollouts, range(12))):
        prompts = [tools.origin(text)[0] for text in rollouts.batch(step)]
        origins = [tools.origin(text) for text in texts]
        assert [origin[:3] for origin in origins[:2]] == [(row, row, TEACHER) for row in prompts]
        since = max(start for start in starts if start <= step)
        assert origins[2:] == [(row, row, STUDENT, since) for row in prompts]
        assert [text.by_student for text in texts] == [False, False, True, True]


def test_epoch_has_both_responses_to_every_prompt(tools):
    drawn = tools.run(PairedBatches().create(), tools.rollouts(), range(3, 6))
    origins = [tools.origin(text) for texts in drawn for text in texts]
    assert sorted(origin[:3] for origin in origins) == [(row, row, by) for row in range(6) for by in (TEACHER, STUDENT)]


@pytest.mark.parametrize(("options", "starts", "_"), INTERVALS)
@pytest.mark.parametrize("stop", [1, 3, 7])
def test_resume_finds_the_pairs_on_disk_and_equals_a_straight_run(options, starts, _, stop, tools):
    straight_rollouts, disk = tools.rollouts(), {}
    straight = tools.run(options.create(), straight_rollouts, range(12))
    policy = options.create()
    before, after = tools.rollouts(disk=disk), tools.rollouts(disk=disk)
    first = tools.run(policy, before, range(stop))
    second = tools.run(tools.resumed(policy, options), after, range(stop, 12))
    assert tools.content([*first, *second]) == tools.content(straight)
    assert before.calls + after.calls == straight_rollouts.calls


def test_resume_within_an_interval_without_the_stored_pairs_stops(tools):
    policy = PairedBatches().create()
    tools.run(policy, tools.rollouts(), range(2))
    with pytest.raises(RunError, match="missing"):
        tools.run(tools.resumed(policy, PairedBatches()), tools.rollouts(), range(2, 3))


def test_resume_asks_for_the_rest_of_the_interval_alone(tools):
    options, disk = PairedBatches(every_steps=2), {}
    policy, rollouts = options.create(), tools.rollouts(texts=12, disk=disk)
    tools.run(policy, rollouts, range(3))
    assert [call[::3] for call in rollouts.calls if call[1] == "student"] == [(0, 4), (2, 4)]
    after = tools.rollouts(texts=12, disk=disk)
    tools.run(tools.resumed(policy, options), after, range(3, 5))
    assert [call[::3] for call in after.calls if call[1] == "student"] == [(4, 4)]


def test_state_before_the_first_step_can_be_restored(tools):
    policy = tools.resumed(PairedBatches().create(), PairedBatches())
    assert policy.state() is None
    assert len(tools.run(policy, tools.rollouts(), range(1))[0]) == 4


def test_texts_with_the_same_prompt_share_one_pair(tools):
    class Twins(tools.rollouts):
        def batch(self, step):
            first, _ = super().batch(step)
            return [first, first]

    rollouts = Twins()
    (texts,) = tools.run(PairedBatches(every_steps=1).create(), rollouts, range(1))
    assert len({tools.origin(text) for text in texts}) == 2
    assert [count for *_, count in rollouts.calls] == [1, 1]


def test_prompt_that_was_not_announced_stops_the_run(tools):
    class Silent(tools.rollouts):
        def upcoming(self, steps):
            return super().upcoming(steps)[1:]

    with pytest.raises(RunError, match="step 0: there is no response of the teacher"):
        tools.run(PairedBatches().create(), Silent(), range(3))


def test_both_models_respond_at_the_options_temperature(tools):
    rollouts = tools.rollouts()
    policy = PairedBatches(temperature=0.4).create()
    tools.run(policy, rollouts, range(1))
    assert policy.RESPONDERS == ("teacher", "student")
    assert [(by, temperature) for _, by, temperature, _ in rollouts.calls] == [("teacher", 0.4), ("student", 0.4)]
