"""A run can be planned on a machine that has not the memory for its models; only what starts it refuses."""

from __future__ import annotations

import json
import re

import pytest

from mta_framework.cli.plan import plan_lines
from mta_framework.errors import InputError
from mta_framework.models import machine_memory
from mta_framework.registry import discover
from mta_framework.runs import pipeline
from mta_framework.runs.plugin_binding import bind
from mta_framework.tables.terminal import size_text

TOO_LARGE = "has more weights than this machine has memory"


@pytest.fixture
def memory(monkeypatch):
    """Sets the memory of the machine."""
    return lambda count: monkeypatch.setattr(machine_memory, "machine_memory", lambda: count)


def named(lines):
    """What the lines of a plan say is too large, without the sizes."""
    return [line.partition(": has")[0] for line in lines if TOO_LARGE in line]


def test_a_run_is_planned_for_a_larger_machine_and_refused_on_this_one(spec_dict, write_spec, memory):
    bound = bind(write_spec(spec_dict), discover())
    sizes = pipeline.plan(bound).models
    student, teacher = sizes["student"].parameters, sizes["teacher"].parameters
    memory(4 * student - 1)
    plan = pipeline.plan(bound)
    assert plan.memory.total > 4 * student
    assert f"This machine has {size_text(4 * student - 1)} for a process, which is too little." in plan_lines(plan)
    # The teacher is still to be trained by a spec of its own, as whose student it is too large.
    of_teacher = f"teacher.run: {bound.spec.teacher.run}: student.config"
    assert named(plan_lines(plan)) == [f"Another machine is needed. {of_teacher}"]
    assert not machine_memory._any_machine.get()
    for start in (pipeline.run, lambda bound: pipeline.plan(bound, alone=False)):
        with pytest.raises(InputError, match=rf"^{re.escape(of_teacher)}: {TOO_LARGE}"):
            start(bound)
    memory(4 * (student + teacher) - 1)
    assert named(plan_lines(pipeline.plan(bound))) == ["Another machine is needed. teacher and student"]
    memory(4 * (student + teacher))
    assert named(plan_lines(pipeline.plan(bound))) == []
    memory(plan.memory.total)
    assert not any("too little" in line for line in plan_lines(pipeline.plan(bound)))


def test_each_of_several_teachers_is_named(several_spec, write_spec, memory):
    bound = bind(write_spec(several_spec), discover())
    memory(1)
    assert named(plan_lines(pipeline.plan(bound))) == [
        "Another machine is needed. teachers.maths.path",
        "Another machine is needed. teachers.code.path",
        "Another machine is needed. student.config",
    ]


def test_a_plan_finds_the_faults_of_the_run_that_its_teacher_comes_from(spec_dict, write_spec, tmp_path):
    path, teacher = write_spec(spec_dict), tmp_path / "teacher.json"
    of_teacher = json.loads(teacher.read_text())
    (tmp_path / "faulty.jsonl").write_text('{"instruction": "a"}\n')
    of_teacher["data"] = {**of_teacher["data"], "train": {"path": "faulty.jsonl"}}
    teacher.write_text(json.dumps(of_teacher))
    with pytest.raises(
        InputError, match=rf"^teacher\.run: {teacher}: data\.train: .*faulty\.jsonl:1: output is missing"
    ):
        pipeline.plan(bind(path, discover()))


def test_a_fault_of_the_teachers_teacher_is_named_once_by_the_way_to_it(spec_dict, write_spec, tmp_path):
    (tmp_path / "faulty.jsonl").write_text('{"instruction": "a"}\n')
    of_teacher = json.loads((tmp_path / "teacher.json").read_text())
    faulty = {**of_teacher["data"], "train": {"path": "faulty.jsonl"}}
    first = write_spec({**of_teacher, "name": "first", "data": faulty}, "first.json")
    second = write_spec({**spec_dict, "name": "second", "teacher": {"run": "first.json"}}, "second.json")
    path = write_spec({**spec_dict, "teacher": {"run": "second.json"}})
    with pytest.raises(InputError) as caught:
        pipeline.plan(bind(path, discover()))
    (fault,) = caught.value.faults
    assert fault.where.startswith(f"teacher.run: {second}: teacher.run: {first}: data.train: ")


@pytest.mark.parametrize("command", [pipeline.plan, pipeline.run])
def test_faults_of_a_run_and_of_its_teachers_are_found_at_once(spec_dict, write_spec, tmp_path, command):
    (tmp_path / "faulty.jsonl").write_text('{"instruction": "a"}\n')
    data = {**spec_dict["data"], "train": {"path": "faulty.jsonl"}}
    of_teacher = json.loads((tmp_path / "teacher.json").read_text())
    teacher = write_spec({**of_teacher, "data": data}, "teacher.json")
    path = write_spec({**spec_dict, "teacher": {"run": "teacher.json"}, "data": data})
    with pytest.raises(InputError) as caught:
        command(bind(path, discover()))
    of_run, of_teacher_run = caught.value.faults
    assert of_run.where.startswith("data.train: ")
    assert of_teacher_run.where.startswith(f"teacher.run: {teacher}: data.train: ")
    assert not list(tmp_path.rglob("checkpoints"))
