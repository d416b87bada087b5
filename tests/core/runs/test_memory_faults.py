"""Whether the models of a run fit into memory, each and together."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mta_framework.cli.plan import plan_lines
from mta_framework.errors import InputError
from mta_framework.models import machine_memory
from mta_framework.registry import discover
from mta_framework.runs import pipeline
from mta_framework.runs.model_checks import memory_faults
from mta_framework.runs.plugin_binding import bind

GIB = 2**30


@pytest.fixture
def memory(monkeypatch):
    """Sets the memory of the machine; 6 GiB at first."""

    def put(count):
        monkeypatch.setattr(machine_memory, "machine_memory", lambda: count)

    put(6 * GIB)
    return put


@pytest.fixture
def faults(spec_dict, write_spec, memory):
    """The faults of two teachers of 3 GiB and a student of 2, with or without caches."""
    sizes = {"teachers.a": 3, "teachers.b": 3, "student": 2}
    summaries = {
        name: SimpleNamespace(has_weights=True, weight_bytes=size * GIB, where=f"{name}.hub")
        for name, size in sizes.items()
    }

    def of(cached, base_loss=None, **training):
        section = {"hub": "gpt2", **({"cache": {}} if cached else {})}
        spec = {name: value for name, value in spec_dict.items() if name not in ("teacher", "alignment", "evaluation")}
        changes = {"teachers": {"a": section, "b": section}, "student": {"hub": "gpt2"}}
        spec |= {**changes, "base_loss": base_loss or {"name": "kl"}, "training": {**spec["training"], **training}}
        return memory_faults(bind(write_spec(spec), discover()), SimpleNamespace(summaries=summaries))

    return of


def test_live_teachers_need_room_together(faults):
    (fault,) = faults(False)
    assert str(fault).startswith("teachers and student: has more weights than this machine has memory (got 8.0 GiB)")
    assert str(fault).endswith("Give teachers a cache, so that one is loaded at a time.")


def test_teachers_with_a_cache_need_room_one_at_a_time(faults):
    assert faults(True) == []


def test_teachers_with_a_cache_that_grade_responses_need_room_together(faults):
    loss = {"name": "jsd", "params": {"batches": {"policy": "on_policy", "fraction": 0.5}}}
    assert len(faults(True, loss, generation={"engine": "transformers", "max_new_tokens": 8})) == 1


def test_models_that_are_too_large_alone_are_named_each_and_not_together(faults, memory):
    memory(3 * GIB - 1)
    assert [fault.where for fault in faults(True)] == ["teachers.a.hub", "teachers.b.hub"]
    memory(2 * GIB - 1)
    assert [fault.where for fault in faults(False)] == ["teachers.a.hub", "teachers.b.hub", "student.hub"]


def test_each_process_of_a_machine_needs_the_memory(faults, memory, monkeypatch):
    memory(8 * GIB)
    assert faults(False) == []
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert [fault.where for fault in faults(False)] == ["teachers and student"]


def test_a_run_is_planned_for_a_larger_machine_and_refused_on_this_one(spec_dict, write_spec, memory):
    bound = bind(write_spec(spec_dict), discover())
    count = pipeline.plan(bound).models["student"].parameters
    memory(4 * count - 1)
    plan = pipeline.plan(bound)
    assert plan.memory.total > 4 * count
    lines = [line for line in plan_lines(plan) if "has more weights than this machine has memory" in line]
    assert [line.partition(": has")[0] for line in lines] == [
        "Another machine is needed. teacher.run",
        "Another machine is needed. student.config",
    ]
    for start in (pipeline.run, lambda bound: pipeline.plan(bound, with_memory=False)):
        with pytest.raises(InputError, match=r"student.*: has more weights than this machine has memory"):
            start(bound)
    memory(1000 * count)
    assert not [line for line in plan_lines(pipeline.plan(bound)) if "Another machine" in line]
