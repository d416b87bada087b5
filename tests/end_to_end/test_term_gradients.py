"""The benchmark that shows what each loss term pulls at."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    sys.modules.pop("term_gradients", None)
    import term_gradients

    yield term_gradients
    del sys.modules["term_gradients"]


@pytest.mark.parametrize(
    ("changes", "lacks"),
    [
        ({"alignment": None}, "alignment"),
        ({"base_loss": {"name": "none"}}, "a base loss of its own"),
        ({"alignment": None, "data": {"validation": None}}, "alignment, a validation set"),
    ],
)
def test_a_spec_without_two_gradients_to_compare_is_refused_with_what_it_needs(
    benchmark, spec_dict, write_spec, changes, lacks
):
    changed = {name: {**spec_dict[name], **value} if name == "data" else value for name, value in changes.items()}
    with pytest.raises(SystemExit, match=rf"student\.json: needs {lacks}\.$"):
        benchmark.measure(write_spec({**spec_dict, **changed}), (), 4, False, pytest.fail)


def test_gradients_are_compared_with_that_of_the_base_loss(benchmark):
    """By hand: gradients are (3, 4) of the base loss, two terms' sum, 2 (0, 1) of dsa and (-4, 3) / 2 of hid."""
    import torch
    from torch import nn

    from mta_framework.types import Batch, LossTerm, Progress

    class Distiller:
        student = nn.Linear(2, 1, bias=False)

        def __call__(self, batch, progress):
            a, b = self.student.weight[0]
            first, second = LossTerm("kl", 6 * a, "tokens"), LossTerm("sft", 8 * b, "tokens")
            dsa = [LossTerm("dsa", part * b, "spans", 2.0) for part in (0.25, 0.75)]
            return first, second, *dsa, LossTerm("hid", 2 * (3 * b - 4 * a), "tokens", 0.5)

    distiller = Distiller()
    distiller.student.weight.data[:] = torch.tensor([1.0, 2.0])
    empty = torch.zeros(0, dtype=torch.int64)
    batch = Batch(empty.view(0, 0), empty.view(0, 0), empty, empty, counts={"tokens": 2, "spans": 1})
    result = benchmark.pulls(distiller, batch, Progress(0, 1, 0.0), {"dsa": 1.0, "hid": 10.0})
    assert list(result) == ["base loss", "dsa", "hid"]
    base = result["base loss"]
    assert (base.value, base.share, base.cosine) == pytest.approx((11.0, 1.0, 1.0))
    assert (result["dsa"].value, result["dsa"].share, result["dsa"].cosine) == pytest.approx((1.0, 2 / 5, 4 / 5))
    assert (result["hid"].value, result["hid"].share) == pytest.approx((2.0, 10 * 0.5))
    assert result["hid"].cosine == pytest.approx(0, abs=1e-6)
    assert distiller.student.weight.grad is None


@pytest.mark.slow
def test_terms_are_measured_at_each_validation_of_a_run_whether_they_are_trained_or_not(
    spec_dict, write_spec, tmp_path, warm_python
):
    path = write_spec({**spec_dict, "training": {**spec_dict["training"], "eval_steps": 2}})
    tables = {}
    for options in ((), ("--observe",)):
        lines = warm_python.run([BENCHMARKS / "term_gradients.py", path, *options], check=True).stdout.splitlines()
        cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
        tables[options] = {(step, term): [float(value) for value in values] for step, term, *values in cells[1:]}
    assert list(tables[()]) == [(step, term) for step in ("2", "4") for term in ("base loss", "dsa", "hid")]
    assert list(tables["--observe",]) == list(tables[()])
    trained, observed = tables[()]["4", "hid"], tables["--observe",]["4", "hid"]
    assert trained[0] < observed[0]
    assert observed[1] == pytest.approx(trained[1], rel=0.5)  # weights count, though they train nothing
    assert not (tmp_path / "runs" / "student").exists()
