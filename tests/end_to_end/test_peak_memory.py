"""The peak memory that a dry run prints is that of the training."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "peak_memory.py"
SETTINGS = ("full", "lora", "qlora", "8bit", "bf16", "checkpointing", "cached", "fdd", "ddp", "fsdp2")


@pytest.fixture(scope="module")
def run_file(tmp_path_factory, warm_python):
    """The run that all settings change, and its models, in a folder."""
    folder = tmp_path_factory.mktemp("peak")
    warm_python.run([BENCHMARK, "--tiny", "--write", folder], check=True)
    return folder / "run.json"


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS)
def test_estimate_is_within_15_per_cent_of_the_peak(run_file, setting, warm_python):
    if setting in ("qlora", "8bit") and find_spec("bitsandbytes") is None:
        pytest.skip("bitsandbytes is not installed")
    command = [BENCHMARK, "--worker", run_file, "--settings", setting]
    if setting in ("ddp", "fsdp2"):
        warm_python.run_on_two_ranks(command)
    else:
        warm_python.run(command, check=True)
    row = json.loads((run_file.parent / f"{setting}.json").read_text())
    assert row["problem"] == ""
    assert 0.85 <= row["estimate"] / row["measured"] <= 1.15
