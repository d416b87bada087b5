"""Validation outcomes and learning curves of a comparison, from logs that a test chooses."""

from __future__ import annotations

import csv
import io
import json
import statistics
from types import SimpleNamespace

import pytest
from scipy.stats import ttest_rel

from mta_framework.comparison.compare import compare
from mta_framework.comparison.outcome_tables import outcome_table, value_format
from mta_framework.comparison.renderings import comparison_json, curves_csv, outcomes_csv, runs_csv, terminal_lines
from mta_framework.errors import InputError
from mta_framework.evaluation.statistics import holm
from mta_framework.reporting.comparison_page import comparison_page
from mta_framework.types.log_entries import BestCheckpoint

from .conftest import DSA, MTA, write_report

SCORES = {"dolly": [[1.0, 2.0], [3.0, 4.0]]}
KL = [(2.9, 2.70), (3.0, 2.71), (2.8, 2.74)]
BOTH = [(2.8, 2.69), (3.1, 2.72), (2.7, 2.70)]


def log_of(values, name="kl", seconds=(), cross_entropy=0.5):
    """Validations at steps 10, 20, ...: ``values`` of ``name``, and a cross-entropy that lies so far above them."""
    entries = [{"loss": 5.0, "grad_norm": 1.0, "step": 10}]
    for index, value in enumerate(values):
        entry = {f"eval_{name}": value, "eval_loss": 9.0, "eval_dsa": 0.1, "eval_cross_entropy": value + cross_entropy}
        time = {"training_seconds": seconds[index]} if seconds else {}
        entries.append({**entry, **time, "epoch": 1.0, "step": 10 * (index + 1)})
    return (*entries, {"train_loss": 3.0, "step": 10 * len(values)})


@pytest.fixture
def row(make_run):
    """Writes the runs of one method, a seed for each list of validations."""

    def make(name, values, first_seed=1, best=None, log=None, **changes):
        logs = [log_of(of_run, **(log or {})) for of_run in values]
        return [
            make_run(
                SCORES,
                name=f"{name}{seed}",
                seed=seed,
                report={"log": entries, "steps": 20, "best": best},
                **changes,
            )
            for seed, entries in enumerate(logs, start=first_seed)
        ]

    return make


@pytest.fixture
def compared(row):
    return compare([*row("kl", KL), *row("mta", BOTH, alignment=MTA)])


def validated_only(folders):
    """The same runs without evaluation."""
    for folder in folders:
        report = json.loads((folder / "report.json").read_text())
        report["spec"]["evaluation"] = None
        write_report(folder, json.dumps({**report, "evaluation": None}))
    return folders


def test_runs_that_were_validated_alone_are_compared_by_their_validation_outcomes(row):
    folders = [*row("kl", KL), *row("mta", BOTH, alignment=MTA)]
    outcomes_with_scores = compare(folders).outcomes
    comparison = compare(validated_only(folders))
    assert (comparison.metrics, comparison.sets, comparison.contrasts) == ((), (), ())
    assert comparison.outcomes == outcomes_with_scores
    lines = "\n".join(terminal_lines(comparison, 100, styled=True))
    assert "validation kl" in lines
    assert "permutation" not in lines
    page = comparison_page(comparison)
    assert "Validation outcomes" in page
    assert "<h2>Scores</h2>" not in page


def test_validated_runs_beside_evaluated_ones_are_refused_by_the_sets_that_they_lack(row):
    folders = [*row("kl", KL), *validated_only(row("mta", BOTH, alignment=MTA))]
    with pytest.raises(InputError, match=r"evaluation\.sets\.dolly.*absent in mta1"):
        compare(folders)


def test_a_judge_is_refused_where_nothing_was_generated(row):
    folders = validated_only([*row("kl", KL), *row("mta", BOTH, alignment=MTA)])
    with pytest.raises(InputError, match="--judge: has no responses to compare"):
        compare(folders, judge=SimpleNamespace(NAME="judge"))


def named(comparison):
    return {outcome.label: outcome for outcome in comparison.outcomes}


def test_outcomes_are_cross_entropy_and_the_base_loss_after_the_last_step(compared):
    assert list(named(compared)) == ["validation cross_entropy", "validation kl"]
    outcome = named(compared)["validation kl"]
    assert outcome.values == {"KL": {1: 2.70, 2: 2.71, 3: 2.74}, "KL + MTA": {1: 2.69, 2: 2.72, 3: 2.70}}
    assert outcome.higher_is_better is False


def test_rows_are_compared_by_the_paired_t_test_over_their_seeds(compared):
    (contrast,) = named(compared)["validation kl"].contrasts
    exact = ttest_rel([2.69, 2.72, 2.70], [2.70, 2.71, 2.74])
    assert (contrast.row, contrast.baseline) == ("KL + MTA", "KL")
    assert contrast.difference == pytest.approx((-0.01 + 0.01 - 0.04) / 3)
    assert contrast.seeds.p == pytest.approx(exact.pvalue)
    assert contrast.seeds.interval == pytest.approx(tuple(exact.confidence_interval(0.95)))
    # Three pairs show 3.264 standard deviations of their differences (G*Power).
    assert contrast.seeds.smallest_effect == pytest.approx(3.264 * statistics.stdev([-0.01, 0.01, -0.04]), rel=1e-3)
    assert not contrast.significant


def test_probabilities_are_corrected_over_the_rows_of_an_outcome(row):
    rows = [*row("kl", KL), *row("mta", BOTH, alignment=MTA)]
    clear = [(2.5, 2.401), (2.5, 2.410), (2.5, 2.439)]
    comparison = compare([*rows, *row("dsa", clear, alignment={**MTA, "terms": [DSA]})])
    contrasts = named(comparison)["validation kl"].contrasts
    assert [entry.p_holm for entry in contrasts] == pytest.approx(holm([entry.seeds.p for entry in contrasts]))
    assert [entry.significant for entry in contrasts] == [False, True]


def test_rows_trained_once_have_a_difference_and_no_test(row):
    comparison = compare([*row("kl", KL[:1]), *row("mta", BOTH, alignment=MTA)])
    (contrast,) = named(comparison)["validation kl"].contrasts
    assert contrast.difference == pytest.approx(2.69 - 2.70)  # of the seed that both have
    assert (contrast.seeds, contrast.p_holm, contrast.significant) == (None, None, False)


def test_another_divergence_of_the_same_name_is_not_compared(row):
    reverse = row("reverse", BOTH, base_loss={"name": "kl", "params": {"reverse": True}})
    labels = [label for label in ("kl", "reverse", "mta") for _ in range(3)]
    comparison = compare([*row("kl", KL), *reverse, *row("mta", BOTH, alignment=MTA)], "kl", labels=labels)
    outcomes = {label: set(outcome.values) for label, outcome in named(comparison).items()}
    assert outcomes == {
        "validation cross_entropy": {"kl", "mta", "reverse"},
        "validation kl": {"kl", "mta"},  # that of "reverse" has no other row
    }


def test_a_divergence_from_another_teacher_is_an_outcome_of_its_own(row):
    tuned = {"teacher": {"hub": "tuned"}}
    pairs = [*row("kl", KL), *row("mta", BOTH, alignment=MTA)]
    pairs += [*row("tuned", BOTH, **tuned), *row("tuned-mta", KL, alignment=MTA, **tuned)]
    labels = [label for label in ("kl", "mta", "tuned kl", "tuned mta") for _ in range(3)]
    outcomes = named(compare(pairs, {"mta": "kl", "tuned mta": "tuned kl"}, labels=labels))
    assert list(outcomes["validation kl"].values) == ["kl", "mta"]
    assert list(outcomes["validation kl as of tuned kl"].values) == ["tuned kl", "tuned mta"]


def test_another_validation_set_is_not_compared(row):
    data = {"train": {"path": "train.jsonl"}, "validation": {"path": "other.jsonl"}, "template": "alpaca"}
    comparison = compare([*row("kl", KL), *row("mta", BOTH, alignment=MTA, data=data)], "KL")
    assert named(comparison) == {}


def test_other_training_data_and_span_settings_are_compared(row):
    data = {"train": {"path": "more.jsonl"}, "template": "alpaca", "parse": "fields"}
    assert len(named(compare([*row("kl", KL), *row("mta", BOTH, alignment=MTA, data=data)], "KL"))) == 2


def test_an_exported_student_has_its_outcome_beside_that_of_the_last_step(row):
    best = BestCheckpoint("loss", 10, 2.8, 20)
    outcomes = named(compare([*row("kl", KL), *row("mta", BOTH, alignment=MTA, best=best)]))
    assert outcomes["validation kl"].values["KL + MTA"] == {1: 2.69, 2: 2.72, 3: 2.70}
    exported = outcomes["validation kl of the exported student"]
    assert exported.values == {"KL": {1: 2.70, 2: 2.71, 3: 2.74}, "KL + MTA": {1: 2.8, 2: 3.1, 3: 2.7}}


def test_runs_without_validation_have_no_outcomes_and_no_notes(row, make_run):
    comparison = compare([make_run(SCORES)])
    assert (comparison.outcomes, comparison.outcome_notes, comparison.curves) == ((), (), ())


def test_students_of_other_sources_are_named_for_their_tokenizers(row):
    small = {"hub": "gpt2", "tokenizer": "elsewhere"}
    comparison = compare([*row("kl", KL), *row("mta", BOTH, alignment=MTA, student=small)], "KL")
    assert any("different sources in KL + MTA and KL" in note for note in comparison.outcome_notes)
    assert not any("sources" in note for note in compare(row("same", KL)).outcome_notes)


def test_no_test_is_shown_without_the_smallest_effect(compared):
    table = outcome_table(compared, named(compared)["validation kl"])
    assert table.caption == "validation kl (lower is better)"
    cells = dict(zip(table.header, table.cells[1], strict=True))
    effect = compared.outcomes[1].contrasts[0].seeds.smallest_effect
    assert cells["mean ± sd"].text == "2.7033 ± 0.0153"
    assert (cells["difference"].text, cells["smallest effect"].text) == ("−0.0133", f"{effect:.4f}")
    assert cells["test"].text == "3 pairs"
    shown = "\n".join(terminal_lines(compared, 160))
    assert "smallest effect" in shown
    assert "Smallest effect:" in shown


def test_a_table_of_single_runs_has_no_columns_for_tests(row):
    comparison = compare([*row("kl", KL[:1]), *row("mta", BOTH[:1], alignment=MTA)])
    assert outcome_table(comparison, comparison.outcomes[0]).header == ["", "mean ± sd", "seeds", "difference"]


def test_runs_that_share_no_set_are_compared_by_their_outcomes(row):
    folders = [*row("kl", KL), *row("mta", BOTH, alignment=MTA)]
    for folder in folders[3:]:
        report = json.loads((folder / "report.json").read_text())
        report["evaluation"]["sets"][0]["digest"] = "f" * 64
        write_report(folder, json.dumps(report))
    comparison = compare(folders, despite_differences=True)
    assert comparison.metrics == ()
    assert [contrast.row for contrast in named(comparison)["validation kl"].contrasts] == ["KL + MTA"]
    assert comparison.outcome_notes[-1].startswith("No scores: the runs have no set in common (got ")
    assert any(line.startswith("No scores: ") for line in terminal_lines(comparison, 1000))


@pytest.mark.parametrize(
    ("deviations", "text"), [((), "4.83"), ((0.0, 2.78), "4.83"), ((0.28, 0.15), "4.83"), ((0.0195, 2.78), "4.8304")]
)
def test_one_large_row_takes_no_digits_from_rows_that_differ_by_little(deviations, text):
    assert value_format([4.83041, 20.281], deviations)(4.83041) == text
    assert value_format([4.83041, 9.9])(4.83041) == "4.8304"


def test_files_hold_every_value_with_all_digits(compared):
    lines = list(csv.DictReader(io.StringIO(outcomes_csv(compared))))
    line = next(entry for entry in lines if (entry["outcome"], entry["row"]) == ("validation kl", "KL + MTA"))
    assert float(line["smallest_effect"]) == compared.outcomes[1].contrasts[0].seeds.smallest_effect
    assert float(line["mean"]) == pytest.approx((2.69 + 2.72 + 2.70) / 3)
    values = list(csv.DictReader(io.StringIO(curves_csv(compared))))
    assert {
        (entry["seed"], entry["step"]): float(entry["value"])
        for entry in values
        if (entry["quantity"], entry["row"]) == ("validation kl", "KL")
    } == {("1", "10"): 2.9, ("1", "20"): 2.7, ("2", "10"): 3.0, ("2", "20"): 2.71, ("3", "10"): 2.8, ("3", "20"): 2.74}
    assert b"smallest_effect" in comparison_json(compared)


def test_seconds_of_the_curves_are_named_as_the_means_over_runs_that_they_are(row):
    runs = row("kl", KL[:1], log={"seconds": (4.0, 8.0)}) + row("kl", KL[1:2], 2, log={"seconds": (6.0, 9.0)})
    lines = [
        line for line in csv.DictReader(io.StringIO(curves_csv(compare(runs)))) if line["quantity"] == "validation kl"
    ]
    assert {(line["seed"], line["step"], line["mean_seconds"]) for line in lines} == {
        (seed, step, seconds) for seed in ("1", "2") for step, seconds in (("10", "5.0"), ("20", "8.5"))
    }


def test_each_run_has_a_line_with_its_own_time_outcomes_and_scores(row):
    runs = row("kl", KL[:1], log={"seconds": (4.0, 8.0)}) + row("mta", BOTH[:2], alignment=MTA)
    lines = list(csv.DictReader(io.StringIO(runs_csv(compare(runs)))))
    assert [(line["row"], line["compared_with"], line["seed"], line["seconds"]) for line in lines] == [
        ("KL", "", "1", "8.0"),
        ("KL + MTA", "KL", "1", ""),
        ("KL + MTA", "KL", "2", ""),
    ]
    assert [float(line["validation kl"]) for line in lines] == [2.70, 2.69, 2.72]


def test_the_line_of_a_run_has_the_mean_of_its_scores_on_each_set_and_on_average(make_run):
    scores = {"dolly": [[1.0, 2.0], [3.0, 4.0]], "vicuna": [[10.0, 20.0], [30.0, 0.0]]}
    (line,) = csv.DictReader(io.StringIO(runs_csv(compare([make_run(scores)]))))
    means = [float(line[f"rouge_l {name}"]) for name in ("dolly", "vicuna", "average")]
    assert means == pytest.approx([2.5, 15.0, 8.75])


class TestCurves:
    def test_hold_the_steps_that_all_runs_of_a_row_have(self, row):
        comparison = compare(row("kl", [(2.9, 2.8, 2.7), (3.0, 2.9)]))
        (curve,) = (curves.rows["KL"] for curves in comparison.curves if curves.name == "kl")
        assert curve.steps == (10, 20)
        assert curve.values == {1: (2.9, 2.8), 2: (3.0, 2.9)}

    def test_that_end_with_the_shortest_run_are_said_to_do_so(self, make_run):
        def notes(*steps):
            runs = [
                make_run(SCORES, name=f"run{seed}", seed=seed, report={"log": log_of((2.0, 1.0)), "steps": count})
                for seed, count in enumerate(steps)
            ]
            return " ".join(compare(runs).outcome_notes)

        said = "The learning curves of KL end at step 30, with its shortest run (the longest has 1,000)."
        assert said in notes(30, 1000, 500)
        assert "learning curves" not in notes(30, 30)

    def test_are_of_the_outcomes_then_of_loss_and_gradient(self, compared):
        names = [(curves.name, curves.validation) for curves in compared.curves]
        assert names == [("cross-entropy", True), ("kl", True), ("loss", False), ("grad-norm", False)]

    def test_have_the_mean_training_time_of_the_runs(self, row):
        runs = row("kl", KL[:1], log={"seconds": (4.0, 8.0)}) + row("kl", KL[1:2], 2, log={"seconds": (6.0, 9.0)})
        (curves, *_) = compare(runs).curves
        assert (curves.rows["KL"].seconds, curves.time) == ((5.0, 8.5), "processor time")

    def test_have_no_time_where_a_run_logged_none(self, row):
        runs = row("kl", KL[:1], log={"seconds": (4.0, 8.0)}) + row("kl", KL[1:2], 2)
        assert compare(runs).curves[0].rows["KL"].seconds is None

    def test_of_runs_on_a_cpu_and_on_a_gpu_have_no_common_time(self, make_run):
        runs = [
            make_run(
                SCORES,
                name=f"run{seed}",
                seed=seed,
                report={"log": log_of((2.0, 1.0), seconds=(1.0, 2.0)), "versions": {"device": device}},
            )
            for seed, device in enumerate(("cpu (x86_64)", "NVIDIA H100 (CUDA 12.8)"))
        ]
        (curves, *_) = compare(runs).curves
        assert (curves.rows["KL"].seconds, curves.time) == (None, "")
