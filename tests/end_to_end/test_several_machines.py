"""``accelerate launch`` on two machines, as the guide has it: two launchers of one process each, on loopback."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from warm_python import CPU

from mta_framework.evaluation.report import read_report

pytestmark = [pytest.mark.slow, pytest.mark.longest, pytest.mark.usefixtures("trained_teacher", "no_page")]
GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "several-processes.md"


def documented_commands():
    """The commands of the guide, one for each machine, as lists of words."""
    section = GUIDE.read_text(encoding="utf-8").split("## Several machines")[1]
    block = re.search(r"```sh\n(.*?)```", section, re.DOTALL)[1]
    return [command.split() for command in block.replace("\\\n", " ").splitlines()]


def test_two_launchers_make_the_run_of_one_process(spec_dict, write_spec, tmp_path, warm_python):
    training = {**spec_dict["training"], "max_steps": 2, "sharding": "fsdp2"}
    path = write_spec({**spec_dict, "training": training, "evaluation": None})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    replaced = {"8": "2", "10.0.0.1": "127.0.0.1", "29500": str(port), "spec.json": str(path)}
    launchers = []
    for command in documented_commands():
        assert command[:2] == ["accelerate", "launch"]
        words = [replaced.get(word, word) for word in command[2:]]
        launcher = [sys.executable, "-m", "accelerate.commands.launch", "--mixed_precision", "no", *words]
        launchers.append(subprocess.Popen(launcher, env={**os.environ, **CPU}, stderr=subprocess.PIPE, text=True))
    for launcher in launchers:
        _, error = launcher.communicate(timeout=1200)
        assert launcher.returncode == 0, error[-3000:]
    warm_python.run(["-m", "mta_framework", "run", path, "--set", "name=alone"], check=True)
    together, alone = (read_report(tmp_path / "runs" / name) for name in ("student", "alone"))
    assert [report.versions["processes"] for report in (together, alone)] == ["2", "1"]
    losses = [[entry["loss"] for entry in report.log if "kl" in entry] for report in (together, alone)]
    assert losses[0]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
