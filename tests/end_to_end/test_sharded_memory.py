"""What a process holds of a sharded run: half of everything on two processes, but what is gathered for a step."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from warm_python import CPU

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "sharded_memory.py"
STUDENT, TEACHER, VOCABULARY = 64, 128, 512


@pytest.mark.slow
def test_two_processes_hold_half_each_and_gather_head_norm_and_projections(tmp_path, warm_python):
    warm_python.run([BENCHMARK, "--json", tmp_path / "one.json"], check=True, env={**os.environ, **CPU})
    warm_python.run_on_two_ranks([BENCHMARK, "--json", tmp_path / "two.json"])
    one, two = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two"))
    assert one["gradients"] == one["student and projections"]
    for part in ("student and projections", "gradients", "AdamW", "teacher"):
        assert two[part] / one[part] == pytest.approx(0.5, abs=0.01), part
    # Two key layers have a bridge with a bias each; the head is not tied to the embeddings.
    whole = VOCABULARY * STUDENT + STUDENT + 2 * (STUDENT * TEACHER + TEACHER)
    assert two["whole from forward to backward pass"] == 4 * whole
    assert one["whole from forward to backward pass"] == one["student and projections"]
