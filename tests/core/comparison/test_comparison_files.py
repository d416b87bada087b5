"""A comparison on paper: every form says the same, and markup cannot break it."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re

import pytest

from mta_framework.comparison import comparison_tables
from mta_framework.comparison.renderings import comparison_json, latex, scores_csv, terminal_lines, wins_csv
from mta_framework.comparison.results import (
    Comparison,
    Contrast,
    PromptPair,
    Row,
    RowScore,
    RunRef,
    SideBySide,
    Verdict,
)
from mta_framework.errors import RunError
from mta_framework.reporting.comparison_page import comparison_page
from mta_framework.reporting.markdown_report import comparison_markdown
from mta_framework.reporting.report_files import write_comparison
from mta_framework.tables.table import TableCell

from .conftest import PERPLEXITY, ROUGE


def row(label, baseline, first, second):
    """A row with a score on each of two sets, and their average."""
    means = {"dolly": first, "self_inst": second, None: (first + second) / 2}
    cells = {
        (metric.label, name): RowScore(mean, 0.5, "sampling seeds", 5, (mean - 1, mean + 1))
        for metric in (ROUGE, PERPLEXITY)
        for name, mean in means.items()
    }
    return Row(label, baseline, ("run_1",), cells)


def contrast(metric, other, p_holm):
    return Contrast(metric, "dolly", "KL", other, -1.5, (-2.0, -0.25), 0.0004, p_holm, 3, 1, 2)


PAIR = PromptPair("rouge_l", "dolly", 7, "KL", "KL + MTA", 20.0, 30.5, 1)
COMPARISON = Comparison(
    metrics=(ROUGE, PERPLEXITY),
    sets=("dolly", "self_inst"),
    rows=(row("100 % & more", None, 99, 9), row("KL", None, 20, 10), row("KL + MTA", "KL", 18.5, 12)),
    contrasts=(contrast("rouge_l", "KL + MTA", 0.012), contrast("perplexity", "KL + MTA", 0.4)),
    examples=(SideBySide(PAIR, "What | is\nit?", "A *lamp*", "no", "yes $x_1$"),),
    notes=("A note with 95 % & more_.",),
    runs=(RunRef("run_1", "runs/run_1", "KL", 3), RunRef("model", "evaluations/model", "KL + MTA", None)),
    pairs=(PAIR,),
    verdicts=(Verdict("judge", None, "KL", "KL + MTA", 0.625, (0.5, 0.75), 0.04, 5, 0, 3),),
)


class TestTables:
    def test_the_best_is_of_those_that_are_compared_with_each_other(self):
        assert comparison_tables.best_rows(COMPARISON, ("rouge_l", "dolly"), True) == {"KL"}
        assert comparison_tables.best_rows(COMPARISON, ("rouge_l", "self_inst"), True) == {"KL + MTA"}
        assert comparison_tables.best_rows(COMPARISON, ("perplexity", "dolly"), False) == {"KL + MTA"}

    def test_a_cell_says_score_spread_interval_and_whether_it_differs(self):
        label, cell, *_ = comparison_tables.comparison_table(COMPARISON, ROUGE).rows[2]
        assert (label, cell) == ("KL + MTA", TableCell("18.50 ± 0.50", False, "†", "[17.50, 19.50]"))
        assert comparison_tables.comparison_table(COMPARISON, PERPLEXITY).rows[2][1].mark == ""

    def test_a_cell_without_spread_or_interval_says_neither(self):
        bare = RowScore(18.5, None, "sampling seeds", 1, None)
        lone = dataclasses.replace(COMPARISON.rows[1], cells=dict.fromkeys(COMPARISON.rows[1].cells, bare))
        table = comparison_tables.comparison_table(dataclasses.replace(COMPARISON, rows=(lone,), contrasts=()), ROUGE)
        assert table.rows[0][1] == TableCell("18.50")

    def test_rows_hang_together_over_several_steps(self):
        chain = (row("a", None, 1, 1), row("b", "a", 1, 1), row("c", "b", 1, 1), row("d", None, 1, 1))
        families = comparison_tables.families(dataclasses.replace(COMPARISON, rows=chain))
        assert [(root, [entry.label for entry in rows]) for root, rows in families] == [
            ("a", ["a", "b", "c"]),
            ("d", ["d"]),
        ]

    def test_rows_that_are_compared_to_each_other_are_shown_all_the_same(self):
        ring = (row("a", "b", 1, 1), row("b", "a", 1, 1))
        families = comparison_tables.families(dataclasses.replace(COMPARISON, rows=ring))
        assert sorted(entry.label for _, rows in families for entry in rows) == ["a", "b"]

    def test_small_probabilities_are_no_zeros(self):
        assert (comparison_tables.probability(0.0004), comparison_tables.probability(0.0314)) == ("< 0.001", "0.031")


class TestTerminal:
    def test_shows_scores_above_intervals_then_differences_then_notes(self):
        text = "\n".join(terminal_lines(COMPARISON, 100))
        assert re.search(r"KL \+ MTA +18\.50 ± 0\.50† .*\n +\[17\.50, 19\.50\]", text)
        assert re.search(
            r"KL \+ MTA compared with KL\n +dolly +−1\.50 +\[−2\.00, −0\.25\]  < 0\.001 +0\.012 +3 / 1 / 2", text
        )
        assert re.search(r"KL \+ MTA compared with KL\n +average +62\.5% +\[50\.0%, 75\.0%\]", text)
        assert text.endswith("A note with 95 % & more_.")

    def test_wraps_notes(self):
        assert max(map(len, list(terminal_lines(COMPARISON, 12))[-3:])) <= 12


class TestMarkdown:
    @pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
    def test_no_end_of_line_in_a_text_ends_a_row(self, end):
        broken = dataclasses.replace(COMPARISON.examples[0], row_text=f"one{end}two")
        assert "| one<br>two |" in comparison_markdown(dataclasses.replace(COMPARISON, examples=(broken,)))

    def test_has_notes_under_the_tables_of_every_metric(self):
        assert comparison_markdown(COMPARISON).count("A note with 95 %") == 3

    def test_marks_the_best_and_what_differs(self):
        text = comparison_markdown(COMPARISON)
        assert "| KL + MTA | 18.50 ± 0.50†<br>" in text
        assert "| KL | **20.00 ± 0.50**<br>" in text

    def test_every_row_of_a_table_has_as_many_cells_as_its_head(self):
        tables = re.findall(r"(?:^\|.*\n?)+", comparison_markdown(COMPARISON), flags=re.MULTILINE)
        assert len(tables) == 7
        for table in tables:
            assert len({line.count("|") for line in table.strip().split("\n")}) == 1

    def test_shows_texts_as_they_are(self):
        text = comparison_markdown(COMPARISON)
        assert "| prompt |  | What &#124; is<br>it? |" in text
        assert "A &#42;lamp&#42;" in text


class TestLatex:
    def test_has_a_booktabs_table_for_every_table(self):
        text = latex(COMPARISON)
        for command in (r"\begin{table}", r"\end{table}", r"\toprule", r"\bottomrule", r"\begin{tabular}"):
            assert text.count(command) == 5
        assert "self_inst" not in text
        assert r"self\_inst" in text

    def test_every_line_of_a_table_has_as_many_cells_as_columns_are_declared(self):
        for columns, body in re.findall(r"\\begin\{tabular\}\{([lr]+)\}(.*?)\\end\{tabular\}", latex(COMPARISON), re.S):
            rows = [line for line in body.split("\n") if line.endswith(r"\\")]
            assert rows
            spans = [int((re.findall(r"multicolumn\{(\d+)\}", line) or [1])[0]) for line in rows]
            cells = [len(re.findall(r"(?<!\\)&", line)) + span for line, span in zip(rows, spans, strict=True)]
            assert set(cells) == {len(columns)}

    def test_braces_are_balanced(self):
        plain = re.sub(r"\\[{}]", "", latex(COMPARISON))
        assert plain.count("{") == plain.count("}")

    def test_rules_part_rows_that_are_not_compared(self):
        first = latex(COMPARISON).split(r"\end{table}")[0]
        assert first.index("100") < first.rindex(r"\midrule") < first.index("KL + MTA &")
        assert first.count(r"\midrule") == 2

    def test_marks_the_best_and_what_differs(self):
        text = latex(COMPARISON)
        assert r"KL & \textbf{20.00 $\pm$ 0.50}" in text
        assert r"18.50 $\pm$ 0.50$^\dagger$" in text


class TestSpreadsheet:
    def test_has_a_line_for_every_cell_with_all_digits(self):
        rows = list(csv.DictReader(io.StringIO(scores_csv(COMPARISON))))
        assert len(rows) == 2 * 3 * 3
        cell = next(
            line for line in rows if (line["row"], line["set"], line["metric"]) == ("KL + MTA", "dolly", "rouge_l")
        )
        assert (float(cell["mean"]), float(cell["low"]), cell["compared_with"], float(cell["p_holm"])) == (
            18.5,
            17.5,
            "KL",
            0.012,
        )
        assert rows[0]["compared_with"] == ""

    def test_has_a_line_for_every_prompt(self):
        assert list(csv.reader(io.StringIO(wins_csv(COMPARISON))))[1:] == [
            ["rouge_l", "dolly", "7", "KL + MTA", "30.5", "KL", "20.0", "1"]
        ]


class TestWriting:
    def test_writes_all_forms(self, tmp_path):
        written = write_comparison(tmp_path / "new" / "folder", COMPARISON)
        endings = ("md", "csv", "tex", "json", "html")
        tables = {"wins.csv", "outcomes.csv", "curves.csv", "runs.csv"}
        assert {path.name for path in written} == tables | {f"comparison.{ending}" for ending in endings}
        assert all(path.is_file() for path in written)
        assert (tmp_path / "new" / "folder" / "comparison.html").read_text().startswith("<!DOCTYPE html>")

    def test_images_of_an_earlier_comparison_are_removed_and_other_files_left(self, tmp_path):
        for name in ("curves-old-steps.svg", "mine.svg", "curves.txt"):
            (tmp_path / name).write_text("")
        write_comparison(tmp_path, COMPARISON)
        assert not (tmp_path / "curves-old-steps.svg").exists()
        assert (tmp_path / "mine.svg").exists()
        assert (tmp_path / "curves.txt").exists()

    def test_the_comparison_of_a_sweep_has_its_name(self):
        of_sweep = dataclasses.replace(COMPARISON, name="real_model")
        page, plain = comparison_page(of_sweep), comparison_page(COMPARISON)
        assert "<h1>real_model</h1>" in page
        assert "<title>real_model" in page
        assert "Sweep · 2 runs" in page
        assert "Comparison · 2 runs" in plain
        assert comparison_markdown(of_sweep).startswith("# real_model\n")
        assert comparison_markdown(COMPARISON).startswith("# Comparison\n")
        assert json.loads(comparison_json(of_sweep))["name"] == "real_model"

    def test_json_holds_cells_as_a_list_and_no_nan(self):
        nan = dataclasses.replace(COMPARISON.contrasts[0], difference=float("nan"))
        content = comparison_json(dataclasses.replace(COMPARISON, contrasts=(nan,)))

        def refuse(constant):
            raise AssertionError(constant)

        written = json.loads(content, parse_constant=refuse)
        assert written["contrasts"][0]["difference"] is None
        assert written["rows"][0]["cells"][0] == {
            "metric": "rouge_l",
            "set": "dolly",
            "mean": 99,
            "deviation": 0.5,
            "over": "sampling seeds",
            "count": 5,
            "interval": [98, 100],
        }

    def test_a_folder_that_cannot_be_written_to_is_named(self, tmp_path):
        (tmp_path / "file").write_text("x")
        with pytest.raises(RunError, match="file"):
            write_comparison(tmp_path / "file", COMPARISON)


class TestWidth:
    @pytest.mark.parametrize("width", [60, 80, 120])
    def test_columns_that_find_no_room_go_below_the_others(self, width):
        tables = [line for line in terminal_lines(COMPARISON, width) if line.startswith("  ")]
        assert max(map(len, tables)) <= width
        side_by_side = sum(line.split() == ["dolly", "self_inst", "average"] for line in tables)
        assert side_by_side == (2 if width >= 80 else 0)

    def test_every_row_is_named_in_each_block(self):
        lines = list(terminal_lines(COMPARISON, 40))
        assert sum(line.startswith("  100 % & more") for line in lines) > 2
        assert sum(line == "  KL + MTA compared with KL" for line in lines) > 2


def test_a_model_gone_astray_does_not_fill_the_page():
    cells = {
        key: dataclasses.replace(cell, mean=1e304, deviation=2e303, interval=(1.0, 3e304))
        for key, cell in COMPARISON.rows[1].cells.items()
    }
    astray = dataclasses.replace(COMPARISON.rows[1], cells=cells)
    cell = comparison_tables.comparison_table(dataclasses.replace(COMPARISON, rows=(astray,)), PERPLEXITY).rows[0][1]
    assert cell == TableCell("1e+304 ± 2e+303", below="[1.00, 3e+304]")


def test_the_best_scores_are_bold_on_a_terminal_alone():
    styled = list(terminal_lines(COMPARISON, 120, styled=True))
    assert any("\x1b[1m" in line for line in styled)
    assert any(line.startswith("Bold:") for line in styled)
    plain = [line for line in styled if not line.startswith("Bold:")]
    assert [line.replace("\x1b[1m", "").replace("\x1b[0m", "") for line in plain] == list(
        terminal_lines(COMPARISON, 120)
    )


def test_bold_is_explained_where_there_is_bold_alone():
    lone = dataclasses.replace(COMPARISON, rows=COMPARISON.rows[:1], contrasts=(), examples=(), pairs=(), verdicts=())
    for form in (comparison_markdown, latex):
        assert "Bold:" in form(COMPARISON)
        assert "Bold:" not in form(lone)
