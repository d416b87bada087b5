"""Only runs whose predictions are what their report was made from are compared."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from mta_framework.comparison.comparability import Common
from mta_framework.comparison.finished_runs import find_runs, flat, left_out, read_run
from mta_framework.comparison.scores import pooled
from mta_framework.errors import InputError
from mta_framework.evaluation.predictions import Key, read_rows, write_predictions
from mta_framework.evaluation.statistics import PromptScores

from .conftest import ROUGE, write_report

SCORES = {"dolly": [[1.0, 2.0, 6.0], [3.0, 4.0, 8.0]]}


def faults_of(action):
    with pytest.raises(InputError) as caught:
        action()
    return [str(fault) for fault in caught.value.faults]


def test_scores_are_seeds_by_prompts(make_run):
    run = read_run(make_run(SCORES))
    scores = run.scores("student", "dolly", run.evaluation.metrics)["rouge_l"]
    np.testing.assert_array_equal(scores.scores_SP, SCORES["dolly"])
    assert scores.weights_SP is None


def test_a_folder_of_runs_stands_for_the_finished_ones_in_it(make_run, tmp_path):
    first, second = make_run(SCORES, name="a"), make_run(SCORES, name="b")
    (tmp_path / "runs" / "c").mkdir()
    assert find_runs([tmp_path / "runs", second]) == [first, second]


def test_runs_that_evaluated_nothing_are_passed_over_in_a_folder_of_runs(make_run, tmp_path):
    student, teacher = make_run(SCORES, name="student"), make_run(SCORES, name="teacher")
    without_evaluation(teacher)
    assert find_runs([tmp_path / "runs"]) == [student]
    assert find_runs([teacher]) == [teacher]


def test_runs_that_were_only_validated_are_meant_where_none_was_evaluated(make_run, tmp_path):
    log = ({"eval_kl": 2.0, "step": 10},)
    folders = [make_run(SCORES, name=name, report={"log": log, "steps": 10}) for name in ("a", "b")]
    without_evaluation(folders[0])
    assert find_runs([tmp_path / "runs"]) == [folders[1]]
    without_evaluation(folders[1])
    assert find_runs([tmp_path / "runs"]) == folders
    assert read_run(folders[0]).models == ("student",)


def test_all_paths_without_a_finished_run_are_reported_at_once(tmp_path):
    (tmp_path / "empty").mkdir()
    faults = faults_of(lambda: find_runs([tmp_path / "empty", tmp_path / "nowhere"]))
    assert ["holds none" in faults[0], "does not exist" in faults[1]] == [True, True]


def test_missing_predictions_are_named_for_all_seeds_at_once(make_run):
    folder = make_run(SCORES)
    for file in (folder / "predictions").rglob("*.jsonl"):
        file.unlink()
    run = read_run(folder)
    faults = faults_of(lambda: run.scores("student", "dolly", run.evaluation.metrics))
    assert len(faults) == 2
    assert "dolly-seed10.jsonl" in faults[0]


def without_evaluation(folder: Path) -> None:
    """The report of a run that evaluated nothing."""
    report = json.loads((folder / "report.json").read_text())
    write_report(folder, json.dumps({**report, "evaluation": None}))


def rewritten(folder: Path, change) -> None:
    """Predictions that were exchanged together with the key that vouches for them."""
    path = folder / "predictions" / "student" / "dolly-seed10.jsonl"
    write_predictions(path, change(read_rows(path)), Key("r", "s"))


def test_rows_that_are_missing_are_noticed(make_run):
    folder = make_run(SCORES)
    rewritten(folder, lambda rows: rows[:2])
    faults = faults_of(lambda: read_run(folder).rows("student", "dolly", 10))
    assert "got 2 rows" in faults[0]
    assert "3 rows" in faults[0]


def test_scores_that_were_edited_are_noticed(make_run):
    folder = make_run(SCORES)

    def flattered(rows):
        rows[0].scores["rouge_l"] = 99.0
        return rows

    rewritten(folder, flattered)
    faults = faults_of(lambda: read_run(folder).rows("student", "dolly", 10))
    assert "was changed after the report" in faults[0]


@pytest.mark.parametrize("value", [None, float("nan")])
def test_scores_that_are_no_numbers_are_noticed(make_run, value):
    folder = make_run(SCORES)

    def damaged(rows):
        rows[0].scores.clear()
        rows[0].scores.update({} if value is None else {"rouge_l": value})
        return rows

    rewritten(folder, damaged)
    assert "lacks scores" in faults_of(lambda: read_run(folder).rows("student", "dolly", 10))[0]


def test_texts_that_were_edited_are_noticed(make_run):
    folder = make_run(SCORES)
    path = folder / "predictions" / "student" / "dolly-seed10.jsonl"
    path.write_text(path.read_text().replace("student answers", "student shouts"))
    assert str(path) in faults_of(lambda: read_run(folder).rows("student", "dolly", 10))[0]


def test_a_run_without_its_manifest_is_refused_since_its_report_may_have_been_edited(make_run):
    folder = make_run(SCORES)
    (folder / "files.json").unlink()
    (fault,) = faults_of(lambda: read_run(folder))
    assert fault.startswith(
        f"{folder / 'files.json'}: is missing; expected the file as the run wrote it, with the digest"
    )
    assert fault.endswith("Put it back; or evaluate again, or resume the run, which says what to delete.")


def test_a_run_whose_manifest_does_not_list_the_report_is_refused(make_run):
    folder = make_run(SCORES)
    (folder / "files.json").write_text("{}")
    (fault,) = faults_of(lambda: read_run(folder))
    assert fault.startswith(f"{folder / 'files.json'}: does not list report.json; expected ")


def test_a_run_without_evaluation_is_refused(make_run):
    folder = make_run(SCORES)
    without_evaluation(folder)
    assert "evaluated nothing" in faults_of(lambda: read_run(folder))[0]


def test_a_report_without_the_scores_of_a_seed_is_refused(make_run):
    folder = make_run(SCORES)
    report = json.loads((folder / "report.json").read_text())
    report["evaluation"]["seeds"].append(30)
    write_report(folder, json.dumps(report))
    assert "contradicts itself" in faults_of(lambda: read_run(folder))[0]


def test_flat_names_every_field_and_keeps_lists_whole():
    assert flat({"a": {"b": 1, "c": [2, {"d": 3}]}, "e": {}, "f": None}) == {
        "a.b": 1,
        "a.c": [2, {"d": 3}],
        "e": {},
        "f": None,
    }


def test_a_run_that_evaluated_its_teacher_alone_is_refused(make_run):
    folder = make_run({"teacher": SCORES})
    assert "did not evaluate its student (got teacher)" in faults_of(lambda: read_run(folder))[0]


def test_questions_that_the_report_was_not_made_from_are_noticed(make_run):
    folder = make_run(SCORES)
    rewritten(folder, lambda rows: [dataclasses.replace(row, question="another") for row in rows])
    assert "questions and references" in faults_of(lambda: read_run(folder).rows("student", "dolly", 10))[0]


@pytest.mark.parametrize(
    ("name", "value"),
    [("base_loss", None), ("base_loss", {}), ("alignment", "mta"), ("evaluation", [1]), ("data", 3), ("seed", [1])],
)
def test_a_spec_that_was_edited_into_none_is_refused(make_run, name, value):
    folder = make_run(SCORES)
    report = json.loads((folder / "report.json").read_text())
    report["spec"][name] = value
    write_report(folder, json.dumps(report))
    assert f"holds no spec of a run (got {name} " in faults_of(lambda: read_run(folder))[0]


def test_a_report_of_endless_brackets_is_none(make_run):
    folder = make_run(SCORES)
    write_report(folder, "[" * 100_000)
    assert "is not a report" in faults_of(lambda: read_run(folder))[0]


def test_runs_of_a_folder_that_are_not_compared_are_named(make_run, tmp_path):
    runs = tmp_path / "runs"
    first, validated = make_run(SCORES, name="a"), make_run(SCORES, name="validated")
    without_evaluation(validated)
    for folder in (runs / "b", first, validated):
        folder.mkdir(exist_ok=True)
        (folder / "spec.json").write_text("{}")
    assert find_runs([runs]) == [first]
    assert [*left_out([runs], [first])] == [
        f"Not finished, so left out: b (in {runs}).",
        f"Not evaluated, so left out: validated (in {runs}).",
    ]
    assert [*left_out([first], [first])] == []


def test_runs_of_a_row_of_which_some_have_no_weights_are_pooled_with_weights_of_one():
    weighted = PromptScores(np.array([[2.0, 4.0]]), np.array([[1.0, 3.0]]))
    plain = PromptScores(np.array([[6.0, 8.0]]))
    (both,) = pooled({("rouge_l", "a"): [plain, weighted]}, ROUGE, "a", Common((ROUGE,), ("a",), ()))
    assert both.scores_SP.tolist() == [[6.0, 8.0], [2.0, 4.0]]
    assert both.weights_SP.tolist() == [[1.0, 1.0], [1.0, 3.0]]
    (neither,) = pooled({("rouge_l", "a"): [plain, plain]}, ROUGE, "a", Common((ROUGE,), ("a",), ()))
    assert neither.weights_SP is None
