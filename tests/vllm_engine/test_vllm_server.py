"""A teacher behind vLLM's own server, on this machine."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from broken_runs import finished, interrupted
from httpx2 import Client, HTTPError
from teacher_server import write_teacher
from top_classes import expected_losses
from transformers import AutoModelForCausalLM

from mta_framework import RunError
from mta_framework.training.rollouts import TrainingRollouts

K = 8
OPTIONS = {
    "--served-model-name": "tiny",
    "--dtype": "float32",
    "--max-model-len": "512",
    "--max-logprobs": str(K),
    "--kv-cache-memory-bytes": str(2**26),
    "--host": "127.0.0.1",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer_folder):
    return write_teacher(tmp_path_factory.mktemp("teacher"), tokenizer_folder, hidden_size=128)


class VllmServer:
    """vLLM's own server, which keeps its port when it is killed and started again."""

    def __init__(self, folder: Path, log: Path):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self._folder, self._log = folder, log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def answered(self) -> int:
        """Number of completions since the first start."""
        return self._log.read_text().count('"POST /v1/completions HTTP/1.1" 200')

    def start(self) -> None:
        """Start it, and return at once."""
        options = [word for pair in OPTIONS.items() for word in pair]
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(self._folder), *options]
        environment = {**os.environ, "VLLM_NO_USAGE_STATS": "1"}
        with self._log.open("a") as output:
            self._process = subprocess.Popen(
                [*command, "--port", str(self._port)],
                stdout=output,
                stderr=output,
                env=environment,
                start_new_session=True,
            )

    def wait_until_ready(self) -> None:
        assert self._process is not None
        with Client() as client:
            while self._process.poll() is None:
                try:
                    if client.get(f"{self.url}/health").status_code == 200:
                        return
                except HTTPError:
                    pass
                time.sleep(1)
        raise AssertionError(self._log.read_text()[-5000:])

    def kill(self) -> None:
        """End it with all its processes, without a word to its clients."""
        assert self._process is not None
        with suppress(ProcessLookupError):  # it was killed before
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@pytest.fixture(scope="module")
def server(folder, tmp_path_factory):
    """A server that has the teacher."""
    server = VllmServer(folder, tmp_path_factory.mktemp("server") / "log")
    server.start()
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.kill()


@pytest.fixture
def served_spec(spec_dict, write_spec, folder, server):
    def write(**base_loss):
        section = {"url": f"{server.url}/v1", "model": "tiny", "top_logprobs": K, "concurrency": 4}
        generation = {"max_new_tokens": 8} if base_loss.get("params", {}).get("batches") else None
        training = {**spec_dict["training"], "save_steps": 1, "generation": generation}
        spec = {**spec_dict, "teacher": {"path": str(folder), "server": section}, "base_loss": base_loss}
        del spec["alignment"]
        return write_spec({**spec, "training": training, "evaluation": None})

    return write


@pytest.fixture
def killed_at_step(monkeypatch, server):
    """Kills the server when the student has written the responses of a step; ``then`` is called at once."""

    def arrange(step, then=lambda: None):
        respond = TrainingRollouts.respond

        def respond_and_kill(rollouts, *arguments):
            responses = respond(rollouts, *arguments)
            if rollouts.step == step:
                monkeypatch.setattr(TrainingRollouts, "respond", respond)
                server.kill()
                then()
            return responses

        monkeypatch.setattr(TrainingRollouts, "respond", respond_and_kill)

    return arrange


def losses(report):
    return [entry["loss"] for entry in report.log if "loss" in entry]


@pytest.mark.parametrize("reverse", [False, True])
def test_the_loss_is_that_of_the_live_teacher_over_the_same_classes(reverse, served_spec, folder):
    path = served_spec(name="kl", params={"reverse": reverse})
    teacher = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    expected = expected_losses(path, teacher, K)[reverse]
    report = finished(path, f"reverse-{reverse}", "training.max_steps=1")
    [loss] = [entry["kl"] for entry in report.log if "kl" in entry]
    assert loss == pytest.approx(expected, rel=1e-4)


def test_a_run_on_responses_of_the_student_goes_on_with_the_answers_that_are_kept(served_spec, tmp_path):
    path = served_spec(name="jsd", params={"batches": {"policy": "on_policy", "fraction": 0.5}})
    interrupted(path, "run", 2)
    kept = {file.name for file in tmp_path.rglob("teacher-cache/*/records/*/*.arrow")}
    assert kept
    report = finished(path, "run", resume=True)
    assert len(losses(report)) == 4


def test_a_server_that_is_killed_and_comes_back_is_waited_for_and_one_that_stays_away_is_a_sentence(
    served_spec, server, killed_at_step, tmp_path
):
    # At this temperature the student's responses are greedy; each run has answers of its own.
    batches = {"policy": "on_policy", "fraction": 1.0, "temperature": 1e-3}
    path = served_spec(name="jsd", params={"batches": batches})
    before = server.answered
    straight = losses(finished(path, "run", f"output_dir={tmp_path / 'straight'}"))
    asked = server.answered - before
    assert len(straight) == 4

    killed_at_step(2, then=server.start)
    waiting = finished(path, "run", f"output_dir={tmp_path / 'waiting'}", "teacher.server.retries=20")
    assert losses(waiting) == pytest.approx(straight, rel=1e-4)

    before = server.answered
    killed_at_step(2)
    away = f"output_dir={tmp_path / 'away'}", "teacher.server.retries=1"
    message = rf"^teacher, {re.escape(server.url)}/v1: gives no answer to "
    with pytest.raises(RunError, match=message) as refusal:
        finished(path, "run", *away)
    assert "\n" not in str(refusal.value)
    kept = sorted(tmp_path.glob("away/teacher-cache/*/records/*/*.arrow"))
    assert kept
    server.start()
    server.wait_until_ready()
    resumed = finished(path, "run", *away, resume=True)
    assert losses(resumed) == pytest.approx(straight, rel=1e-4)
    assert set(kept) <= set(tmp_path.glob("away/teacher-cache/*/records/*/*.arrow"))
    # One text that is kept is asked for again, to see whether the server still has the same model.
    assert server.answered - before <= asked + 1
