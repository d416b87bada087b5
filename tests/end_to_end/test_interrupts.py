"""Ctrl-C, which a terminal sends to every process of a command: one sentence, exit code 130, nothing left at work."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from mta_framework.cli import main

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("trained_teacher")]

HERE = Path(__file__).parent
SENTENCE = "Interrupted. To continue a run: mta run SPEC --resume; any other command: run it again."


@pytest.fixture
def interrupted(warm_python, tmp_path):
    """Starts ``mta ARGUMENTS``, interrupts it once ``ready`` says so, and gives what it printed."""
    (tmp_path / "started").mkdir()

    def interrupt(ready, *arguments):
        environment = {**os.environ, "STARTED": str(tmp_path / "started")}
        running = warm_python.start(["-m", "mta_framework", *arguments], env=environment, cwd=tmp_path, group=0)
        limit = time.monotonic() + 200
        while not ready():
            assert running.poll() is None, running.communicate()
            assert time.monotonic() < limit
            time.sleep(0.02)
        os.killpg(running.pid, signal.SIGINT)
        out, errors = running.communicate(timeout=60)
        assert running.returncode == 130, errors
        assert "Traceback" not in out + errors
        assert errors.count(SENTENCE) == 1
        assert group_ends(running.pid)

    return interrupt


def group_ends(group):
    """Whether all processes of a group end within seconds."""
    limit = time.monotonic() + 20
    while time.monotonic() < limit:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def test_training_is_interrupted_and_goes_on(interrupted, spec_dict, write_spec, tmp_path):
    training = {**spec_dict["training"], "max_steps": 12, "save_steps": 3}
    student = {**spec_dict["student"], "tokenizer": str(tmp_path / "runs" / "teacher" / "student")}
    changes = {"teacher": None, "student": student, "base_loss": {"name": "slow"}, "alignment": None}
    spec = write_spec({**spec_dict, **changes, "training": training, "evaluation": None})
    run = tmp_path / "runs" / "student"
    plugin = str(HERE / "slow_loss.py")
    interrupted((run / "checkpoints" / "checkpoint-3").exists, "-p", plugin, "run", spec)
    assert not (run / "student").exists()
    assert CliRunner().invoke(main, ["-p", plugin, "run", str(spec), "--resume"]).exit_code == 0
    assert json.loads((run / "training.json").read_text())["total_steps"] == 12


def test_generation_is_interrupted(interrupted, tmp_path):
    arguments = (
        "evaluate",
        tmp_path / "runs" / "teacher",
        "--data",
        f"seen={tmp_path / 'train.jsonl'}",
        "-o",
        "scores",
    )
    lengths = ("--set", "evaluation.max_new_tokens=350", "--set", "evaluation.max_prompt_length=120")
    folder = tmp_path / "scores" / "predictions"
    interrupted(lambda: any(folder.rglob("*.unfinished-*")), *arguments, *lengths)


def test_processes_that_look_for_spans_are_ended_without_a_word(interrupted, spec_dict, write_spec, tmp_path):
    rows = [{"instruction": f"Say {index}.", "output": f"It is {index}."} for index in range(450)]
    (tmp_path / "many.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    data = {**spec_dict["data"], "train": {"path": "many.jsonl"}, "processes": 2}
    alignment = {"spans": {"name": "slow_words"}, "layers": {"name": "proportional", "params": {"phrases": 0}}}
    spec = write_spec({**spec_dict, "data": data, "alignment": alignment})
    started = tmp_path / "started"
    interrupted(lambda: len(list(started.iterdir())) == 2, "-p", HERE / "slow_spans.py", "run", spec)
