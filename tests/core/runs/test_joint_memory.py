"""Whether the models of a run fit into memory together."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mta_framework.models import machine_memory
from mta_framework.registry import discover
from mta_framework.runs.model_checks import joint_memory_fault
from mta_framework.runs.plugin_binding import bind

GIB = 2**30


@pytest.fixture
def fault(spec_dict, write_spec, tmp_path, monkeypatch):
    """The fault of two teachers of 3 GiB and a student of 2 on a machine of 6, with or without caches."""
    monkeypatch.setattr(machine_memory, "machine_memory", lambda: 6 * GIB)
    summary = SimpleNamespace(has_weights=True, weight_bytes=3 * GIB)
    summaries = {"teachers.a": summary, "teachers.b": summary, "student": SimpleNamespace(**vars(summary))}
    summaries["student"].weight_bytes = 2 * GIB

    def of(cached, base_loss=None, evaluated=(), **training):
        section = {"hub": "gpt2", **({"cache": {}} if cached else {})}
        spec = {name: value for name, value in spec_dict.items() if name not in ("teacher", "alignment", "evaluation")}
        changes = {"teachers": {"a": section, "b": section}, "student": {"hub": "gpt2"}}
        spec |= {**changes, "base_loss": base_loss or {"name": "kl"}, "training": {**spec["training"], **training}}
        if evaluated:
            spec |= {"evaluation": {**spec_dict["evaluation"], "models": list(evaluated)}}
        return joint_memory_fault(bind(write_spec(spec), discover()), SimpleNamespace(summaries=summaries))

    return of


def test_live_teachers_need_room_together(fault):
    assert str(fault(False)).startswith(
        "teachers and student: has more weights than this machine has memory (got 8.0 GiB)"
    )
    assert str(fault(False)).endswith("Give teachers a cache, so that one is loaded at a time.")


def test_a_teacher_that_is_only_evaluated_is_not_loaded_beside_the_student(fault):
    assert fault(False, {"name": "sft"}, evaluated=("student", "teachers.a", "teachers.b")) is None


def test_teachers_with_a_cache_need_room_one_at_a_time(fault):
    assert fault(True) is None


def test_teachers_with_a_cache_that_grade_responses_need_room_together(fault):
    loss = {"name": "jsd", "params": {"batches": {"policy": "on_policy", "fraction": 0.5}}}
    assert fault(True, loss, generation={"engine": "transformers", "max_new_tokens": 8}) is not None
