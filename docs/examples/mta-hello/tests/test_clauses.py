"""Clauses: the contract of every span extractor, and texts marked by hand."""

import pytest

from mta_framework.registry import discover
from mta_framework.testing import SpanExtractorContract
from mta_hello.clauses import Clauses


class TestContract(SpanExtractorContract):
    @pytest.fixture(params=[1, 3])
    def plugin(self, request):
        return Clauses(Clauses.Params(min_words=request.param))


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("She sang, and they danced.", ["She sang", "and they danced"]),
        ("Yes. The old keeper's lamp (a broken one) shone", ["The old keeper's lamp", "a broken one"]),
        ("Il pleut : rentrons vite !", ["Il pleut", "rentrons vite"]),
        ("今日は雨です。傘が、いります。", []),
        ("no marks at all", ["no marks at all"]),
        ("one\ntwo three\r\nfour five", ["two three", "four five"]),
        ("... -- !", []),
        ("", []),
    ],
)
def test_a_clause_reaches_from_mark_to_mark(text, phrases):
    (spans,) = Clauses(Clauses.Params()).extract([text])
    assert [text[start:end] for start, end in spans["phrases"]] == phrases


def test_short_clauses_are_left_out_as_asked():
    (spans,) = Clauses(Clauses.Params(min_words=3)).extract(["She sang, and they danced."])
    assert spans["phrases"] == [(10, 25)]


def test_it_is_found_once_the_distribution_is_installed():
    registered = discover().find("span_extractors", "clauses", "this test")
    assert registered.plugin is Clauses
    assert registered.provider.startswith("mta-hello 0.1.0")
