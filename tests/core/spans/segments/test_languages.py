"""Languages at first sight: tags, cues, and lines that look like code."""

from __future__ import annotations

import time

import pytest

from mta_framework.spans.segments.languages import _ALIASES, LANGUAGES, candidates, code_runs, language_of


@pytest.mark.parametrize(
    ("tag", "language"),
    [
        ("", ""),
        ("python", "python"),
        ("Py", "python"),
        ("{.python", "python"),
        ("python:main.py", "python"),
        ("js{1,3}", "javascript"),
        ("C++", "cpp"),
        ("c#", "csharp"),
        ("objective-c", "objc"),
        ("klingon", "klingon"),
    ],
)
def test_a_tag_is_the_language_that_it_stands_for(tag: str, language: str) -> None:
    assert language_of(tag) == language


def test_other_names_stand_for_languages_that_there_are() -> None:
    assert set(_ALIASES) <= LANGUAGES
    assert not {alias for aliases in _ALIASES.values() for alias in aliases.split()} & LANGUAGES


@pytest.mark.parametrize(
    ("code", "language"),
    [
        ("from os import path\nprint(path)", "python"),
        ("const a = 1;\nconsole.log(a === 2);", "javascript"),
        ("#include <stdio.h>\nint main(void) { return 0; }", "c"),
        ("using namespace std;\ncout << std::endl;", "cpp"),
        ("SELECT a FROM b", "sql"),
        ("#!/bin/bash\necho hi", "bash"),
        ('{"a": 1}', "json"),
    ],
)
def test_the_most_likely_language_comes_first(code: str, language: str) -> None:
    assert candidates(code)[0] == language
    assert len(candidates(code)) <= 3


@pytest.mark.parametrize(
    "prose", ["", "The cat sat on the mat.", "Select the best answer.", "Public schools let us in."]
)
def test_prose_has_no_cues(prose: str) -> None:
    assert candidates(prose) == []
    assert list(code_runs(prose)) == []


def test_a_run_holds_its_indented_and_blank_lines_and_ends_before_other_ones() -> None:
    text = "So:\r\nx = f(\r\n    a\r\n\r\n    b)\r\n\r\nThat is it.\nprint(x)  \n\n"
    assert [text[start:end] for start, end in code_runs(text)] == ["x = f(\r\n    a\r\n\r\n    b)", "print(x)"]


@pytest.mark.parametrize("token", ["a", "<a", "function ", "select ", " ", ".", "a.", "(", "class ", "public ", "a: "])
def test_one_long_line_takes_no_time(token: str) -> None:
    text, start = token * 10_000, time.perf_counter()
    candidates(text)
    list(code_runs(text))
    assert time.perf_counter() - start < 5
