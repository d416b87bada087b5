"""The page for terminals: what it says."""

from __future__ import annotations

import dataclasses

import pytest

from mta_framework.evaluation.report import Report, SampleResponses, Score
from mta_framework.reporting.markdown_report import report_markdown
from mta_framework.types.log_entries import BestCheckpoint


@pytest.fixture
def page(report):
    return report_markdown(report)


@pytest.mark.parametrize(
    ("planned", "patience", "end"),
    [
        (6, None, "in validation (12.35)."),
        (9, 1, "Training stopped before the 9 planned steps: one validation brought no better."),
        (9, 3, "Training stopped before the 9 planned steps: 3 validations in a row brought no better."),
    ],
)
def test_page_says_which_checkpoint_was_chosen_and_why_training_ended(planned, patience, end, report):
    spec = {**report.spec, "training": {**report.spec["training"], "early_stopping_patience": patience}}
    best = BestCheckpoint("rouge_l", 4, 12.3456, planned)
    lines = report_markdown(dataclasses.replace(report, spec=spec, steps=6, best=best)).splitlines()
    (line,) = [line for line in lines if line.startswith("The student was trained")]
    assert "It is that of step 4, the best by `rouge_l` in validation (12.35)." in line
    assert line.endswith(end)


def test_run_that_did_little_has_a_short_page():
    page = report_markdown(Report("bare", {"name": "bare"}))
    assert "evaluated nothing" in page
    assert "trained" not in page


def test_scores_come_first_with_seeds_intervals_counts_and_cuts(page):
    assert page.startswith("# small\n\n## Scores\n\n**rouge_l**\n\n| model | dolly |")
    assert "| student | 21.00 ± 1.41<br>&#91;18.25, 23.75&#93; |" in page
    assert "mean ± standard deviation over 2 sampling seeds (10, 20)" in page
    assert "| dolly, student | 500 | 3 | 91% |" in page


def test_single_seed_is_admitted(report):
    scores = (Score("student", "dolly", "rouge_l", (20.0,), 20.0, None),)
    evaluation = dataclasses.replace(report.evaluation, seeds=(10,), scores=scores)
    page = report_markdown(dataclasses.replace(report, evaluation=evaluation))
    assert "| student | 20.00 |" in page
    assert "A single sampling seed (10)" in page


def test_costs_of_a_metric_are_reported(report):
    metrics = (dataclasses.replace(report.evaluation.metrics[0], usage={"requests": 1200.0, "cost": 0.25}),)
    evaluation = dataclasses.replace(report.evaluation, metrics=metrics)
    page = report_markdown(dataclasses.replace(report, evaluation=evaluation))
    assert "`rouge_l` took requests 1,200, cost 0.25." in page


def test_page_says_what_was_trained_on_what(page, settings_text):
    assert "trained for 20 steps of 16 texts with the base loss `kl` and alignment (terms" in page
    assert "6→24 (words), 12→48 (phrases)" in page
    assert "| teacher | org/teacher at v2 | 1,557,611,200 | 0 |" in page
    assert "| student | layers 1, 3 of the teacher | 124,439,808 | 124,439,808 |" in page
    assert "| train | 9,568 | 1,867 | 120 |" in page
    assert "| phrases | 19,136 | 2.0 | 7 of 9,568 |" in page
    assert "could not be parsed and have no spans: 3." in page
    assert "| training | 9.1 |" in page
    assert "0.457 s per step" in page
    assert "| python | 3.11.9 |" in page
    assert 'from_pretrained("student")' in page
    assert settings_text in page


def test_page_has_the_first_and_last_value_of_each_term_of_the_loss(report):
    log = [{"step": 1, "loss": 3.5, "kl": 2.5, "dsa": 1.0}, {"step": 2, "loss": 2.0, "kl": 1.75, "dsa": float("nan")}]
    text = report_markdown(dataclasses.replace(report, log=log))
    assert "| kl | 2.5 | 1.75 |" in text
    assert "| dsa | 1 | 1 |" in text
    alone = report_markdown(dataclasses.replace(report, log=[{"step": 1, "loss": 3.5}, {"step": 2, "loss": 2.0}]))
    assert "| loss | 3.5 | 2 |" in alone


def test_page_names_the_terms_with_their_weights_and_options(report, page):
    assert "terms 2 × `dsa`, 0.2 × `hid`;" in page
    terms = [{"name": "dsa", "weight": 2.0, "params": {"max_spans": 1200, "reduction": "batch"}}]
    limited = {**report.spec, "alignment": {**report.spec["alignment"], "terms": terms}}
    page = report_markdown(dataclasses.replace(report, spec=limited))
    assert "terms 2 × `dsa` (max_spans 1200, reduction batch);" in page


def test_foreign_text_cannot_break_the_table_of_samples(report):
    responses = {"student": "", "teacher": "line one\nline `two` | three"}
    sample = SampleResponses("dolly", "What | is\n**this**?", "A <b>test</b>", responses)
    evaluation = dataclasses.replace(report.evaluation, samples=(sample,))
    page = report_markdown(dataclasses.replace(report, evaluation=evaluation))
    row = next(line for line in page.splitlines() if "line one" in line)
    assert row.count("|") == 4
    assert row.split("|")[2].strip() == "(empty)"
    assert "A &#60;b&#62;test&#60;/b&#62;" in row
    assert "line one<br>line &#96;two&#96; &#124; three" in row
    assert "What &#124; is<br>&#42;&#42;this&#42;&#42;?" in page
