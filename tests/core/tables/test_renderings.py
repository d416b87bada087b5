"""A table in every form: all say the same, and markup in a cell cannot break it."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
import xml.etree.ElementTree as ElementTree

import pytest

from mta_framework.tables import latex, markdown
from mta_framework.tables.csv_text import csv_table
from mta_framework.tables.html_text import html_table
from mta_framework.tables.latex import latex_table
from mta_framework.tables.markdown import markdown_table
from mta_framework.tables.table import Table, TableCell
from mta_framework.tables.terminal import terminal_table
from mta_framework.tables.terminal_chars import visible

TABLE = Table(
    ["", "a|b", "self_inst", "note"],
    [
        ["100 % & <more>", "20.00", "", "as it is"],
        ["KL + MTA compared with KL"],
        ["KL $x_1$", TableCell("18.50", bold=True, mark="†", below="[17.50, 19.50]"), "−1.5", "a *star*\nand more"],
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

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("<b>&amp;</b>", "&#60;b&#62;&#38;amp;&#60;/b&#62;"),
            ("[click](https://evil.org)", "&#91;click&#93;(https&#58;//evil.org)"),
            ("www.evil.org, WWW.evil.org", "www&#46;evil.org, WWW&#46;evil.org"),
            ("@octocat a@b.org", "&#64;octocat a&#64;b.org"),
            ("`code` ~~x~~ **y** _z_ a_b $q$", "&#96;code&#96; &#126;&#126;x&#126;&#126; &#42;&#42;y&#42;&#42; "
             "&#95;z&#95; a_b &#36;q&#36;"),
        ],
    )  # fmt: skip
    def test_markup_links_and_mentions_are_shown_as_they_are(self, text, expected):
        assert markdown.escape(text) == expected

    def test_a_fence_is_longer_than_any_within_the_code(self):
        assert markdown.code_block("a\n```\n<script>\n", "sh") == "````sh\na\n```\n<script>\n````"
        assert markdown.code_block("a\r````\r", "") == "`````\na\n````\n`````"
        assert markdown.code_block("plain") == "```\nplain\n```"

    def test_code_within_a_line_ends_where_its_text_ends(self):
        assert markdown.code_span("a") == "`a`"
        assert markdown.code_span("a`b``c\nd") == "```a`b``c↵d```"
        assert markdown.code_span("`a") == "`` `a ``"

    def test_only_names_between_backticks_are_code_in_a_sentence(self):
        assert markdown.sentence("by `kl` and <b>") == "by `kl` and &#60;b&#62;"
        assert markdown.sentence("a lone ` stays") == "a lone &#96; stays"


STEERING = [
    "\x00",
    "\x07",
    "\x08",
    "\x1b]0;title\x07",
    "\x1b[2J",
    "\x7f",
    "\x85",
    "\x9b31m",
    "\u202e",
    "\u2066",
    "\ud800",
]
"""Control characters (C0, DEL, C1), escape sequences, bidirectional overrides and half a surrogate pair."""


@pytest.mark.parametrize("steering", STEERING, ids=ascii)
@pytest.mark.parametrize(
    "form",
    [
        csv_table,
        latex_table,
        markdown_table,
        lambda table: "\n".join(terminal_table(table)),
        lambda table: markdown.code_block(table.caption),
        lambda table: markdown.code_span(table.caption),
        lambda table: markdown.sentence(f"{table.caption} `{table.caption}`"),
        lambda table: visible(table.caption),
    ],
    ids=["csv", "latex", "markdown", "terminal", "block", "span", "sentence", "line"],
)
def test_no_form_lets_a_text_steer_what_displays_it(form, steering):
    text = f"a{steering}b"
    shown = form(Table([text, text], [[text, TableCell(text, mark=steering, below=text)], [text]], caption=text))
    assert not {mark for mark in shown if unicodedata.category(mark) in {"Cc", "Cs"}} - {"\n"}
    assert not {"\u202e", "\u2066"} & set(shown)
    assert "a" in shown
    assert "b" in shown


def test_text_without_control_characters_is_left_alone():
    text = "日本語 🙂 שלום a\tb\nc ‎ étude −1"
    assert visible(text) == text


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
            ("a\r\rb\n\nc\td", "a  b  c d"),
            ("a\x1b[1mb\u202ec", "a?[1mb?c"),
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
    plain = Table(["a", "b"], [["1", TableCell("2", mark="†", below="more")], ["x, y", 'say "no"']])
    assert list(csv.reader(io.StringIO(csv_table(plain)))) == [["a", "b"], ["1", "2"], ["x, y", 'say "no"']]


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+1+1", "'+1+1"),
        ("-2+3", "'-2+3"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("\r=1", "'␍=1"),
        ("\n=1", "'\n=1"),
        ("＝1", "'＝1"),
        ("-cmd|' /C calc'!A0", "'-cmd|' /C calc'!A0"),
        ("-0.5", "-0.5"),
        ("-1e-05", "-1e-05"),
        ("-inf", "-inf"),
        ("+2", "+2"),
        ("\n5", "'\n5"),
        ("a=b", "a=b"),
        ("", ""),
    ],
)
def test_no_cell_of_a_csv_file_is_a_formula_and_numbers_stay_numbers(text, cell):
    written = csv_table(Table([text, "b"], [["1", text]]))
    assert list(csv.reader(io.StringIO(written, newline=""))) == [[cell, "b"], ["1", cell]]
