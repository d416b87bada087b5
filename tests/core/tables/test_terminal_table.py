"""Tables within the width of a terminal."""

from __future__ import annotations

import pytest

from mta_framework.tables.table import Table, TableCell
from mta_framework.tables.terminal import terminal_table
from mta_framework.tables.terminal_chars import width

FIGURES = Table(
    ["", "dolly", "self_inst", "average"],
    [["KL", "20.00", "10.00", "15.00"], ["KL + MTA", TableCell("18.50", mark="†", below="[17, 19]"), "9.00", "13.75"]],
)
TEXT = Table(["option", "value", "help"], [["language", "one of " + "name, " * 60, "Language of the code. " * 5]])


def lines(table, columns, indent=""):
    return list(terminal_table(table, columns, indent))


def cells(line):
    return sum(map(width, line))


def test_figures_stand_below_each_other_whatever_marks_they_have():
    assert lines(FIGURES, 80) == [
        "              dolly  self_inst  average",
        "KL           20.00       10.00    15.00",
        "KL + MTA     18.50†       9.00    13.75",
        "          [17, 19]",
    ]


def test_bold_is_of_the_first_line_of_a_cell_and_takes_no_room():
    scores = Table(["", "dolly"], [["KL", "2.00"], ["MTA", TableCell("18.50", bold=True, below="[17, 19]")]])
    assert list(terminal_table(scores, 80)) == [
        "        dolly",
        "KL       2.00",
        "MTA     18.50",
        "     [17, 19]",
    ]
    assert list(terminal_table(scores, 80, styled=True))[2] == "MTA     \x1b[1m18.50\x1b[0m"
    assert [line for line in terminal_table(scores, 80, styled=True) if "\x1b" not in line] == [
        "        dolly",
        "KL       2.00",
        "     [17, 19]",
    ]


def test_columns_that_find_no_room_go_below_the_others():
    assert [line for line in lines(FIGURES, 32) if "KL" in line or not line] == [
        "KL           20.00       10.00",
        "KL + MTA     18.50†       9.00",
        "",
        "KL          15.00",
        "KL + MTA    13.75",
    ]


@pytest.mark.parametrize("columns", [60, 80, 120])
@pytest.mark.parametrize("indent", ["", "    "])
def test_text_is_wrapped_within_the_terminal_and_nothing_is_lost(columns, indent):
    shown = lines(TEXT, columns, indent)
    assert max(map(len, shown)) <= columns
    assert "\n".join(shown).count("name,") == 60


def test_long_words_and_wide_characters_are_wrapped_too():
    shown = lines(Table(["name", "path"], [["層" * 30, "x" * 200]]), 50)
    assert max(map(cells, shown)) <= 50
    assert "".join(shown).count("層") == 30
    assert "".join(shown).count("x") == 200


@pytest.mark.parametrize("columns", range(12, 24))
def test_characters_of_two_cells_are_never_cut_in_the_middle(columns):
    shown = lines(Table(["name", "text"], [["ab cd", "日本語 日本語日本語 a b"]]), columns)
    assert max(map(cells, shown)) <= columns
    assert "".join("".join(shown).split()).count("日本語"[0]) == 3


def test_headers_of_figures_are_wrapped_first():
    shown = lines(Table(["data", "left out (prompt too long)", "cut (response too long)"], [["train", "1", "2"]]), 40)
    assert max(map(len, shown)) <= 40
    assert shown[-1].split() == ["train", "1", "2"]


def test_a_row_of_one_cell_runs_through():
    shown = lines(Table(["set", "p"], [["KL + MTA compared with KL"], ["dolly", "0.01"]]), 80)
    assert shown == ["set       p", "KL + MTA compared with KL", "dolly  0.01"]


def test_no_character_steers_the_terminal():
    assert "\x1b" not in "".join(lines(Table(["a"], [["\x1b[31mred"]]), 80))


def test_a_table_without_rows_has_no_lines():
    assert lines(Table(["a"], []), 80) == []


def test_a_table_of_text_stays_in_one_piece():
    words = [["initial_threshold", "'jensen_shannon',", "'jensen_shannon'", "Jensen-Shannon divergence"]]
    shown = lines(Table(["option", "value", "default", "what it does"], words, alignment="llll"), 60)
    assert max(map(len, shown)) <= 60
    assert shown[0].split() == ["option", "value", "default", "what", "it", "does"]
    assert sum("option" in line for line in shown) == 1
