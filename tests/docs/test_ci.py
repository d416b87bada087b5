"""Continuous integration runs the blocks of the README that are marked for it."""

from __future__ import annotations

import re
import subprocess

import pytest
from blocks import ROOT, marked_blocks

SCRIPT = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
MARKED = marked_blocks(ROOT / "README.md")


def test_the_quick_start_and_the_tests_are_marked():
    assert "mta run examples/quickstart/student.json" in MARKED["quickstart"]
    assert "tox run" in MARKED["tests"]


def test_every_mark_stands_above_a_shell_block_and_is_run_once():
    marks = re.findall(r"<!-- ci: (.+?) -->", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert marks == list(MARKED)
    assert sorted(re.findall(r"^run_block (\S+)$", SCRIPT, re.MULTILINE)) == sorted(marks)


@pytest.mark.parametrize("name", [*MARKED, "no-such-mark"])
def test_the_script_takes_the_block_under_the_mark(name):
    function = next(line for line in SCRIPT.splitlines() if line.startswith("block()"))
    command = ["bash", "-euo", "pipefail", "-c", f"{function}\nblock {name}"]
    taken = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert taken == MARKED.get(name, "")
