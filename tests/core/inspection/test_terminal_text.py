"""Lines of a terminal: wrapped anywhere, with brackets under the right cells, and nothing that steers it."""

from __future__ import annotations

from itertools import pairwise

import click
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mta_framework.inspection.terminal_text import lines
from mta_framework.reporting.annotated_text import AnnotatedText, tracks
from mta_framework.tables.terminal_chars import glyph, width

texts = st.text(st.sampled_from("ab \n\t日😀e\u0301\u202e\x1b"), max_size=80)


def cells(line: str) -> int:
    return sum(map(width, line))


def test_spans_that_overlap_lie_on_tracks_of_their_own() -> None:
    text = AnnotatedText("abcdefg", {"phrases": [(0, 7), (1, 3), (2, 5), (5, 6)]})
    assert list(lines(text, 80, colour=False)) == [
        "         abcdefg",
        "phrases  ╰─────╯",
        "          ╰╯  ┴",
        "           ╰─╯",
    ]


def test_a_span_goes_on_in_the_next_line_with_an_open_bracket() -> None:
    text = AnnotatedText("one two three four five six seven", {"p": [(4, 27)]})
    assert list(lines(text, 24, colour=False)) == [
        "   one two three four",
        "p      ╰" + "─" * 14,
        "   five six seven",
        "p  ───────╯",
    ]


def test_brackets_lie_under_wide_and_joined_characters() -> None:
    text = AnnotatedText("日本 cafe\u0301 x", {"w": [(0, 2), (3, 8), (9, 10)]})
    assert list(lines(text, 80, colour=False)) == ["   日本 cafe\u0301 x", "w  ╰──╯ ╰──╯ ┴"]


def test_what_would_steer_the_terminal_is_shown_instead() -> None:
    text = AnnotatedText("a\x1b[31m\tb\r\x9b\u202e\u2028", {"w": []})
    assert list(lines(text, 80, colour=False)) == ["   a␛[31m→b␍\ufffd\ufffd\ufffd"]


def test_tokens_and_weights_have_lines_of_their_own() -> None:
    text = AnnotatedText("abcd", {"w": [(0, 4)]}, [(0, 2), (2, 4)], {"w": 2}, {"w": [1.0, 1.0, 0.3, 0.0]})
    assert list(lines(text, 80, colour=False)) == [
        "          abcd",
        "tokens    | |",
        "w         ╰──╯",
        "w weight  ██░",
    ]


def test_colour_changes_nothing_but_colour() -> None:
    text = AnnotatedText("abc def", {"w": [(0, 3), (4, 7)], "p": [(0, 7)]}, [(0, 3)])
    coloured = list(lines(text, 80, colour=True))
    assert [click.unstyle(line) for line in coloured] == list(lines(text, 80, colour=False))
    assert sum("\x1b[" in line for line in coloured) == 3


@settings(max_examples=60, deadline=None)
@given(texts, st.integers(20, 60))
def test_every_character_is_shown_once_within_the_width(text: str, columns: int) -> None:
    shown = list(lines(AnnotatedText(text, {"w": []}), columns + 3, colour=False))
    whole = "".join(line[3:] for line in shown)
    assert whole.replace(" ", "") == "".join(map(glyph, text)).replace(" ", "")
    assert all(cells(line) <= columns + 3 for line in shown)
    assert "\x1b" not in whole


@settings(max_examples=60, deadline=None)
@given(texts, st.sets(st.tuples(st.integers(0, 79), st.integers(1, 80)), max_size=8))
def test_brackets_begin_and_end_as_often_as_spans(text: str, pairs: set[tuple[int, int]]) -> None:
    spans = sorted((a, b) for a, b in pairs if a < b <= len(text))
    shown = list(lines(AnnotatedText(text, {"w": spans}), 60, colour=False))
    assert all(cells(line) <= 60 for line in shown)
    begun = sum(line.count("╰") + line.count("┴") for line in shown)
    assert begun <= len(spans)


@settings(max_examples=60, deadline=None)
@given(st.sets(st.tuples(st.integers(0, 9), st.integers(1, 9))))
def test_tracks_hold_every_span_once_and_none_that_overlap(drawn: set[tuple[int, int]]) -> None:
    spans = [(start, start + length) for start, length in drawn]
    lines_of_spans = tracks(spans)
    assert sorted(span for track in lines_of_spans for span in track) == sorted(spans)
    for track in lines_of_spans:
        assert all(one[1] <= other[0] for one, other in pairwise(track))
    deepest = max((sum(start <= offset < end for start, end in spans) for offset in range(20)), default=0)
    assert len(lines_of_spans) == deepest


@pytest.mark.parametrize(("character", "cells"), [("a", 1), ("日", 2), ("😀", 2), ("\u0301", 0), ("\u200d", 0)])
def test_characters_take_as_many_cells_as_terminals_give_them(character: str, cells: int) -> None:
    assert width(glyph(character)) == cells
