"""A table in every form: all say the same, and markup in a cell cannot break it."""

from __future__ import annotations

import csv
import io
import re
import xml.etree.ElementTree as ElementTree

import pytest

from mta_framework.tables import latex, markdown
from mta_framework.tables.csv_text import csv_table
from mta_framework.tables.html_text import html_table
from mta_framework.tables.latex import latex_table
from mta_framework.tables.markdown import markdown_table
from mta_framework.tables.table import Cell, Table

TABLE = Table(
    ["", "a|b", "self_inst", "note"],
    [
        ["100 % & <more>", "20.00", "", "as it is"],
        ["KL + MTA compared with KL"],
        ["KL $x_1$", Cell("18.50", bold=True, mark="†", below="[17.50, 19.50]"), "−1.5", "a *star*\nand more"],
    ],
    caption="Scores & more",
    rules=[1],
)


class TestTable:
    def test_columns_of_figures_are_aligned_to_the_right(self):
        assert TABLE.alignments == "lrrl"
        assert Table(["n", "value"], [["1", "nan"], ["2", "< 0.001"], ["3", "[0, 1]"]]).alignments == "lr"
        assert Table(["n", "value"], [["1", ""]]).alignments == "ll"
        assert Table(["n", "value"], [["1", "2"]], alignment="ll").alignments == "ll"

    def test_is_false_without_rows(self):
        assert TABLE
        assert not Table(["a"], [])

    def test_a_row_with_too_few_cells_is_refused(self):
        with pytest.raises(ValueError, match="a row has 2 cells, the table 3 columns"):
            Table(["a", "b", "c"], [["1", "2"]])


class TestMarkdown:
    def test_every_row_has_as_many_cells_as_the_header(self):
        assert {line.count("|") for line in markdown_table(TABLE).split("\n")} == {5}

    def test_marks_stand_outside_of_bold_and_second_lines_below(self):
        assert "| **18.50**†<br>&#91;17.50, 19.50&#93; |" in markdown_table(TABLE)
        assert "| --- | ---: | ---: | --- |" in markdown_table(TABLE)

    @pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
    def test_no_end_of_line_ends_a_row(self, end):
        assert markdown.escape(f"a | b{end}c") == "a &#124; b<br>c"


class TestLatex:
    def test_every_row_has_as_many_cells_as_columns_are_declared(self):
        rows = [line for line in latex_table(TABLE).split("\n") if line.endswith(r"\\")]
        columns = [len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows if "multicolumn" not in row]
        assert columns == [4] * 4
        assert r"\multicolumn{4}{l}{KL + MTA compared with KL} \\" in rows

    def test_braces_are_balanced(self):
        plain = re.sub(r"\\[{}]", "", latex_table(TABLE, ["a note {"]))
        assert plain.count("{") == plain.count("}")

    def test_a_rule_stands_above_its_row(self):
        assert "\\midrule\n\\multicolumn" in latex_table(TABLE)

    def test_marks_stand_outside_of_bold_and_second_lines_below(self):
        assert "& \\textbf{18.50}$^\\dagger$ & $-$1.5 &" in latex_table(TABLE)
        assert "\n & {\\scriptsize {}[17.50, 19.50]} &  &  \\\\\n" in latex_table(TABLE)

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("50 % & a_b #1 {x} $", r"50 \% \& a\_b \#1 \{x\} \$"),
            ("a\\b~c^d", r"a\textbackslash{}b\textasciitilde{}c\textasciicircum{}d"),
            ("[0, 1]", "{}[0, 1]"),
            ("*", "{}*"),
            ("< 0.001 −1", "$<$ 0.001 $-$1"),
        ],
    )
    def test_escapes_what_would_be_a_command(self, text, expected):
        assert latex.escape(text) == expected


def test_html_is_well_formed_and_says_the_same():
    page = ElementTree.fromstring(html_table(TABLE))
    rows = ["".join(row.itertext()) for row in page.iter("tr")]
    assert rows[1:] == [
        "100 % & <more>20.00as it is",
        "KL + MTA compared with KL",
        "KL $x_1$18.50†[17.50, 19.50]−1.5a *star*\nand more",
    ]
    assert page.findtext(".//caption") == "Scores & more"
    assert [cell.get("class") for cell in page.iter("td")] == ["number", "number", None, "number best", "number", None]


def test_csv_keeps_the_text_of_every_cell():
    plain = Table(["a", "b"], [["1", Cell("2", mark="†", below="more")], ["x, y", 'say "no"']])
    assert list(csv.reader(io.StringIO(csv_table(plain)))) == [["a", "b"], ["1", "2"], ["x, y", 'say "no"']]
