"""A teacher behind vLLM's own server, on this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from broken_runs import finished, interrupted
from httpx2 import Client, HTTPError
from teacher_server import write_teacher
from top_classes import expected_losses
from transformers import AutoModelForCausalLM

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


@pytest.fixture(scope="module")
def base_url(folder, tmp_path_factory):
    """The URL of a server that has the teacher."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log"
    options = [word for pair in OPTIONS.items() for word in pair]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), *options]
    environment = {**os.environ, "VLLM_NO_USAGE_STATS": "1"}
    with log.open("w") as output:
        server = subprocess.Popen([*command, "--port", str(port)], stdout=output, stderr=output, env=environment)
    try:
        _wait_until_ready(f"http://127.0.0.1:{port}/health", server, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(60)


def _wait_until_ready(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    with Client() as client:
        while server.poll() is None:
            try:
                if client.get(url).status_code == 200:
                    return
            except HTTPError:
                pass
            time.sleep(1)
    raise AssertionError(log.read_text()[-5000:])


@pytest.fixture
def served_spec(spec_dict, write_spec, folder, base_url):
    def write(**base_loss):
        server = {"url": base_url, "model": "tiny", "top_logprobs": K, "concurrency": 4}
        generation = {"max_new_tokens": 8} if base_loss.get("params", {}).get("batches") else None
        training = {**spec_dict["training"], "save_steps": 1, "generation": generation}
        spec = {**spec_dict, "teacher": {"path": str(folder), "server": server}, "base_loss": base_loss}
        del spec["alignment"]
        return write_spec({**spec, "training": training, "evaluation": None})

    return write


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
    assert len([entry for entry in report.log if "loss" in entry]) == 4
