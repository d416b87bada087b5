"""Differences from the paper's settings: none for the paper's own runs, and every one for others."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from mta_framework import LayerPair
from mta_framework.evaluation.report import DataFacts, EvaluationFacts, Report, SetFacts
from mta_framework.reporting.paper_check import settings
from mta_framework.spec.run import RunSpec

ROOT = Path(__file__).parents[3]
SETS = {"dolly": 500, "self_inst": 242, "vicuna": 80, "sni": 1694}


def paper_specs():
    """The specs of the paper's students, resolved, as the examples have them."""
    found = {path.stem: json.loads(path.read_text()) for path in (ROOT / "examples" / "paper").glob("*.json")}
    runs = {name: spec for name, spec in found.items() if "teacher" in spec}
    return {name: RunSpec(**spec).model_dump(mode="json") for name, spec in runs.items()}


def reported(spec):
    pairs = (spec["alignment"] or {}).get("layers", {}).get("params", {}).get("pairs", [])
    sets = tuple(SetFacts("student", name, count, 0, 1.0) for name, count in SETS.items())
    return Report(
        spec["name"],
        spec,
        EvaluationFacts((10,), (), sets, ()),
        layer_pairs=tuple(LayerPair(**pair) for pair in pairs),
        data={"train": DataFacts(9568, 1867, 0)},
        steps=1,
    )


@pytest.mark.parametrize("name", list(paper_specs()))
def test_run_of_the_paper_differs_in_nothing_but_how_dsa_is_reduced(name):
    found = settings(reported(paper_specs()[name]))
    differing = [row.name for row in found if row.verdict != "as in the paper"]
    assert differing == (["alignment.dsa_reduction"] if name.endswith("mta") else [])
    assert len(found) > 20


@pytest.mark.parametrize(
    ("name", "change", "setting", "here", "paper"),
    [
        ("gpt2-distillm-mta", {"seed": 1}, "seed", "1", "42"),
        ("gpt2-distillm-mta", {"training": {"learning_rate": 0.004}}, "training.learning_rate", "0.004", "0.0001"),
        ("qwen-distillm2-mta", {"training": {"learning_rate": 1e-4}}, "training.learning_rate", "0.0001", "5e-05"),
        ("opt-fdd-mta", {"alignment": {"lambda_dsa": 2.0}}, "alignment.lambda_dsa", "2", "3"),
        ("gpt2-fdd-mta", {"alignment": {"max_spans": 99}}, "alignment.max_spans", "99", "all"),
        ("gpt2-distillm2", {"training": {"batch_size": 16}}, "training.batch_size", "16", "8"),
        ("gpt2-distillm", {"evaluation": {"seeds": [1, 2]}}, "evaluation.seeds", "1, 2", "10, 20, 30, 40, 50"),
        ("gpt2-distillm", {"evaluation": {"temperature": 1.0}}, "evaluation.temperature", "1", "0.7"),
    ],
)
def test_what_is_changed_differs_and_nothing_else(name, change, setting, here, paper):
    spec = paper_specs()[name]
    changed = {key: {**spec[key], **value} if isinstance(value, dict) else value for key, value in change.items()}
    spec = spec | changed
    if spec["alignment"]:
        spec["alignment"] = spec["alignment"] | {"dsa_reduction": "batch"}
    rows = [row for row in settings(reported(spec)) if row.verdict != "as in the paper"]
    assert [(row.name, row.here, row.paper, row.verdict) for row in rows] == [(setting, here, paper, "differs")]


def test_key_layers_data_and_sets_are_compared_too():
    report = reported(paper_specs()["gpt2-distillm-mta"])
    changed = dataclasses.replace(
        report,
        layer_pairs=(LayerPair(6, 24, "phrases"), *report.layer_pairs[1:]),
        data={"train": DataFacts(100, 0, 0)},
        evaluation=dataclasses.replace(report.evaluation, sets=report.evaluation.sets[:1]),
    )
    differing = [row.name for row in settings(changed) if row.verdict == "differs"]
    assert differing == ["alignment.dsa_reduction", "training set", "key layers", "evaluation sets"]


def test_models_of_ones_own_have_no_counterpart(report):
    found = {row.name: row for row in settings(report)}
    assert found["student.hub"].verdict == "differs"
    assert found["key layers"].verdict == found["training.learning_rate"].verdict == "the paper has no such case"
    assert found["alignment.lambda_dsa"].verdict == "as in the paper"


def test_what_differs_comes_first_and_untrained_models_have_no_settings(report):
    verdicts = [row.verdict for row in settings(report)]
    order = {"differs": 0, "the paper has no such case": 1, "as in the paper": 2}
    assert verdicts == sorted(verdicts, key=order.__getitem__)
    assert settings(dataclasses.replace(report, steps=0)) == ()
