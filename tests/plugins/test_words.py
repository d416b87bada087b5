"""The words extractor, in any script."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mta_plugins.span_extractors.words import Words


def words(text: str) -> list[str]:
    ((spans,),) = (span_set.values() for span_set in Words(Words.Params()).extract([text]))
    return [text[start:end] for start, end in spans]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \n\t", []),
        ("The old lamp.", ["The", "old", "lamp"]),
        ("I don't know, it’s a well-known 'quote'-", ["I", "don't", "know", "it’s", "a", "well-known", "quote"]),
        ("snake_case a--b x''y", ["snake", "case", "a", "b", "x", "y"]),
        ("In 2019 it rose by 12%", ["In", "2019", "it", "rose", "by", "12"]),
        ("日本語を、話す", ["日本語を", "話す"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("می\u200cخواهم رفت", ["می\u200cخواهم", "رفت"]),
        ("cafe\u0301 Ärger naïve", ["cafe\u0301", "Ärger", "naïve"]),
        ("good 😀👍🏽 ❤\ufe0f 👩\u200d💻 🇩🇪 … — ! ok", ["good", "ok"]),
        ("\u0301a", ["a"]),
    ],
)
def test_words_are_runs_of_letters_digits_and_marks(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=30))
def test_every_letter_and_digit_lies_in_exactly_one_word(text: str) -> None:
    ((spans,),) = (span_set.values() for span_set in Words(Words.Params()).extract([text]))
    covered = [index for start, end in spans for index in range(start, end)]
    assert covered == sorted(set(covered))
    letters = {index for index, character in enumerate(text) if unicodedata.category(character)[0] in "LN"}
    assert letters <= set(covered)


def test_texts_do_not_influence_each_other() -> None:
    extractor = Words(Words.Params())
    texts = ["one two", "", "drei-vier"]
    assert extractor.extract(texts) == [extractor.extract([text])[0] for text in texts]
    assert extractor.granularities == ("words",)
    assert extractor.require() is None
