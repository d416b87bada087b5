"""DistiLLM's scheduler: threshold, buffer and choice, step by step."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest

from mta_framework import Progress, RunError
from mta_framework.batch_policies import AdaptiveBatches, adaptive

DATA, STUDENT = 1, 3
OPTIONS = AdaptiveBatches(capacity=4, increment=0.4)

# Ten steps of two texts, two steps an epoch; worked out by hand. t is the threshold, s the step.
#   step  validation  t    r     t * (1 - s/10)  buffer before  choice
TRACE = (
    (0, 2.00, 0.0, 0.00, "data", 0),  # nothing is below 0
    (1, None, 0.0, 0.50, "data", 0),
    (2, 2.05, 0.0, 0.00, "data", 0),  # 2.05 < 2.00 + 0.1
    (3, None, 0.0, 0.30, "data", 0),
    (4, 2.10, 0.4, 0.10, "student", 2),  # 2.10 >= 2.00 + 0.1; 0.10 < 0.4 * 0.6
    (5, None, 0.4, 0.39, "student", 4),  # 0.39 >= 0.4 * 0.5, but below 0.4 with room for two texts
    (6, 2.15, 0.4, 0.20, "replay", 4),  # 2.15 < 2.10 + 0.1; 0.4 * 0.4 <= 0.20 < 0.4, no room
    (7, None, 0.4, 0.40, "data", 4),  # 0.40 is not below 0.4
    (8, 2.60, 0.8, 0.10, "student", 4),  # 2.60 >= 2.10 + 0.1; 0.10 < 0.8 * 0.2; the texts of step 4 leave
    (9, None, 0.8, 0.10, "replay", 4),  # 0.8 * 0.1 <= 0.10 < 0.8
)


def test_schedule_follows_the_written_trace(tools, monkeypatch):
    chance, rolls = adaptive.step_rng, [row[3] for row in TRACE]

    def rigged(purpose, rollouts, progress):
        if purpose == "adaptive":
            return SimpleNamespace(random=lambda: rolls[progress.step])
        return chance(purpose, rollouts, progress)

    monkeypatch.setattr(adaptive, "step_rng", rigged)
    policy, rollouts = OPTIONS.create(), tools.rollouts(total_steps=10)
    written = []
    for step, loss, threshold, _, choice, buffered in TRACE:
        rollouts.step = step
        if loss is not None:
            policy.observe_validation(loss)
        batch = rollouts.batch(step)
        origins = [tools.origin(text) for text in policy.draw(batch, rollouts, Progress(step, 10, step / 2))]
        before, prompts = list(written), [tools.origin(text)[0] for text in batch]
        if choice == "data":
            assert origins == [(row, row, DATA, 0) for row in prompts]
        elif choice == "student":
            written = [*written, *((row, row, STUDENT, step) for row in prompts)][-4:]
            assert origins == written[-2:]
        else:
            assert len(set(origins)) == 2
            assert set(origins) <= set(before)
        state = policy.state()
        assert (state["threshold"], len(state["buffer"])) == (threshold, buffered), step
        assert [text["input_ids"][-1] for text in state["buffer"]] == [when for *_, when in written]
    assert [call[0] for call in rollouts.calls] == [4, 5, 8]
    policy.observe_validation(9.0)
    assert policy.state()["threshold"] == 1.0


def test_first_validation_raises_nothing_and_falling_losses_do_not_lower_the_bar():
    policy = AdaptiveBatches().create()
    for loss in (3.0, 1.0, 2.9, 3.05):
        policy.observe_validation(loss)
    assert policy.state()["threshold"] == 0
    assert policy.state()["accepted"] == 3.0
    policy.observe_validation(3.1)
    assert (policy.state()["threshold"], policy.state()["accepted"]) == (0.1, 3.1)


def test_ten_tenths_reach_exactly_one_and_no_more():
    policy = AdaptiveBatches().create()
    seen = []
    for loss in range(13):
        policy.observe_validation(float(loss))
        seen.append(policy.state()["threshold"])
    assert seen == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("seed", range(4))
def test_shares_of_the_three_choices_are_the_expected_ones(seed, tools):
    steps = 2000
    rollouts = tools.rollouts(total_steps=steps, seed=seed)
    policy = AdaptiveBatches(initial_threshold=0.6, capacity=2).create()
    drawn = tools.run(policy, rollouts, range(steps))
    fresh = len(rollouts.calls)
    data = sum(writers == {DATA} for writers in tools.writers(drawn))
    # 0.6 (1 - s/2000) averages 0.3; the rest of 0.6 is replayed.
    for count, share in ((data, 0.4), (fresh, 0.3), (steps - data - fresh, 0.3)):
        assert abs(count / steps - share) < 4 * math.sqrt(share * (1 - share) / steps)


def test_every_response_belongs_to_its_prompt_and_comes_from_the_student(tools):
    rollouts = tools.rollouts(texts=20, total_steps=300)
    policy = AdaptiveBatches(initial_threshold=0.9, capacity=7).create()
    replayed = 0
    for step, texts in enumerate(tools.run(policy, rollouts, range(300))):
        for text in texts:
            prompt, answered, writer, when = tools.origin(text)
            assert prompt == answered
            assert text.by_student == (writer == STUDENT)
            assert len(text.spans["words"]) == (prompt % 4 != 0)
            replayed += writer == STUDENT and when < step
    assert replayed > 50


def test_replayed_texts_are_different_places_of_the_buffer(tools):
    rollouts = tools.rollouts(texts=20, total_steps=200)
    drawn = tools.run(AdaptiveBatches(initial_threshold=1.0, capacity=2).create(), rollouts, range(200))
    assert all(len({tools.origin(text) for text in texts}) == 2 for texts in drawn)


@pytest.mark.parametrize("stop", [1, 8, 20, 39])
def test_stop_and_resume_equals_a_straight_run(stop, tools):
    options = AdaptiveBatches(initial_threshold=0.5, capacity=6)
    losses = [2.0 + 0.07 * epoch for epoch in range(14)]
    straight = tools.run(options.create(), tools.rollouts(total_steps=40), range(40), losses)
    policy = options.create()
    first = tools.run(policy, tools.rollouts(total_steps=40), range(stop), losses)
    second = tools.run(tools.resumed(policy, options), tools.rollouts(total_steps=40), range(stop, 40), losses)
    assert tools.content([*first, *second]) == tools.content(straight)
    assert {DATA} in tools.writers(straight)
    assert {STUDENT} in tools.writers(straight)


def test_state_is_plain_json_and_restoring_replaces_what_was_there(tools):
    options = AdaptiveBatches(initial_threshold=1.0, capacity=6)
    old, other = options.create(), options.create()
    old.observe_validation(2.5)
    tools.run(old, tools.rollouts(), range(2))
    tools.run(other, tools.rollouts(seed=1), range(1))
    state = json.loads(json.dumps(old.state(), allow_nan=False))
    other.restore(state)
    assert other.state() == state
    assert len(state["buffer"]) == 4
    assert any(text["spans"]["words"] == [] for text in state["buffer"])


def test_copies_with_the_same_seed_agree_and_another_seed_differs(tools):
    options = AdaptiveBatches(initial_threshold=0.5, capacity=4)
    first, second, other = (
        tools.content(tools.run(options.create(), tools.rollouts(total_steps=60, seed=seed), range(60)))
        for seed in (1, 1, 2)
    )
    assert first == second
    assert first != other


def test_temperature_is_that_of_the_options(tools):
    rollouts = tools.rollouts()
    tools.run(AdaptiveBatches(initial_threshold=1.0, temperature=0.3).create(), rollouts, range(2))
    assert rollouts.calls == [(0, "student", 0.3), (1, "student", 0.3)]


def test_buffer_smaller_than_a_batch_is_refused():
    with pytest.raises(ValueError, match=r"capacity .*batch_size \(got 1\); expected a capacity of at least 2\. Raise"):
        AdaptiveBatches(capacity=1).create().check(2)
    AdaptiveBatches(capacity=2).create().check(2)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_validation_loss_that_is_no_number_stops_the_run(loss):
    with pytest.raises(RunError, match=r"validation cross-entropy must be finite .*\(got (nan|inf)\)"):
        AdaptiveBatches().create().observe_validation(loss)


def test_it_says_what_it_lives_on():
    policy = AdaptiveBatches().create()
    assert policy.NEEDS_VALIDATION
    assert policy.RESPONDERS == ("student",)
