"""``examples/paper/check.py``: no differences for the paper's own runs, and every one for others."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import sys
from pathlib import Path

import pytest

from mta_framework import LayerPair
from mta_framework.evaluation.report import Report, ReportedData, ReportedEvaluation, ReportedSet, report_json
from mta_framework.spec.run import RunSpec

EXAMPLE = Path(__file__).parents[2] / "examples" / "paper"
SETS = {"dolly": 500, "self_inst": 242, "vicuna": 80, "sni": 1694}


@pytest.fixture(scope="module")
def check():
    """The script as a module."""
    description = importlib.util.spec_from_file_location("paper_check", EXAMPLE / "check.py")
    module = importlib.util.module_from_spec(description)
    sys.modules["paper_check"] = module
    description.loader.exec_module(module)
    return module


def terms(dsa, hid, **options):
    """The terms of the paper, with options of DSA."""
    return [
        {"name": "dsa", "weight": dsa, "params": {"reduction": "batch", **options}},
        {"name": "hid", "weight": hid, "params": {"reduction": "mean"}},
    ]


def paper_specs():
    """The specs of the paper's students, resolved, as the examples have them."""
    documents = {path.stem: json.loads(path.read_text()) for path in EXAMPLE.glob("*.json")}
    runs = {name: spec for name, spec in documents.items() if "teacher" in spec}
    return {name: RunSpec(**spec).model_dump(mode="json") for name, spec in runs.items()}


def reported(spec):
    pairs = (spec["alignment"] or {}).get("layers", {}).get("params", {}).get("pairs", [])
    sets = tuple(ReportedSet("student", name, count, 0, 1.0) for name, count in SETS.items())
    return Report(
        spec["name"],
        spec,
        ReportedEvaluation((10,), (), sets, ()),
        layer_pairs=tuple(LayerPair(**pair) for pair in pairs),
        data={"train": ReportedData(11435, 0, 0, cut_prompts=1867)},
        steps=1,
    )


@pytest.mark.parametrize("name", list(paper_specs()))
def test_run_of_the_paper_differs_in_nothing(check, name):
    settings = check.settings(reported(paper_specs()[name]))
    differing = [row.name for row in settings if row.verdict != "as in the paper"]
    assert differing == []
    assert len(settings) > 20


@pytest.mark.parametrize(
    ("name", "change", "setting", "here", "paper"),
    [
        ("gpt2-distillm-mta", {"seed": 1}, "seed", "1", "42"),
        ("gpt2-distillm-mta", {"training": {"learning_rate": 0.004}}, "training.learning_rate", "0.004", "0.0001"),
        ("qwen-distillm2-mta", {"training": {"learning_rate": 1e-4}}, "training.learning_rate", "0.0001", "5e-05"),
        ("opt-fdd-mta", {"alignment": {"terms": terms(2.0, 0.3)}}, "alignment.terms.0.weight", "2", "3"),
        (
            "gpt2-fdd-mta",
            {"alignment": {"terms": terms(2.0, 0.2, max_spans=99)}},
            "alignment.terms.0.params.max_spans",
            "99",
            "all",
        ),
        ("gpt2-distillm2", {"training": {"batch_size": 16}}, "training.batch_size", "16", "8"),
        ("gpt2-distillm", {"evaluation": {"seeds": [1, 2]}}, "evaluation.seeds", "1, 2", "10, 20, 30, 40, 50"),
        ("gpt2-distillm", {"evaluation": {"temperature": 1.0}}, "evaluation.temperature", "1", "0.7"),
    ],
)
def test_what_is_changed_differs_and_nothing_else(check, name, change, setting, here, paper):
    spec = paper_specs()[name]
    changed = {key: {**spec[key], **value} if isinstance(value, dict) else value for key, value in change.items()}
    spec = spec | changed
    rows = [row for row in check.settings(reported(spec)) if row.verdict != "as in the paper"]
    assert [(row.name, row.here, row.paper, row.verdict) for row in rows] == [(setting, here, paper, "differs")]


def test_key_layers_data_and_sets_are_compared_too(check):
    report = reported(paper_specs()["gpt2-distillm-mta"])
    changed = dataclasses.replace(
        report,
        layer_pairs=(LayerPair(6, 24, "phrases"), *report.layer_pairs[1:]),
        data={"train": ReportedData(100, 0, 0)},
        evaluation=dataclasses.replace(report.evaluation, sets=report.evaluation.sets[:1]),
    )
    differing = [row.name for row in check.settings(changed) if row.verdict == "differs"]
    assert differing == ["training set", "key layers", "evaluation sets"]


def test_rows_that_are_left_out_and_the_curriculum_are_named_as_differences(check):
    spec = paper_specs()["gpt2-distillm2-mta"]
    spec["data"]["long_prompts"] = "leave_out"
    spec["base_loss"]["params"]["curriculum"] = True
    report = dataclasses.replace(reported(spec), data={"train": ReportedData(9568, 1867, 0)})
    differing = {row.name: row.here for row in check.settings(report) if row.verdict == "differs"}
    assert differing == {
        "data.long_prompts": "leave_out",
        "base_loss.params.curriculum": "true",
        "training set": "9,568 rows used, 1,867 left out, 0 with a cut prompt",
    }


def test_models_of_ones_own_have_no_counterpart(check):
    spec = {
        "seed": 42,
        "student": {"hub": None},
        "base_loss": {"name": "kl", "params": {}},
        "alignment": {"terms": terms(2.0, 0.2)},
        "training": {"learning_rate": 1e-4},
    }
    report = Report("small", spec, layer_pairs=(LayerPair(6, 24, "words"),), steps=1)
    rows = {row.name: row for row in check.settings(report)}
    assert rows["student.hub"].verdict == "differs"
    assert rows["key layers"].verdict == rows["training.learning_rate"].verdict == "the paper has no such case"
    assert rows["alignment.terms.0.weight"].verdict == "as in the paper"
    verdicts = [row.verdict for row in rows.values()]
    order = {"differs": 0, "the paper has no such case": 1, "as in the paper": 2}
    assert verdicts == sorted(verdicts, key=order.__getitem__)


def test_script_reads_a_run_folder(check, tmp_path, capsys):
    spec = paper_specs()["gpt2-distillm"]
    (tmp_path / "report.json").write_bytes(report_json(reported(spec | {"seed": 1})))
    assert check.main(tmp_path) == 1
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "seed: differs (here: 1; paper: 42)"
    assert shown[1].endswith("settings are as in the paper.")
    assert [line.split(":")[0] for line in shown[2:]] == ["Differs in every run"] * 2


def test_script_reads_a_spec(check, capsys):
    assert check.main(EXAMPLE / "gpt2-distillm.json") == 0
    assert check.main(EXAMPLE / "gpt2-distillm-mta.json") == 0
    assert "settings are as in the paper" in capsys.readouterr().out


def test_script_refuses_what_is_no_training_run(check, tmp_path, capsys):
    assert check.main(tmp_path / "missing.json") == 2
    (tmp_path / "report.json").write_bytes(report_json(Report("evaluation", {"name": "evaluation"})))
    assert check.main(tmp_path) == 2
    assert "is no training run" in capsys.readouterr().err


def test_terms_are_compared_by_name_whatever_their_order(check):
    spec = paper_specs()["gpt2-distillm-mta"]
    dsa, hid = spec["alignment"]["terms"]

    def differing(*terms):
        rows = check.settings(reported({**spec, "alignment": {**spec["alignment"], "terms": list(terms)}}))
        return [(row.name, row.here) for row in rows if row.verdict == "differs"]

    assert differing(hid, dsa) == []
    assert differing(dsa, {"name": "cka", "weight": 5.0, "params": {}}, hid) == [("alignment terms", "dsa, hid, cka")]
    assert differing(dsa) == [("alignment terms", "dsa")]
