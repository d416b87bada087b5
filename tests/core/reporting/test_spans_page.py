"""The page: well-formed, self-contained, escaped, and with the text as it is."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from hypothesis import given, settings
from hypothesis import strategies as st

from mta_framework.reporting.annotated_text import AnnotatedText
from mta_framework.reporting.span_html import spans_page
from mta_framework.reporting.span_statistics import statistics_notes, statistics_table

VOID = {"meta", "input", "br"}


class Reader(HTMLParser):
    """The text of each paragraph and the classes that it has, character by character; every tag must be closed."""

    def __init__(self, source: str):
        super().__init__()
        self.open: list[tuple[str, str]] = []
        self.tags: set[str] = set()
        self.texts: list[list[tuple[str, str]]] = []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append((tag, dict(attrs).get("class") or ""))
        if tag == "p" and self.open[-1][1] == "text":
            self.texts.append([])

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        if ("p", "text") in self.open:
            classes = self.open[-1][1] if self.open[-1][0] == "span" else ""
            self.texts[-1] += [(character, classes) for character in data]


def written(*texts: AnnotatedText, title: str = "spec.json") -> str:
    notes = list(statistics_notes([0] * len(texts), texts, 1.0))
    return spans_page(title, texts, statistics_table(texts), notes)


@settings(max_examples=40, deadline=None)
@given(
    st.text(st.sampled_from("ab<&>\"' \n日😀"), max_size=12),
    st.sets(st.tuples(st.integers(0, 11), st.integers(1, 12)), max_size=6),
)
def test_texts_stand_in_the_page_as_they_are_and_spans_are_marked(text: str, pairs: set[tuple[int, int]]) -> None:
    spans = sorted((a, b) for a, b in pairs if a < b <= len(text))
    (characters,) = Reader(written(AnnotatedText(text, {"w": spans, "p": []}))).texts
    assert "".join(character for character, _ in characters) == text
    for offset, (_, classes) in enumerate(characters):
        marks = [name for name in classes.split() if re.fullmatch(r"t\d+[ab]", name)]
        assert len(marks) == sum(start <= offset < end for start, end in spans)


def test_the_page_needs_nothing_else() -> None:
    source = written(AnnotatedText("<script>alert(1)</script>", {"<b>": [(0, 3)]}), title="<img src=x>")
    assert not Reader(source).tags & {"script", "img", "link", "iframe", "b"}
    assert not re.search(r"https?://|@import|url\(", source)


def test_the_page_suits_dark_screens_and_narrow_ones() -> None:
    source = written(AnnotatedText("a", {"w": []}))
    assert "prefers-color-scheme: dark" in source
    assert 'name="viewport"' in source
    assert "overflow-wrap: anywhere" in source


def test_tracks_that_no_text_needs_are_not_there_and_spans_in_turn_differ() -> None:
    source = written(AnnotatedText("ab cd", {"w": [(0, 2), (3, 5)], "p": [(0, 5), (1, 4)]}))
    (characters,) = Reader(source).texts
    assert [classes for _, classes in characters] == [
        "s t0a t1a",
        "s t0a t1a t2a",
        "s t1a t2a",
        "s t0b t1a t2a",
        "s t0b t1a",
    ]
    assert "--t3" not in source


def test_tokens_and_weights_can_be_switched() -> None:
    text = AnnotatedText("abc", {"w": [(0, 1)]}, [(0, 2), (2, 3)], {"w": 0}, {"w": [1.0, 1.0, 0.25], "p": [0.5] * 3})
    source = written(text)
    (characters,) = Reader(source).texts
    assert [classes for _, classes in characters] == ["s t0a b", "s", "s b"]
    assert 'style="--w0:1.00;--w1:0.50"' in source
    assert 'style="--w0:0.25;--w1:0.50"' in source
    assert all(control in source for control in ('id="tokens"', 'id="weight0"', 'id="weight1"', 'id="show0"'))
    assert 'id="tokens"' not in written(AnnotatedText("abc", {"w": []}))
