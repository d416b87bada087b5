"""The benchmark of parsing runs; what it measures is not judged here."""

from __future__ import annotations

from pathlib import Path

import pytest
from warm_python import WarmPython

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "spans.py"


@pytest.mark.slow
@pytest.mark.parametrize("made_up", [True, False])
def test_it_prints_all_ways_and_how_often_the_template_is_parsed(
    rows_file: Path, made_up: bool, warm_python: WarmPython
) -> None:
    data = [] if made_up else ["--data", str(rows_file)]
    done = warm_python.run([BENCHMARK, *data, "--texts", "12", "--rounds", "2", "--processes", "1"], check=True)
    assert done.stdout.count("texts/s/core") == 4
    assert done.stdout.count("(target: at least 0.90)") == 2
    assert "and 4 pieces of the template" in done.stdout
