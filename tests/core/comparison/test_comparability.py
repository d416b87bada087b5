"""Runs that were evaluated differently are compared on request alone, and only on what they share."""

from __future__ import annotations

import json

import pytest

from mta_framework.comparison.comparability import common
from mta_framework.comparison.compare import compare
from mta_framework.comparison.finished_runs import read_run
from mta_framework.errors import InputError
from mta_framework.evaluation.report import ReportedMetric

from .conftest import PERPLEXITY, ROUGE, write_report

ONE = {"dolly": [[1.0, 2.0], [3.0, 4.0]]}
TWO = {**ONE, "vicuna": [[5.0], [6.0]]}


def faults_of(runs, **options):
    with pytest.raises(InputError) as caught:
        common(runs, **options)
    return {fault.where: str(fault) for fault in caught.value.faults}


def test_runs_that_differ_in_training_alone_share_everything(make_run):
    runs = [read_run(make_run(TWO)), read_run(make_run(TWO, name="b", training__epochs=5, seed=7))]
    shared = common(runs)
    assert (shared.sets, [metric.label for metric in shared.metrics], shared.differences) == (
        ("dolly", "vicuna"),
        ["rouge_l"],
        (),
    )


def test_all_differences_are_reported_at_once_with_the_runs(make_run):
    first = ReportedMetric("rouge_l", score_config={"references": "first"})
    other = make_run(
        ONE,
        (first,),
        seeds=(10, 30),
        name="b",
        evaluation__temperature=1.0,
        data__template="chat",
    )
    faults = faults_of([read_run(make_run(TWO)), read_run(other)])
    assert set(faults) == {
        "template",
        "evaluation.seeds",
        "evaluation.temperature",
        "evaluation.sets.vicuna",
        "evaluation.metrics.rouge_l",
    }
    assert "0.7 in kl; 1.0 in b" in faults["evaluation.temperature"]
    assert "--despite-differences" in faults["evaluation.seeds"]
    assert "absent in b" in faults["evaluation.sets.vicuna"]


def with_other_rows(folder, name):
    """The report of rows that are called the same and are not."""
    report = json.loads((folder / "report.json").read_text())
    for entry in report["evaluation"]["sets"]:
        if entry["set"] == name:
            entry["digest"] = "f" * 64
    write_report(folder, json.dumps(report))
    return folder


def test_sets_of_one_name_and_other_rows_are_not_the_same(make_run):
    runs = [read_run(make_run(TWO)), read_run(with_other_rows(make_run(TWO, name="b"), "vicuna"))]
    assert set(faults_of(runs)) == {"evaluation.sets.vicuna"}


def test_a_set_that_was_rendered_otherwise_was_asked_otherwise(make_run):
    folders = [make_run(TWO), make_run(TWO, name="b")]
    report = json.loads((folders[1] / "report.json").read_text())
    for entry in report["evaluation"]["sets"]:
        if entry["set"] == "dolly":
            entry["prompts_digest"] = "f" * 64
    write_report(folders[1], json.dumps(report))
    runs = [read_run(folder) for folder in folders]
    (message,) = faults_of(runs).values()
    assert message.startswith("rendered prompts of dolly: differs between the runs")
    assert f"digest {'f' * 12} in b" in message
    assert common(runs, despite_differences=True).sets == ("dolly", "vicuna")


def test_a_metric_with_other_options_is_another_metric(make_run):
    first = ReportedMetric("rouge_l", score_config={"references": "first"})
    runs = [read_run(make_run(ONE, (ROUGE, PERPLEXITY))), read_run(make_run(ONE, (first, PERPLEXITY), name="b"))]
    shared = common(runs, despite_differences=True)
    assert [metric.label for metric in shared.metrics] == ["perplexity"]
    assert shared.left_out == {"evaluation.metrics.rouge_l"}


def test_what_a_metric_cost_makes_no_difference(make_run):
    expensive = ReportedMetric("rouge_l", usage={"requests": 9.0})
    assert common([read_run(make_run(ONE)), read_run(make_run(ONE, (expensive,), name="b"))]).differences == ()


def test_despite_differences_what_is_shared_is_compared(make_run):
    other = with_other_rows(make_run(TWO, metrics=(ROUGE, PERPLEXITY), name="b", evaluation__top_p=0.9), "vicuna")
    shared = common([read_run(make_run(TWO)), read_run(other)], despite_differences=True)
    assert shared.sets == ("dolly",)
    assert [metric.label for metric in shared.metrics] == ["rouge_l"]
    left_out = {"evaluation.sets.vicuna", "evaluation.metrics.perplexity"}
    assert {entry.where for entry in shared.differences} == {"evaluation.top_p", *left_out}
    assert shared.left_out == left_out


def test_runs_that_share_no_set_or_no_metric_are_refused_where_they_share_no_outcome(make_run):
    first, other = make_run(ONE), with_other_rows(make_run(ONE, name="b", seed=2), "dolly")
    with pytest.raises(InputError, match=r"^evaluation\.sets: the runs have no set in common"):
        compare([first, other], despite_differences=True)
    with pytest.raises(InputError, match=r"^evaluation\.metrics: the runs have no metric in common"):
        compare([first, make_run(ONE, metrics=(PERPLEXITY,), name="c", seed=3)], despite_differences=True)


def test_texts_with_and_without_reasoning_are_scored_otherwise(make_run):
    runs = [read_run(make_run(ONE)), read_run(make_run(ONE, name="b", evaluation__strip_reasoning=False))]
    assert set(faults_of(runs)) == {"evaluation.strip_reasoning"}


def test_a_metric_that_is_not_there_is_named_with_those_that_are(make_run):
    with pytest.raises(
        InputError, match=r"'rouge'; expected one of the metrics of all runs: rouge_l.*Did you mean 'rouge_l'"
    ):
        common([read_run(make_run(ONE))], labels=["rouge"])


def test_one_metric_can_be_chosen(make_run):
    shared = common([read_run(make_run(ONE, metrics=(ROUGE, PERPLEXITY)))], labels=["perplexity"])
    assert [metric.label for metric in shared.metrics] == ["perplexity"]


def test_many_runs_are_counted_rather_than_listed(make_run):
    runs = [read_run(make_run(ONE, name=f"run{index}")) for index in range(5)]
    runs.append(read_run(make_run(ONE, name="other", evaluation__max_new_tokens=9)))
    assert "512 in run0, run1, run2 and 2 more; 9 in other" in faults_of(runs)["evaluation.max_new_tokens"]


def test_runs_of_one_name_are_distinguished_by_their_folders(make_run):
    first, second = make_run(ONE, folder="a/kl"), make_run(ONE, folder="b/kl", evaluation__temperature=1.0)
    fault = faults_of([read_run(first), read_run(second)])["evaluation.temperature"]
    assert f"0.7 in {first}; 1.0 in {second}" in fault
