"""The report: what it says, and that it can be read back."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys

import pytest

from mta_framework import InputError, LayerPair
from mta_framework.evaluation.environment import environment
from mta_framework.evaluation.report import (
    DataFacts,
    EvaluationFacts,
    ModelFacts,
    Report,
    SampleResponses,
    Score,
    SetFacts,
    SpanFacts,
    read_report,
)
from mta_framework.reporting.curves import loss_curves, points, terms
from mta_framework.reporting.writing import write_report

LOG = (
    {"loss": 3.2, "kl": 3.0, "dsa": 0.1, "learning_rate": 1e-4, "grad_norm": 2.0, "epoch": 0.5, "step": 10},
    {"loss": 2.2, "kl": 2.0, "dsa": 0.1, "learning_rate": 5e-5, "grad_norm": 1.0, "epoch": 1.0, "step": 20},
    {"eval_loss": 2.5, "eval_kl": 2.3, "eval_dsa": 0.1, "eval_runtime": 1.0, "epoch": 1.0, "step": 20},
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
        "lambda_dsa": 2.0,
        "lambda_hid": 0.2,
    },
    "training": {"batch_size": 16},
}
SAMPLE = SampleResponses(
    "dolly", "What | is\n**this**?", "A <b>test</b>", {"student": "", "teacher": "line one\nline `two` | three"}
)
REPORT = Report(
    name="small",
    spec=SPEC,
    evaluation=EvaluationFacts(
        seeds=(10, 20),
        scores=(
            Score("student", "dolly", "rouge_l", (20.0, 22.0), 21.0, 2**0.5),
            Score("teacher", "dolly", "rouge_l", (26.0, 27.0), 26.5, 0.5**0.5),
        ),
        sets=(SetFacts("student", "dolly", 500, 3, 0.912), SetFacts("teacher", "dolly", 500, 4, 1.0)),
        samples=(SAMPLE,),
    ),
    layer_pairs=(LayerPair(6, 24, "words"), LayerPair(12, 48, "phrases")),
    models={"student": ModelFacts(124_439_808, 124_439_808), "teacher": ModelFacts(1_557_611_200, 0)},
    data={"train": DataFacts(9568, 1867, 120)},
    spans={"phrases": SpanFacts(19136, 9568, 7)},
    log=LOG,
    steps=20,
    seconds_per_step=0.4567,
    timings={"data": 12.3, "training": 9.1},
    versions={"python": "3.11.9", "device": "cpu"},
)


@pytest.fixture
def page(tmp_path):
    write_report(tmp_path, REPORT)
    return (tmp_path / "report.md").read_text(encoding="utf-8")


def test_report_is_read_back_as_it_was_written(tmp_path):
    write_report(tmp_path, REPORT)
    assert read_report(tmp_path) == REPORT
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loss.png", "report.json", "report.md"]


def test_report_of_a_run_that_did_little_is_written_too(tmp_path):
    write_report(tmp_path, Report("bare", {"name": "bare"}))
    assert read_report(tmp_path) == Report("bare", {"name": "bare"})
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "evaluated nothing" in page
    assert "loss.png" not in page
    assert not (tmp_path / "loss.png").exists()


def test_image_of_an_earlier_report_does_not_stay(tmp_path):
    write_report(tmp_path, REPORT)
    write_report(tmp_path, dataclasses.replace(REPORT, log=()))
    assert not (tmp_path / "loss.png").exists()


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


def test_damage_is_told_in_one_line_with_its_place(tmp_path):
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
        f"{path}: was written by a newer version of mta_framework (got format 2); format 1 or older. "
        "Read it with that version."
    )


def test_scores_come_first_with_seeds_counts_and_cuts(page):
    assert page.startswith("# small\n\n## Scores\n\n**rouge_l**\n\n| model | dolly |")
    assert "| student | 21.00 ± 1.41 |\n| teacher | 26.50 ± 0.71 |" in page
    assert "mean ± standard deviation over 2 sampling seeds (10, 20)" in page
    assert "| dolly, student | 500 | 3 | 91% |" in page


def test_single_seed_is_admitted(tmp_path):
    scores = (Score("student", "dolly", "rouge_l", (20.0,), 20.0, None),)
    facts = dataclasses.replace(REPORT.evaluation, seeds=(10,), scores=scores)
    write_report(tmp_path, dataclasses.replace(REPORT, evaluation=facts))
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| student | 20.00 |" in page
    assert "A single sampling seed (10)" in page


def test_page_says_what_was_trained_on_what(page):
    assert "trained for 20 steps of 16 texts with the base loss `kl` and MTA" in page
    assert "6→24 (words), 12→48 (phrases)" in page
    assert "| teacher | org/teacher at v2 | 1,557,611,200 | 0 |" in page
    assert "| student | layers 1, 3 of the teacher | 124,439,808 | 124,439,808 |" in page
    assert "| train | 9,568 | 1,867 | 120 |" in page
    assert "| phrases | 19,136 | 2.0 | 7 of 9,568 |" in page
    assert "| training | 9.1 |" in page
    assert "0.457 s per step" in page
    assert "| python | 3.11.9 |" in page
    assert 'from_pretrained("student")' in page
    assert json.dumps(SPEC, indent=2) in page


def test_page_says_how_many_spans_were_compared_where_that_is_limited(page, tmp_path):
    assert "heaviest" not in page
    limited = {**SPEC, "alignment": {**SPEC["alignment"], "max_spans": 1200}}
    write_report(tmp_path, dataclasses.replace(REPORT, spec=limited))
    assert "λ_DSA 2 over the 1,200 heaviest spans of a text, λ_Hid 0.2;" in (tmp_path / "report.md").read_text()


def test_foreign_text_cannot_break_the_table_of_samples(page):
    row = next(line for line in page.splitlines() if "line one" in line)
    assert row.count("|") == 4
    assert row.split("|")[2].strip() == "*(empty)*"
    assert "A &#60;b&#62;test&#60;/b&#62;" in row
    assert "line one<br>line &#96;two&#96; &#124; three" in row
    assert "What &#124; is<br>&#42;&#42;this&#42;&#42;?" in page


def test_terms_of_the_loss_are_found_in_the_log():
    assert terms(LOG) == ["kl", "dsa"]
    assert points(LOG, "kl") == ([10, 20], [3.0, 2.0])
    assert points(LOG, "eval_loss") == ([20], [2.5])
    assert points(({"loss": math.nan, "step": 1}, {"loss": None, "step": 2}), "loss") == ([], [])


@pytest.mark.parametrize("log", [LOG, LOG[:1], LOG[:2], ({"loss": 1.0, "kl": 1.0, "step": 1},)])
def test_any_log_with_a_loss_gives_an_image(log):
    image = loss_curves(log)
    assert image is not None
    assert image.startswith(b"\x89PNG")


@pytest.mark.parametrize("log", [(), LOG[2:], ({"loss": math.nan, "step": 1},)])
def test_log_without_a_loss_gives_no_image(log):
    assert loss_curves(log) is None


def test_environment_names_what_can_change_a_number():
    found = environment("cpu")
    assert {"python", "torch", "transformers", "mta-framework", "platform", "device", "threads"} <= set(found)
    assert all(isinstance(value, str) and value for value in found.values())


def test_reading_a_report_needs_no_torch():
    code = (
        "import sys, mta_framework.evaluation.report, mta_framework.evaluation.tables\n"
        "assert not {'torch', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
