"""The Stanza extractor on real pipelines, which a script trains on a few dozen English sentences."""

from __future__ import annotations

import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mta_framework import RunError
from mta_framework.spans.cache import SpanCache
from mta_framework.spans.phrases import by_constituents, by_dependencies, outermost_phrases
from mta_plugins.span_extractors import stanza_phrases
from mta_plugins.span_extractors.stanza_phrases import StanzaPhrases

MARKED = {
    "The old keeper has carefully repaired the broken lamp.": [
        "The old keeper",
        "has carefully repaired",
        "the broken lamp",
    ],
    "She didn't know.": ["She", "didn't know"],
    "The company's revenue rose quickly!": ["The company's revenue", "rose quickly"],
    "Anna wants to sell the old map.\n\n\nHe is a doctor.": ["Anna", "wants", "sell", "the old map", "He", "a doctor"],
    "The keeper of the old lighthouse sold a red bicycle.": [
        "The keeper",
        "the old lighthouse",
        "sold",
        "a red bicycle",
    ],
    "Rain.  She gave up quickly.": ["Rain", "She", "gave up quickly"],
}
SENTENCE = "The old keeper has repaired the broken lamp."


@pytest.fixture(scope="session")
def without_constituents(tiny_stanza: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same models without the parser for constituents, and words as their own lemmas."""
    folder = tmp_path_factory.mktemp("stanza") / "models"
    shutil.copytree(tiny_stanza, folder)
    shutil.rmtree(folder / "en" / "constituency")
    return folder


def extractor(folder: Path, **options: str) -> StanzaPhrases:
    return StanzaPhrases(StanzaPhrases.Params(model_dir=str(folder), **options))


def phrases(folder: Path, texts: list[str]) -> list[list[str]]:
    span_sets = extractor(folder).extract(texts)
    return [[text[start:end] for start, end in spans["phrases"]] for text, spans in zip(texts, span_sets, strict=True)]


def marked_right(folder: Path) -> int:
    """How many marked texts are found as marked: training ends a little differently on every kind of machine."""
    by_text = phrases(folder, list(MARKED))
    return sum(one == expected for one, expected in zip(by_text, MARKED.values(), strict=True))


def test_most_marked_texts_are_found_by_constituents(tiny_stanza: Path) -> None:
    assert "constituency" in stanza_phrases._load(extractor(tiny_stanza)._models).processors
    assert marked_right(tiny_stanza) >= len(MARKED) - 2


def test_most_marked_texts_are_found_by_dependencies(without_constituents: Path) -> None:
    assert "constituency" not in stanza_phrases._load(extractor(without_constituents)._models).processors
    assert marked_right(without_constituents) >= len(MARKED) - 2


def test_nearly_all_sentences_of_the_treebank_are_found_as_their_trees_have_them(tiny_stanza: Path) -> None:
    """By both rules, which agree on every one of these trees."""
    from stanza.models.constituency.tree_reader import read_trees

    path = Path(__file__).parents[1] / "tiny_stanza" / "train.py"
    treebank = runpy.run_path(str(path))["read"]()
    right = 0
    for sentence, spans in zip(treebank, extractor(tiny_stanza).extract([one.text for one in treebank]), strict=True):
        words = [SimpleNamespace(text=w.text, upos=w.tag, head=w.head, deprel=w.relation) for w in sentence.words]
        (tree,) = read_trees(f"(ROOT {sentence.brackets})")
        expected = outermost_phrases(by_constituents(tree, words))
        assert outermost_phrases(by_dependencies(words)) == expected
        texts = [sentence.text[start:end] for start, end in spans["phrases"]]
        joined = ["".join(words[index].text for index in range(*phrase)) for phrase in expected]
        right += ["".join(phrase.split()) for phrase in texts] == joined
    assert right >= 0.8 * len(treebank)


def test_words_are_those_in_phrases_or_all(tiny_stanza: Path) -> None:
    text = "In the garden, the children found an old map."
    (within,) = extractor(tiny_stanza).extract([text])
    (every,) = extractor(tiny_stanza, words="all").extract([text])
    inside = [
        (start, end) for start, end in every["words"] if any(a <= start and end <= b for a, b in every["phrases"])
    ]
    assert len(within["words"]) > 4
    assert [start for start, _ in within["words"]] == [start for start, _ in inside]
    assert {text[start:end] for start, end in within["words"]} >= {"the ", "garden", "an ", "old ", "map"}
    assert [text[start:end] for start, end in every["words"]] == text.replace(",", "").replace(".", "").split()
    assert within["phrases"] == every["phrases"]


def test_no_texts_and_texts_without_words_are_normal(tiny_stanza: Path) -> None:
    one = extractor(tiny_stanza)
    assert one.extract([]) == []
    assert one.extract(["", " \n\n\t", "\x85\u2028"]) == [{"words": [], "phrases": []}] * 3


PIECES = st.sampled_from(
    [*SENTENCE.split(), "\n\n", "\r\n", "\t", "😀", "日本", "e\u0301", "\x85", "...", "didn't", "\u200b"]
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(PIECES, max_size=12).map(" ".join), min_size=1, max_size=6))
def test_spans_lie_in_their_text_and_do_not_depend_on_the_others(tiny_stanza: Path, texts: list[str]) -> None:
    one = extractor(tiny_stanza)
    together = one.extract(texts)
    assert [one.extract([text])[0] for text in texts] == together
    for text, span_set in zip(texts, together, strict=True):
        for spans in span_set.values():
            assert all(0 <= start < end <= len(text) for start, end in spans)
            assert spans == sorted(set(spans), key=lambda span: (span[0], -span[1]))
            assert not any(text[start].isspace() for start, _ in spans)


@pytest.mark.slow
def test_one_process_and_two_find_the_same(tiny_stanza: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mta_framework.spans.cache._TEXTS_PER_PROCESS", 8)
    texts = [f"{text} {index}" for index in range(4) for text in MARKED]
    results = []
    for processes in (1, 2):
        cache = SpanCache(tmp_path / str(processes), extractor(tiny_stanza), processes)
        results.append([{name: spans.tolist() for name, spans in one.items()} for one in cache.spans(texts)])
        assert cache.parsed == len(texts)
    assert results[0] == results[1]


def test_sentences_that_are_too_long_have_no_phrases_and_are_counted(tiny_stanza: Path) -> None:
    text = f"{SENTENCE}\n\n{'very ' * 600}old"
    one = extractor(tiny_stanza, words="all")
    (spans,) = one.extract([text])
    assert spans["phrases"] == one.extract([SENTENCE])[0]["phrases"]
    assert len(spans["words"]) == 8 + 601
    assert one.failures([text, SENTENCE, ""]) == [1, 0, 0]


def test_a_sentence_that_the_parser_drops_leaves_the_others(tiny_stanza: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = extractor(tiny_stanza)
    model = stanza_phrases._load(one._models).processors["constituency"]._model
    parse = model.parse_tagged_words

    def drop(sentences, batch_size):
        return parse([words for words in sentences if words[0][0] != "Rain"], batch_size)

    texts = ["Rain. She didn't know.", SENTENCE]
    rain, *others = [phrase for of_text in phrases(tiny_stanza, texts) for phrase in of_text]
    assert rain == "Rain"
    monkeypatch.setattr(model, "parse_tagged_words", drop)
    stanza_phrases._parsed.cache_clear()
    try:
        assert [phrase for of_text in phrases(tiny_stanza, texts) for phrase in of_text] == others
        assert one.failures(texts) == [1, 0]
    finally:
        stanza_phrases._parsed.cache_clear()


def test_missing_models_are_reported_with_the_command_that_gets_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = extractor(tmp_path, language="de")
    command = f"python -c \"import stanza; stanza.download('de', model_dir={str(tmp_path)!r})\""
    assert one.require() == f"Stanza's models for 'de' are not in {tmp_path}: {command}."
    with pytest.raises(RunError, match="are not in"):
        one.extract(["Ja."])
    assert json.loads(one.fingerprint())["models"] == {}
    monkeypatch.setenv("STANZA_RESOURCES_DIR", str(tmp_path))
    default = StanzaPhrases(StanzaPhrases.Params())
    assert str(default.require()).endswith("python -c \"import stanza; stanza.download('en')\".")
    monkeypatch.setattr(stanza_phrases, "find_spec", lambda name: None)
    assert "pip install 'mta-framework[stanza]'" in str(default.require())


def test_the_default_folder_is_the_one_that_stanza_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STANZA_RESOURCES_DIR", raising=False)
    code = "from stanza.resources.common import DEFAULT_MODEL_DIR; print(DEFAULT_MODEL_DIR)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert stanza_phrases._default_folder() == Path(printed)


def test_one_missing_file_is_enough_to_be_incomplete(without_constituents: Path, tmp_path: Path) -> None:
    for gone in ("tokenize", "pos", "depparse"):
        folder = tmp_path / gone
        shutil.copytree(without_constituents, folder)
        (folder / "en" / gone / "tiny.pt").unlink()
        assert "are not in" in str(extractor(folder).require())
    (tmp_path / "pos" / "resources.json").write_text("{", encoding="utf-8")
    assert extractor(tmp_path / "pos").require() is not None


def test_languages_go_by_their_other_names_and_unknown_ones_are_refused(tiny_stanza: Path) -> None:
    assert extractor(tiny_stanza, language="english").require() is None
    assert phrases(tiny_stanza, [SENTENCE]) == [
        [
            SENTENCE[start:end]
            for start, end in extractor(tiny_stanza, language="english").extract([SENTENCE])[0]["phrases"]
        ]
    ]
    assert "no default models for the language 'xx'" in str(extractor(tiny_stanza, language="xx").require())


@pytest.mark.parametrize("language", ["", "../en", "EN", "en/x", "a" * 41])
def test_a_path_is_no_language(language: str) -> None:
    with pytest.raises(ValidationError):
        StanzaPhrases.Params(language=language)


def test_a_relative_folder_is_refused() -> None:
    with pytest.raises(ValidationError, match="absolute path"):
        StanzaPhrases.Params(model_dir="models")
    assert StanzaPhrases.Params(model_dir="~/models").model_dir == "~/models"


def test_the_fingerprint_is_that_of_options_versions_and_models_wherever_they_lie(
    tiny_stanza: Path, without_constituents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = extractor(tiny_stanza).fingerprint()
    moved = tmp_path / "moved"
    shutil.copytree(tiny_stanza, moved)
    assert extractor(moved).fingerprint() == before
    assert len(json.loads(before)["models"]) == 5
    others = [extractor(tiny_stanza, words="all"), extractor(without_constituents)]
    with (moved / "en" / "pretrain" / "tiny.pt").open("ab") as file:
        file.write(b"x")
    others.append(extractor(moved))
    monkeypatch.setattr(stanza_phrases, "version", lambda name: "99.0")
    others.append(extractor(tiny_stanza))
    assert len({before, *(one.fingerprint() for one in others)}) == 5


def test_asking_what_is_missing_loads_no_parser(tiny_stanza: Path) -> None:
    code = (
        "import sys; from mta_plugins.span_extractors.stanza_phrases import StanzaPhrases as S;"
        f"e = S(S.Params(model_dir={str(tiny_stanza)!r})); assert e.require() is None; e.fingerprint();"
        "print([m for m in ('stanza', 'torch', 'numpy', 'transformers') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_nothing_is_downloaded_and_threads_are_as_before(tiny_stanza: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    import torch

    def refuse(*arguments: object) -> None:
        raise AssertionError("no connection may be opened")

    stanza_phrases._load.cache_clear()
    monkeypatch.setattr(socket.socket, "connect", refuse)
    before = torch.get_num_threads()
    assert phrases(tiny_stanza, [SENTENCE])[0]
    assert torch.get_num_threads() == before


def test_constituents_by_other_names_give_way_to_dependencies(
    tiny_stanza: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stanza.pipeline.constituency_processor import ConstituencyProcessor

    stanza_phrases._load.cache_clear()
    monkeypatch.setattr(ConstituencyProcessor, "get_constituents", lambda self: {"sn", "grup.verb"})
    try:
        assert "depparse" in stanza_phrases._load(extractor(tiny_stanza)._models).processors
    finally:
        stanza_phrases._load.cache_clear()
