"""The pair loss on one long text, at the widths of real models: in little memory, and as all pairs at once give it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow
GIB = 2**30
WIDTHS = (576, 2048)


@pytest.fixture
def long_text(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import long_text

    yield long_text
    sys.modules.pop("long_text")


def test_forward_and_backward_stay_within_half_a_gib_with_the_weights_of_the_paper(long_text):
    held = np.ones(GIB // 8)  # 1 GiB of the parent process, which does not count
    # A matrix of all pairs of tokens, as attention weights would be held at once, has 256 MiB; two are too many.
    outcome = long_text.in_new_process(long_text.ours, long_text.Shape(8_192, 3_000, *WIDTHS, "attention"))
    # At least the teacher's directions, and what is kept for the backward pass: it was measured at all.
    assert 50 * 2**20 < outcome.peak < GIB / 2
    assert outcome.value > 0
    del held
    assert np.abs(outcome.gradient).max() > 0


def test_value_and_gradient_are_those_of_all_pairs_at_once_within_one_gib(long_text):
    shape = long_text.Shape(16_384, 6_000, *WIDTHS, "uniform")
    mine, other = (long_text.in_new_process(way, shape) for way in (long_text.ours, long_text.dense))
    assert mine.value == pytest.approx(other.value, rel=1e-5)
    assert np.linalg.norm(mine.gradient - other.gradient) < 1e-4 * np.linalg.norm(other.gradient)
    assert mine.peak < min(other.peak / 2, GIB)
