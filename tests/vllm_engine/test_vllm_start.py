"""vLLM itself, whose start is interrupted."""

from __future__ import annotations

import subprocess
import sys
import time

import psutil
import pytest
from ended_processes import wait_until_ended
from transformers import LlamaForCausalLM

START = """
import sys
from pathlib import Path
from mta_framework.generation.vllm_process import VllmOptions, VllmProcess

VllmProcess("student", VllmOptions(Path(sys.argv[1]), "float32", 64, 128))
"""


def is_of_vllm(process: psutil.Process) -> bool:
    try:
        command = " ".join(process.cmdline())
    except psutil.Error:  # it has just ended
        return False
    return "VLLM::" in command or "multiprocessing.spawn" in command


@pytest.mark.parametrize("num_processes", [1, 2])
def test_vllm_that_is_still_starting_leaves_nothing_behind_when_its_parent_is_killed(
    llama_config, num_processes, tmp_path
):
    """When the process of the engine is there, and when its worker is there as well."""
    LlamaForCausalLM(llama_config).save_pretrained(tmp_path)
    parent = psutil.Popen([sys.executable, "-c", START, str(tmp_path)], stdout=subprocess.DEVNULL)
    try:
        children: list[psutil.Process] = []
        while sum(map(is_of_vllm, children)) < num_processes and parent.poll() is None:
            time.sleep(0.1)
            children = parent.children(recursive=True)
        assert sum(map(is_of_vllm, children)) == num_processes
        time.sleep(0.5)
    finally:
        parent.kill()
        parent.wait()
    assert not wait_until_ended(child.pid for child in children)
