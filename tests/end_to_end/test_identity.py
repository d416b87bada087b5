"""Runs that meet in one folder, end too early, or lie elsewhere than where they were made."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from mta_framework.cli import main
from mta_framework.errors import InputError
from mta_framework.evaluation import evaluate
from mta_framework.registry import discover
from mta_framework.runs import pipeline
from mta_framework.runs.plugin_binding import bind

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_page")]
EXITING = Path(__file__).with_name("exiting_loss.py")
SLOW = Path(__file__).with_name("slow_loss.py")


@pytest.fixture
def plain(spec_dict, write_spec, tmp_path):
    """Writes the spec of a small run without teacher, with changes."""
    tokenizer = json.loads((tmp_path / "teacher.json").read_text())["student"]["tokenizer"]
    student = {**spec_dict["student"], "tokenizer": tokenizer}
    alone = {"teacher": None, "alignment": None, "base_loss": {"name": "sft"}, "student": student, "evaluation": None}

    def write(name="student.json", **changes):
        return write_spec({**spec_dict, **alone, **changes}, name)

    return write


def test_two_specs_of_one_name_that_start_together_do_not_share_a_student(plain, tmp_path):
    """The second has passed its first check when the first begins and ends; what counts is the check under the lock."""
    first, second = bind(plain(), discover()), bind(plain("second.json", seed=2), discover())
    prepare = pipeline.prepare_run

    def meanwhile(bound):
        inputs = prepare(bound)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pipeline, "prepare_run", prepare)
            pipeline.run(first)
        return inputs

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "prepare_run", meanwhile)
        with pytest.raises(InputError) as caught:
            pipeline.run(second)
    assert "name: already holds a run" in str(caught.value)
    assert json.loads((tmp_path / "runs" / "student" / "spec.json").read_text())["seed"] == 1


def test_two_processes_of_one_name_end_with_one_run_and_one_refusal(plain, tmp_path, warm_python):
    training = {"max_steps": 3, "batch_size": 8, "learning_rate": 1e-3, "trackers": []}
    paths = [plain(f"{seed}.json", seed=seed, training=training, base_loss={"name": "slow"}) for seed in (1, 2)]
    started = [warm_python.start(["-m", "mta_framework", "-p", SLOW, "run", path]) for path in paths]
    outputs = [process.communicate() for process in started]
    codes = [process.returncode for process in started]
    assert sorted(code == 0 for code in codes) == [False, True], outputs
    done = codes.index(0)
    refused = outputs[1 - done][1]
    assert "another process is at work on this run" in refused or "already holds a run" in refused
    report = json.loads((tmp_path / "runs" / "student" / "report.json").read_text())
    assert report["spec"]["seed"] == done + 1


@pytest.mark.parametrize("at_once", [False, True], ids=["sys.exit", "os._exit"])
def test_plugin_that_ends_the_process_with_0_finishes_nothing(at_once, plain, write_spec, warm_python, tmp_path):
    path = plain(base_loss={"name": "exiting"})
    environment = {**os.environ, **({"AT_ONCE": "1"} if at_once else {})}
    if not at_once:
        ended = warm_python.run(["-m", "mta_framework", "-p", EXITING, "run", path], env=environment)
        assert ended.returncode == 1
        assert "The command was ended from within (SystemExit: 0, in exiting_loss.py:" in ended.stderr
        return
    axes = [{"name": "seed", "field": "seed", "values": [1]}]
    sweep = write_spec({"name": "grid", "spec": path.name, "axes": axes}, "sweep.json")
    ended = warm_python.run(["-m", "mta_framework", "-p", EXITING, "sweep", sweep], env=environment)
    assert ended.returncode == 1
    assert "failed seed-1: ended with 0 before its report was written (see " in ended.stdout
    assert not (tmp_path / "sweeps" / "grid" / "seed-1" / "student").exists()


def test_project_that_was_moved_and_touched_is_resumed_without_training_or_generating(
    spec_dict, write_spec, tmp_path, monkeypatch
):
    plain = {"alignment": None, "evaluation": {**spec_dict["evaluation"], "max_new_tokens": 2, "seeds": [10]}}
    data = {**spec_dict["data"], "train": {"path": "train.jsonl"}, "validation": None}
    plain["evaluation"]["sets"] = {"seen": {"path": "train.jsonl", "limit": 3}}
    project = tmp_path / "project"
    project.mkdir()
    shutil.copy(tmp_path / "train.jsonl", project)
    teacher = json.loads((tmp_path / "teacher.json").read_text())
    (project / "teacher.json").write_text(json.dumps({**teacher, "data": data}))
    (project / "student.json").write_text(json.dumps({**spec_dict, **plain, "data": data}))
    before = pipeline.run(bind(project / "student.json", discover()))

    later = tmp_path / "elsewhere" / "later"
    later.parent.mkdir()
    shutil.move(project, later)
    for path in later.rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    monkeypatch.setattr(pipeline, "train", None)
    monkeypatch.setattr(evaluate, "make_engine", None)
    for path in (later / "student.json", later / "runs" / "student" / "spec.json"):
        after = pipeline.run(bind(path, discover()), resume=True)
        assert after.evaluation == before.evaluation
    shown = CliRunner().invoke(main, ["compare", str(later / "runs" / "student")])
    assert shown.exit_code == 0, shown.output
