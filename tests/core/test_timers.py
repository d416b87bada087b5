"""The parts of a step are disjoint and add up to the step; what lies between steps is in none."""

from __future__ import annotations

import json

import pytest
import torch

from mta_framework import timers
from mta_framework.timers import ALIGNMENT, BASE_LOSS, OPTIMISER, PARTS, STUDENT, Stopwatch


class Clock:
    """A clock that the test moves."""

    def __init__(self):
        self.now = 100.0
        self.idle = 0.0

    def perf_counter(self):
        return self.now

    def process_time(self):
        return self.now - self.idle


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(timers, "time", clock)
    return clock


def spend(clock, seconds):
    clock.now += seconds


def step(watch, clock, student=3.0):
    watch.begin_step()
    spend(clock, 0.5)
    with watch.part(BASE_LOSS):
        spend(clock, 1.0)
        with watch.part(STUDENT):
            spend(clock, student)
        spend(clock, 1.0)
    spend(clock, 0.25)
    watch.end_step()


def test_a_part_is_booked_without_those_in_it_and_the_rest_is_the_optimisers(clock):
    watch = Stopwatch()
    step(watch, clock)
    assert watch.seconds_per_step() == {STUDENT: 3.0, BASE_LOSS: 2.0, OPTIMISER: 0.75}


def test_seconds_are_means_over_steps_and_nothing_between_steps_counts(clock):
    watch = Stopwatch()
    step(watch, clock, student=3.0)
    spend(clock, 1000.0)
    with watch.part(STUDENT):  # validation
        spend(clock, 1000.0)
    step(watch, clock, student=6.0)
    assert watch.seconds_per_step() == {STUDENT: 4.5, BASE_LOSS: 2.0, OPTIMISER: 0.75}


def test_a_part_that_fails_leaves_the_others_right(clock):
    def fail():
        with watch.part(STUDENT):
            spend(clock, 1.0)
            raise LookupError

    watch = Stopwatch()
    watch.begin_step()
    with pytest.raises(LookupError):
        fail()
    spend(clock, 2.0)
    watch.end_step()
    assert watch.seconds_per_step() == {STUDENT: 1.0, OPTIMISER: 2.0}


def test_without_a_step_nothing_is_reported():
    assert Stopwatch().seconds_per_step() == {}


def test_state_goes_through_json_and_means_are_over_the_steps_of_both_lives(clock):
    first, second = Stopwatch(), Stopwatch()
    step(first, clock, student=3.0)
    step(first, clock, student=3.0)
    second.restore(json.loads(json.dumps(first.state())))
    step(second, clock, student=9.0)
    assert second.seconds_per_step() == pytest.approx({STUDENT: 5.0, BASE_LOSS: 2.0, OPTIMISER: 0.75})


def test_processor_seconds_are_those_of_steps_without_waiting_and_without_what_lies_between(clock):
    watch = Stopwatch()
    step(watch, clock, student=3.0)  # 5.75 s in all
    spend(clock, 1000.0)  # validation and checkpoint
    watch.begin_step()
    spend(clock, 4.0)
    clock.idle += 1.5  # another program had the processor
    watch.end_step()
    assert watch.processor_seconds() == pytest.approx(5.75 + 2.5)
    assert sum(watch.seconds_per_step().values()) * 2 == pytest.approx(5.75 + 4.0)


def test_processor_seconds_go_on_in_a_second_life_without_steps_that_were_lost(clock):
    first, second = Stopwatch(), Stopwatch()
    step(first, clock)
    saved = json.loads(json.dumps(first.state()))
    step(first, clock)  # after the checkpoint
    second.restore(saved)
    step(second, clock, student=1.0)
    assert second.processor_seconds() == pytest.approx(5.75 + 3.75)


def test_away_from_the_cpu_the_time_of_steps_is_elapsed_time(clock):
    watch = Stopwatch("mps")
    step(watch, clock)
    clock.idle += 4.0  # the process waits for the device
    assert watch.processor_seconds() == pytest.approx(5.75)


def test_parts_are_reported_in_the_order_of_a_step(clock):
    watch = Stopwatch()
    watch.begin_step()
    for name in reversed(PARTS):
        with watch.part(name):
            spend(clock, 1.0)
    watch.end_step()
    assert tuple(watch.seconds_per_step()) == PARTS


class Event:
    """As ``torch.cuda.Event``: holds the moment when the GPU comes by, and cannot be read before that."""

    passed_by = 0
    """How many events the GPU has passed."""
    recorded = 0

    def __init__(self, enable_timing):
        assert enable_timing

    def record(self):
        Event.recorded += 1
        self.index = Event.recorded

    def query(self):
        return self.index <= Event.passed_by

    def synchronize(self):
        Event.passed_by = max(Event.passed_by, self.index)

    def elapsed_time(self, end):
        assert self.query()
        assert end.query(), "read before the GPU came by"
        return 1000.0 * (end.index - self.index)


def test_on_a_gpu_events_are_read_only_when_they_have_passed(monkeypatch):
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(Event, "recorded", 0)
    monkeypatch.setattr(Event, "passed_by", 0)
    monkeypatch.setattr(Event, "synchronize", None)  # a step must not wait
    watch = Stopwatch("cuda")
    for passed in (0, 3):
        Event.passed_by = passed
        watch.begin_step()
        with watch.part(STUDENT):
            pass
        with watch.part(ALIGNMENT):
            pass
        watch.end_step()
    monkeypatch.undo()
    monkeypatch.setattr(torch.cuda, "Event", Event)
    # Each step has six moments a second apart: optimiser, student, optimiser, alignment, optimiser, end.
    assert watch.seconds_per_step() == {STUDENT: 1.0, ALIGNMENT: 1.0, OPTIMISER: 3.0}
