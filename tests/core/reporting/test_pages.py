"""The pages as HTML: well-formed, self-contained, escaped, and without empty sections."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from html.parser import HTMLParser

import pytest

from mta_framework.evaluation.report import Report, ReportedMetric, ReportedModel
from mta_framework.reporting.comparison_page import comparison_page
from mta_framework.reporting.run_page import run_page
from mta_framework.types.log_entries import BestCheckpoint

VOID = {"meta", "input", "br"}
ELSEWHERE = {"src", "srcset", "href", "xlink:href", "action", "data", "poster"}


class Reader(HTMLParser):
    """Collects what a page has; every tag must be closed."""

    def __init__(self, source: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.headings: list[str] = []
        self.text = ""
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.links += [value for name, value in attrs if name in ELSEWHERE and value]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


@pytest.fixture(scope="module", params=["run", "comparison"])
def page(request, report, comparison):
    return run_page(report) if request.param == "run" else comparison_page(comparison)


def test_page_needs_nothing_but_itself(page):
    reader = Reader(page)
    assert not reader.tags.keys() & {"script", "link", "iframe", "object", "embed", "base", "form"}
    anchors = {f"#{name}" for name in reader.ids}
    assert {link for link in reader.links if not link.startswith("data:image/png;base64,")} <= anchors
    assert "@import" not in page
    assert "default-src 'none'" in page


def test_every_id_is_there_once(page):
    assert not [name for name, count in Counter(Reader(page).ids).items() if count > 1]


def test_foreign_text_is_shown_and_never_run(page):
    assert "<script" not in page
    assert """<script>alert(1)</script>"'&amp; $x_1$ {{ 7 * 7 }}""" in Reader(page).text
    assert "日本語" in page


def test_same_report_gives_the_same_page(report):
    assert run_page(report) == run_page(report)


def test_tables_have_captions_and_figures_have_titles(page):
    reader = Reader(page)
    assert reader.tags["caption"] == reader.tags["table"] > 0
    assert reader.tags["figcaption"] == reader.tags["figure"] == page.count('role="img"') > 0


def test_run_that_did_everything_has_every_section(report):
    reader = Reader(run_page(report))
    assert reader.headings == [
        "Scores",
        "Training",
        "Alignment",
        "Sample responses",
        "Models and data",
        "Use and repeat",
    ]
    for text in (
        "21.00 ± 1.41",
        "[18.25, 23.75]",
        "0.934 after",
        "124 M",
        "8% of the teacher's",
        "0.457 s each",
        "500",
        "91%",
        "org/teacher at v2",
        "could not be parsed and have no spans: 3.",
        report.command,
    ):
        assert text in reader.text, text


@pytest.mark.parametrize(
    ("left_out", "gone"),
    [
        ({"evaluation": None}, {"Scores", "Sample responses"}),
        ({"layer_pairs": (), "geometry": (), "span_samples": ()}, {"Alignment"}),
        ({"log": (), "step_time": {}, "steps": 0}, {"Training"}),
        ({"models": {}, "data": {}, "spans": {}}, {"Models and data"}),
    ],
)
def test_what_a_run_did_not_do_is_left_out(report, left_out, gone):
    whole, page = Reader(run_page(report)), Reader(run_page(dataclasses.replace(report, **left_out)))
    assert set(whole.headings) - set(page.headings) == gone


def test_health_of_responses_is_drawn_and_a_collapse_is_said_first(report):
    assert "Responses of the student" not in run_page(report)
    health = {"response_length": 12.0, "response_cut": 0.97, "response_top_16_overlap": 0.4}
    log = tuple({**entry, **health} if "kl" in entry else entry for entry in report.log)
    warning = "From step 10, 97% of the student's responses are cut off at the limit."
    page = run_page(dataclasses.replace(report, log=log, warnings=(warning,)))
    assert page.index("Warning: From step 10, 97%") < page.index('id="scores"')
    for title in ("length in tokens", "share cut off at the limit", "overlap of the 16 likeliest tokens"):
        assert title in page
    assert "entropy in nats" not in page


def test_exported_step_is_marked_in_the_curve_of_its_metric(report):
    best = BestCheckpoint("kl", 20, 2.3, 20)
    page = run_page(dataclasses.replace(report, best=best))
    assert "Dotted: step 20, whose student was exported." in page
    assert "Dotted" not in run_page(report)


def test_evaluation_without_a_run_says_nothing_of_training(evaluation):
    spec = {"name": "gpt2", "model": {"hub": "org/gpt2"}, "evaluation": {"seeds": [10, 20]}}
    page = run_page(Report("gpt2", spec, evaluation, models={"small": ReportedModel(124_439_808, 0)}))
    assert Reader(page).headings == ["Scores", "Sample responses", "Models and data", "Use and repeat"]
    assert "<td>org/gpt2</td>" in page
    assert "trained" not in Reader(page).text
    assert "from_pretrained" not in page


def test_bare_report_has_a_page():
    assert Reader(run_page(Report("bare", {"name": "bare"}))).headings == ["Use and repeat"]


def test_numbers_that_are_none_do_not_break_a_page(report):
    log = ({"loss": float("nan"), "grad_norm": float("inf"), "step": 1}, {"loss": None, "step": 2})
    scores = (
        dataclasses.replace(
            report.evaluation.scores[0], mean=float("nan"), per_seed=(float("nan"),) * 2, interval=None
        ),
    )
    evaluation = dataclasses.replace(report.evaluation, scores=scores)
    Reader(run_page(dataclasses.replace(report, log=log, evaluation=evaluation)))


def test_comparison_tells_scores_differences_tests_texts_curves_and_notes(comparison):
    reader = Reader(comparison_page(comparison))
    assert reader.headings == [
        "Scores",
        "Differences",
        "Validation outcomes",
        "Learning curves",
        "Texts side by side",
        "Runs",
    ]
    for text in (
        "20.00 ± 0.50",
        "[20.00, 24.00]",
        "+2.00",
        "0.006",
        "30 / 4 / 16",
        "A note about the numbers.",
        "dolly, prompt 7: KL + MTA is better by rouge_l",
        "KL + MTA: 90.00",
        "(empty)",
        "validation kl (lower is better)",
        "−0.2500†",
        "A note about outcomes.",
        "Bands: 95 % t-intervals of the mean.",
        "validation kl, over processor time",
        "validation kl, difference from the baseline, over steps",
    ):
        assert text in reader.text, text


def test_numbers_of_learning_curves_are_in_tables_behind_their_plots(comparison):
    reader = Reader(comparison_page(comparison))
    assert "Numbers: validation kl, over steps" in reader.text
    # KL + MTA after 20 steps: the mean of 1.75, 2.00 and 1.25, and of the differences by seed.
    assert "1.6667" in reader.text
    assert "−0.2500" in reader.text
    assert "300 s" in reader.text


def test_many_methods_have_a_small_plot_each_and_no_list_in_the_title(comparison):
    labels = [f"method {index}" for index in range(8)]
    curves = comparison.curves[0]
    rows = {"KL": curves.rows["KL"], **dict.fromkeys(labels, curves.rows["KL + MTA"])}
    others = [dataclasses.replace(comparison.rows[1], label=label) for label in labels]
    many = dataclasses.replace(
        comparison,
        rows=(comparison.rows[0], *others),
        curves=(dataclasses.replace(curves, rows=rows), dataclasses.replace(comparison.curves[1], rows=rows)),
        contrasts=(),
        examples=(),
    )
    page = comparison_page(many)
    assert "<h1>9 methods</h1>" in page
    for label in labels:
        assert page.count(f"<figcaption>{label}</figcaption>") == 3  # over steps, over time, differences
    assert "<figcaption>KL</figcaption>" not in page
    assert "Grey, dashed: its baseline" in page
    assert "training loss" not in page


@pytest.mark.parametrize(
    ("difference", "higher_is_better", "shown"),
    [
        (1.5, True, '<small class="better">+1.50</small>'),
        (1.5, False, '<small class="worse">+1.50</small>'),
        (-1.5, True, '<small class="worse">−1.50</small>'),
        (-1.5, False, '<small class="better">−1.50</small>'),
        (0.0, False, '<small class="">+0.00</small>'),
    ],
)
def test_difference_is_better_or_worse_by_the_direction_of_its_metric(comparison, difference, higher_is_better, shown):
    changed = dataclasses.replace(
        comparison,
        metrics=(ReportedMetric("rouge_l", higher_is_better),),
        contrasts=tuple(dataclasses.replace(entry, difference=difference) for entry in comparison.contrasts),
        outcomes=(),
        curves=(),
    )
    page = comparison_page(changed)
    assert page.count(shown) == page.count("<small class=") == 3


def test_wins_ties_and_losses_fill_their_bar(comparison):
    entry = dataclasses.replace(comparison.contrasts[0], wins=30, ties=0, losses=20)
    page = comparison_page(dataclasses.replace(comparison, contrasts=(entry, *comparison.contrasts[1:])))
    first, second = re.findall(r"<td><div>(.*?)</div></td>", page, re.DOTALL)[:2]
    bar = r'<i class="(\w+)" style="width: ([0-9.]+)%" title="(\d+) \w+">(\d*)</i>'
    assert re.findall(bar, first) == [("wins", "60.0", "30", "30"), ("losses", "40.0", "20", "20")]
    assert re.findall(bar, second) == [
        ("wins", "60.0", "30", "30"),
        ("ties", "8.0", "4", ""),
        ("losses", "32.0", "16", "16"),
    ]


def test_comparison_without_contrasts_and_validation_is_shorter(comparison):
    page = comparison_page(dataclasses.replace(comparison, contrasts=(), examples=(), outcomes=(), curves=()))
    assert Reader(page).headings == ["Scores", "Runs"]
