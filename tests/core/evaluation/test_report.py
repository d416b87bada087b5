"""The report as data: it can be read back, and what is no report is refused."""

from __future__ import annotations

import importlib.metadata
import json
import math
import subprocess
import sys

import pytest

from mta_framework import InputError, LayerPair
from mta_framework.evaluation.environment import environment
from mta_framework.evaluation.report import (
    Report,
    ReportedData,
    ReportedEvaluation,
    ReportedModel,
    ReportedSet,
    ReportedSpans,
    SampleResponses,
    Score,
    read_report,
)
from mta_framework.reporting.report_files import write_report

LOG = (
    {"loss": 3.2, "kl": 3.0, "dsa": 0.1, "learning_rate": 1e-4, "grad_norm": 2.0, "epoch": 0.5, "step": 10},
    {"loss": 2.2, "kl": 2.0, "dsa": 0.1, "learning_rate": 5e-5, "grad_norm": 1.0, "epoch": 1.0, "step": 20},
    {"eval_loss": 2.5, "eval_kl": 2.3, "eval_dsa": 0.1, "epoch": 1.0, "step": 20},
    {"train_runtime": 9.0, "train_loss": 2.7, "total_flos": 0.0, "epoch": 1.0, "step": 20},
)
SPEC = {
    "name": "small",
    "seed": 42,
    "teacher": {"hub": "org/teacher", "revision": "v2", "path": None, "run": None},
    "student": {"hub": None, "path": None, "config": None, "teacher_layers": [1, 3]},
    "base_loss": {"name": "kl", "params": {}},
    "alignment": {
        "spans": {"name": "spacy_phrases"},
        "importance": {"name": "attention"},
        "terms": [{"name": "dsa", "weight": 2.0}, {"name": "hid", "weight": 0.2}],
    },
    "training": {"batch_size": 16},
}
SAMPLE = SampleResponses(
    "dolly", "What | is\n**this**?", "A <b>test</b>", {"student": "", "teacher": "line one\nline `two` | three"}
)
REPORT = Report(
    name="small",
    spec=SPEC,
    evaluation=ReportedEvaluation(
        seeds=(10, 20),
        scores=(
            Score("student", "dolly", "rouge_l", (20.0, 22.0), 21.0, 2**0.5),
            Score("teacher", "dolly", "rouge_l", (26.0, 27.0), 26.5, 0.5**0.5),
        ),
        sets=(ReportedSet("student", "dolly", 500, 3, 0.912), ReportedSet("teacher", "dolly", 500, 4, 1.0)),
        samples=(SAMPLE,),
    ),
    layer_pairs=(LayerPair(6, 24, "words"), LayerPair(12, 48, "phrases")),
    models={"student": ReportedModel(124_439_808, 124_439_808), "teacher": ReportedModel(1_557_611_200, 0)},
    data={"train": ReportedData(9568, 1867, 120)},
    spans={"phrases": ReportedSpans(19136, 9568, 7)},
    log=LOG,
    steps=20,
    seconds_per_step=0.4567,
    timings={"data": 12.3, "training": 9.1},
    versions={"python": "3.11.9", "device": "cpu"},
)


def test_report_is_read_back_as_it_was_written(tmp_path):
    write_report(tmp_path, REPORT)
    assert read_report(tmp_path) == REPORT


def test_numbers_that_json_does_not_know_become_null(tmp_path):
    log = ({"loss": 1.0, "grad_norm": math.inf, "step": 1}, {"loss": 1.0, "grad_norm": math.nan, "step": 2})
    write_report(tmp_path, Report("r", {}, log=log))

    def refuse(constant):
        raise AssertionError(constant)

    entries = json.loads((tmp_path / "report.json").read_text(), parse_constant=refuse)["log"]
    assert [entry["grad_norm"] for entry in entries] == [None, None]


def test_missing_report_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match=r"report.json: does not exist"):
        read_report(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"name": 3}', '{"name": "x", "spec": {}, "log": 1}'])
def test_damaged_report_is_an_input_error(tmp_path, content):
    (tmp_path / "report.json").write_text(content)
    with pytest.raises(InputError, match="is not a report"):
        read_report(tmp_path)


def test_damage_is_reported_in_one_line_with_its_place(tmp_path):
    (tmp_path / "report.json").write_text('{"name": "x", "spec": {}, "steps": "many"}')
    with pytest.raises(InputError) as caught:
        read_report(tmp_path)
    assert "is not a report (got steps: Input should be a valid integer" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_report_of_a_newer_version_is_refused(tmp_path):
    write_report(tmp_path, REPORT)
    path = tmp_path / "report.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2, "scores": {}}))
    with pytest.raises(InputError) as caught:
        read_report(tmp_path)
    assert str(caught.value) == (
        f"{path}: was written by a newer version of mta_framework (got format 2); expected format 1 or older. "
        "Use that version, or delete the file."
    )


def test_environment_names_what_can_change_a_number():
    versions = environment("cpu")
    assert {"python", "torch", "transformers", "mta-framework", "platform", "device", "threads"} <= set(versions)
    assert all(isinstance(value, str) and value for value in versions.values())


def test_environment_names_packages_of_plugins_that_are_installed():
    versions = environment("cpu", ["pluggy", "no-such-package"])
    assert versions["pluggy"] == importlib.metadata.version("pluggy")
    assert "no-such-package" not in versions


def test_environment_names_plugin_files_with_their_digests():
    versions = environment("cpu", plugin_files={"/home/someone/my_loss.py": "ab12", "/tmp/other.py": "cd34"})
    assert versions["plugin files"] == "my_loss.py (SHA-256 ab12), other.py (SHA-256 cd34)"
    assert "plugin files" not in environment("cpu", plugin_files={})


def test_reading_a_report_needs_no_torch():
    code = (
        "import sys, mta_framework.evaluation.report, mta_framework.evaluation.score_tables\n"
        "assert not {'torch', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
