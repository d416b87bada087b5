"""Texts of code, formulas and prose: who reads what, and what holds for any text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mta_framework import PluginParams, SpanExtractor, SpanSet
from mta_framework.registry import discover
from mta_framework.spans.cache import SpanCache
from mta_framework.spans.extraction import extract
from mta_plugins.span_extractors.code import Code
from mta_plugins.span_extractors.math import Math
from mta_plugins.span_extractors.mixed import Mixed
from mta_plugins.span_extractors.words import Words

WORDS = Words(Words.Params())
CODE = Code(Code.Params(), prose=WORDS)
MATH = Math(Math.Params(), prose=WORDS)
MIXED = Mixed(Mixed.Params(), code=CODE, math=MATH, prose=WORDS)


class Reader(SpanExtractor):
    """Notes what it reads; every text is one span, and every question mark a failure."""

    VERSION = "1"

    def __init__(self, name: str, granularities: tuple[str, ...] = ("pieces",)):
        super().__init__(PluginParams())
        self.name, self.names, self.calls = name, granularities, list[list[str]]()

    NAME = "reader"

    @property
    def granularities(self) -> tuple[str, ...]:
        return self.names

    def extract(self, texts: Sequence[str]) -> list[SpanSet]:
        self.calls.append(list(texts))
        return [{name: [(0, len(text))] for name in self.names} for text in texts]

    def failures(self, texts: Sequence[str]) -> list[int]:
        return [text.count("?") for text in texts]

    def require(self) -> str | None:
        return f"{self.name} is missing."


def readers() -> tuple[Mixed, list[Reader]]:
    parts = [Reader("code"), Reader("math"), Reader("prose")]
    return Mixed(Mixed.Params(), *parts), parts


ROUTED = [
    ("", "", "", ""),
    (" \n\t", "", "", ""),
    ("Plain prose, nothing else.", "", "", "Plain prose, nothing else."),
    ("Run\n```python\nx = 1\n```\nnow.", "```python\nx = 1\n```", "", "Run|now."),
    ("Call `f(x)` or ``a`b``!", "```\nf(x)\n```\n|```\na`b\n```\n", "", "Call|or|!"),
    (r"So \(x^2\) and $y$ hold.", "", r"\(x^2\)|$y$", "So|and|hold."),
    ("He has 5 + 3 = 8 lamps.\n#### 8", "", "5 + 3 = 8|#### 8", "He has|lamps."),
    ("```\n$x$ 1 + 1 = 2\n```", "```\n$x$ 1 + 1 = 2\n```", "", ""),
    ("In `$HOME` it costs $5 and $6.", "```\n$HOME\n```\n", "", "In|it costs $5 and $6."),
    ("~~~js\nlet a = `b`\n~~~", "~~~js\nlet a = `b`\n~~~", "", ""),
    ("```math\nx = 1\n```\n\\[ y \\]", "", "```math\nx = 1\n```|\\[ y \\]", ""),
    ("```text\nonly words\n```", "", "", "```text\nonly words\n```"),
    ("````md\nDo:\n```c\nint x;\n```\n````", "```c\nint x;\n```", "", "````md\nDo:|````"),
    ("cut off:\n```py\nprint(1", "```py\nprint(1", "", "cut off:"),
    ("one ` tick, and ``quotes'' here ``too''", "", "", "one ` tick, and ``quotes'' here ``too''"),
    ("- ```sh\n  ls\n  ```\n- 😀 日本語", "```sh\n  ls\n  ```", "", "-|- 😀 日本語"),
    ("a\r\n```c\r\nint x;\r\n```\r\nb", "```c\r\nint x;\r\n```\r", "", "a|b"),
    ("empty ``` ``` and\n```\n\n```\nend", "", "", "empty ``` ``` and\n```\n\n```\nend"),
    ("Write:\ndef f(r):\n    return 2 * r\n\nDone.", "def f(r):\n    return 2 * r", "", "Write:|Done."),
    ("x = 5\ny = 3 + 4", "", "x = 5|y = 3 + 4", ""),
    ("side = sqrt(8^2 + 6^2)\nside = 10", "", "= sqrt(8^2 + 6^2)|= 10", "side|side"),
    ("Dear Ann;\nI wrote, see below:\n(Bob);", "", "", "Dear Ann;\nI wrote, see below:\n(Bob);"),
    ("```c\nint x;\n```\nimport this\nprint(x)", "```c\nint x;\n```", "", "import this\nprint(x)"),
    (r"`x` = \(x\)", "```\nx\n```\n", r"\(x\)", "="),
]


@pytest.mark.parametrize(("text", "code", "math", "prose"), ROUTED, ids=lambda value: value[:20])
def test_each_segment_goes_to_its_extractor(text: str, code: str, math: str, prose: str) -> None:
    mixed, parts = readers()
    mixed.extract([text])
    read = ["|".join(call) for part in parts for call in (part.calls or [[]])]
    assert read == [code, math, prose]


def test_each_part_is_called_once_for_all_texts_and_not_without_a_segment() -> None:
    mixed, (code, math, prose) = readers()
    span_set = mixed.extract(["a `b` c", "", "`d`", "e"])
    assert (len(code.calls), math.calls, prose.calls) == (1, [], [["a", "c", "e"]])
    # What stands around inline code for the reader is no part of the text: a span over it is dropped.
    assert span_set == [{"pieces": spans} for spans in ([(0, 1), (6, 7)], [], [], [(0, 1)])]


def test_failures_are_those_of_the_parts() -> None:
    mixed, _ = readers()
    assert mixed.failures(["a? `b?` $c?$ ```", "", "?? `x` ?"]) == [3, 0, 3]
    assert MIXED.failures([r"$\frac{1$ `x` \( a = (b \)", "fine"]) == [2, 0]
    assert MIXED.failures([]) == []


def test_the_whole_needs_gives_and_depends_on_what_the_parts_do() -> None:
    parts = [Reader("code", ("words", "calls")), Reader("math", ("words", "phrases")), WORDS]
    mixed = Mixed(Mixed.Params(), *parts)
    assert mixed.granularities == ("words", "calls", "phrases")
    assert mixed.extract(["`a` b"])[0]["phrases"] == []
    assert (mixed.overlap("words"), MIXED.overlap("words"), MIXED.overlap("phrases")) == ("any", "none", "nested")
    assert json.loads(mixed.fingerprint())[1:] == [part.fingerprint() for part in parts]


@pytest.mark.parametrize("name", ["code", "math", "mixed"])
def test_prose_may_repeat_its_ranges(name: str) -> None:
    prose = {"name": "spacy_phrases", "params": {"words": "within_each_phrase"}}
    extractor: SpanExtractor = discover().create("span_extractors", name, {"prose": prose})
    assert extractor.overlap("words") == "repeated"


def test_code_formulas_and_prose_of_one_answer() -> None:
    text = "Use `x_sum`:\n```python\ntotal = add(x, 2)\n```\nThen \\(t = 2x\\), so 5 * 3 = 15 lamps."
    (span_set,) = MIXED.extract([text])
    words = [text[start:end] for start, end in span_set["words"]]
    assert words == "Use x_sum total = add x 2 Then t 2 x so 5 3 15 lamps".split()  # noqa: SIM905
    phrases = [text[start:end] for start, end in span_set["phrases"]]
    assert {"total = add(x, 2)", "add(x, 2)", "t", "2x", "5 * 3", "15"} <= set(phrases)
    assert not {phrase for phrase in phrases if "`" in phrase or "\\(" in phrase}


CODES = [
    "`",
    "``",
    "```",
    "\n```\n",
    "```python\n",
    "~~~\n",
    "x = f(1)",
    "- ",
    "```text\n",
    "import a\n",
    "def f(x):\n    return x\n",
]
FORMULAS = ["$", "$$", "\\(", "\\)", "1 + 2 = 3", "<<1=1>>", "\\frac{1}{2}", "```math\n", "#### 4", "("]
PROSE = ["\n", "\n\n", " ", "word", "😀", "é", "日本", "\t", "\r\n", "\u2028"]
PIECES = st.sampled_from([*CODES, *FORMULAS, *PROSE])
TEXTS = st.one_of(st.text(max_size=30), st.lists(PIECES, max_size=20).map("".join))


@settings(max_examples=150, deadline=None)
@given(text=TEXTS)
def test_segments_are_disjoint_and_drop_nothing_but_delimiters_and_white_space(text: str) -> None:
    mixed, _ = readers()
    (span_set,) = mixed.extract([text])
    covered = [offset for start, end in span_set["pieces"] for offset in range(start, end)]
    assert covered == sorted(set(covered))
    # Inline code was given in fences, and its reader's span over all of it dropped: it stands between backticks.
    left = "".join(character for offset, character in enumerate(text) if offset not in set(covered))
    assert not left.strip() or "`" in left


@settings(max_examples=150, deadline=None)
@given(text=TEXTS)
def test_spans_are_sorted_within_the_text_and_lie_as_promised(text: str) -> None:
    # Refuses what breaks the contract, and what overlaps in another way than promised.
    (checked,) = extract(MIXED, [text])
    (span_set,) = MIXED.extract([text])
    assert {name: list(map(list, spans)) for name, spans in span_set.items()} == {
        name: spans.tolist() for name, spans in checked.items()
    }
    assert all(spans == sorted(set(spans), key=lambda span: (span[0], -span[1])) for spans in span_set.values())


@settings(max_examples=30, deadline=None)
@given(texts=st.lists(TEXTS, max_size=5))
def test_texts_do_not_influence_each_other(texts: list[str]) -> None:
    assert MIXED.extract(texts) == [MIXED.extract([text])[0] for text in texts]
    assert MIXED.failures(texts) == [MIXED.failures([text])[0] for text in texts]


def test_one_process_and_two_in_batches_of_one_and_of_64_give_the_same(tmp_path: Path) -> None:
    texts = [
        f"Number {n}: `x{n}`, {n} * {n} = {n * n}.\n```python\nfor i in range({n}):\n    print(i)\n```"
        for n in range(400)
    ]
    single = [{name: list(map(list, spans)) for name, spans in MIXED.extract([text])[0].items()} for text in texts]
    for processes in (1, 2):
        cached = SpanCache(tmp_path / str(processes), MIXED, processes).spans(texts)
        assert [{name: spans.tolist() for name, spans in span_set.items()} for span_set in cached] == single
    batched = [span_set for first in range(0, 400, 64) for span_set in MIXED.extract(texts[first : first + 64])]
    assert [{name: list(map(list, spans)) for name, spans in span_set.items()} for span_set in batched] == single


def test_text_that_opens_fences_without_end_is_read_all_the_same():
    text = "```md\n~~~md\n" * 1000 + "x = 1\n"
    (span_set,) = MIXED.extract([text])
    assert all(0 <= start < end <= len(text) for spans in span_set.values() for start, end in spans)
