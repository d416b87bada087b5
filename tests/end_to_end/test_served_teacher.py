"""Runs whose teacher is behind a server: its loss, what is asked for, and what an interruption costs."""

from __future__ import annotations

import hashlib
import json

import pytest
from broken_runs import finished, interrupted
from click.testing import CliRunner
from teacher_server import TeacherServer, write_teacher
from top_classes import expected_losses

from mta_framework import RunError
from mta_framework.cli import main
from mta_framework.testing.chat_server import fail

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_page")]

K = 8
ON_POLICY = {"name": "jsd", "params": {"batches": {"policy": "on_policy", "fraction": 0.5}}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer_folder):
    return write_teacher(tmp_path_factory.mktemp("teacher"), tokenizer_folder)


@pytest.fixture
def served_spec(spec_dict, write_spec, folder):
    """Writes a spec whose teacher is behind a server."""

    def write(server, name="student.json", base_loss=None, **training):
        teacher = {"path": str(folder), "server": {"url": server.base_url, "model": "tiny", "top_logprobs": K}}
        teacher["server"] |= {"retries": 1, "concurrency": 2}
        spec = {**spec_dict, "teacher": teacher, "base_loss": base_loss or {"name": "kl"}, "evaluation": None}
        del spec["alignment"]
        return write_spec({**spec, "training": {**spec["training"], **training}}, name)

    return write


def weights(tmp_path, name):
    return hashlib.sha256((tmp_path / "runs" / name / "student" / "model.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize("reverse", [False, True])
def test_the_loss_is_that_of_the_live_teacher_over_the_same_classes(reverse, served_spec, folder, one_step, tmp_path):
    base_loss = {"name": "kl", "params": {"reverse": reverse}}
    with TeacherServer(folder) as server:
        path = served_spec(server, base_loss=base_loss, max_steps=1)
        expected = expected_losses(path, server.model, K)[reverse]
        losses, gradients = one_step(path, tmp_path / "step", 4)
    assert losses["kl"] == pytest.approx(expected, rel=1e-4)
    assert all(gradient.isfinite().all() for gradient in gradients.values())


def test_each_text_is_asked_for_once_by_all_seeds_and_losses(served_spec, folder, tmp_path):
    with TeacherServer(folder) as server:
        path = served_spec(server, max_steps=10)
        finished(path, "first")
        asked = len(server.asked)
        assert asked == len(set(server.asked)) > 30
        finished(
            path,
            "second",
            "seed=5",
            "training.max_steps=4",
            "base_loss.name=distillm",
            'base_loss.params={"batches":{"policy":"fixed"}}',
        )
        finished(path, "again")
        # The second run asked for a few more, and for one that was kept: whether the server has the same model.
        assert len(server.asked) <= len(set(server.asked)) + 1
    assert weights(tmp_path, "first") == weights(tmp_path, "again")


@pytest.mark.parametrize("base_loss", [None, ON_POLICY], ids=["data", "on-policy"])
def test_a_resumed_run_has_the_bits_of_a_straight_one_and_asks_for_nothing_twice(
    base_loss, served_spec, folder, tmp_path
):
    generation = {"generation": {"engine": "transformers", "max_new_tokens": 8}} if base_loss else {}
    with TeacherServer(folder) as server:
        path = served_spec(server, base_loss=base_loss, save_steps=2, **generation)
        interrupted(path, "resumed", 3)
        finished(path, "resumed", resume=True)
        assert len(server.asked) == len(set(server.asked))
        finished(path, "straight", 'teacher.cache={"path": "another"}')
    assert weights(tmp_path, "resumed") == weights(tmp_path, "straight")


def test_a_server_that_fails_stops_the_run_and_the_same_command_goes_on(served_spec, folder):
    with TeacherServer(folder) as server:
        path = served_spec(server)
        server.mishaps += [fail(500, "out of memory")] * 4
        with pytest.raises(RunError, match=r"gives no answer to a text of \d+ tokens"):
            finished(path, "run")
        server.mishaps.clear()
        finished(path, "run", resume=True)


def command(*arguments):
    outcome = CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.output
    return outcome.output


def test_a_cache_is_planned_made_and_listed(served_spec, folder, tmp_path):
    with TeacherServer(folder) as server:
        path = served_spec(server, max_steps=10)
        plan = command("run", path, "--dry-run")
        assert "likeliest tokens at supervised positions" in plan
        assert "head" not in plan.partition("teacher cache")[2]
        assert server.received == []
        assert "The server answered" in command("cache", path)
        asked = len(server.asked)
        assert f" tokens, are {asked} requests to {server.base_url}." in plan
        assert "Every text was there." in command("cache", path)
        listed = command("cache", "list", path)
        assert "tiny, behind a server" in listed
        assert command("cache", "check", path).endswith(": 0 damaged files.\n")
        finished(path, "run")
        assert len(server.asked) == asked
    server_folder = next((tmp_path / "runs" / "teacher-cache").glob("tiny-*"))
    assert json.loads((server_folder / "server.json").read_text())["name"] == "tiny"
