"""Phrases and words by a Stanza pipeline, in about seventy languages."""

from __future__ import annotations

import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache, lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import Field, field_validator

from mta_framework import PluginParams, RunError, Span, SpanExtractor, SpanSet
from mta_framework.spans.phrases import HEADS, by_constituents, by_dependencies, outermost_phrases, words_within

if TYPE_CHECKING:
    from stanza.models.common.doc import Document, Sentence, Word
    from stanza.pipeline.core import Pipeline

_LONGEST = 500
"""Maximum number of words of a sentence that is parsed: memory grows with the square of it."""

_BY_CONSTITUENTS = ("tokenize", "mwt", "pos", "constituency")
_BY_DEPENDENCIES = ("tokenize", "mwt", "pos", "lemma", "depparse")
_OPTIONAL = {"mwt"}


class StanzaPhrases(SpanExtractor):
    """Noun phrases and verb groups, and the words in them, by a Stanza pipeline.

    Noun phrases extend from their first word to the last one before a clause or a prepositional phrase; verb groups are
    a verb with adjacent auxiliaries, adverbs and particles. They are found in the constituents NP and VP where the
    language has a constituency parser, else in dependencies. As in ``spacy_phrases``, they are sorted by (start, -end),
    one that ends no later than the last kept one is dropped, and words are the tokens inside them or all tokens except
    punctuation.

    A sentence of more than 500 words, or one that the parser fails on, has no phrases and counts as a failure. Parsing
    runs on the CPU, in one thread. Models are read from disk and never downloaded.
    """

    NAME = "stanza_phrases"
    PACKAGES = ("stanza",)
    VERSION = "1"

    class Params(PluginParams):
        """Stanza models, and choice of words."""

        language: str = Field(
            "en",
            pattern=r"^[a-z]+(-[a-z]+)*$",
            max_length=40,
            description="Stanza's language code, e.g. 'de' or 'zh-hans'.",
        )
        model_dir: str | None = Field(
            None,
            min_length=1,
            max_length=1000,
            description="Folder with the downloaded Stanza models, absolute or from ~; null means Stanza's default.",
        )
        words: Literal["within_phrases", "all"] = Field(
            "within_phrases",
            description="Which tokens are words: those inside phrases (as in the paper), or all but punctuation.",
        )

        @field_validator("model_dir")
        @classmethod
        def _absolute(cls, folder: str | None) -> str | None:
            if folder is not None and not Path(folder).expanduser().is_absolute():
                raise ValueError("must be an absolute path, or begin with ~")
            return folder

    params: Params

    @property
    def granularities(self) -> tuple[str, ...]:
        return ("words", "phrases")

    def fingerprint(self) -> str:
        entries = json.loads(super().fingerprint())
        # The digests of the models identify them, in whatever folder they are.
        del entries["params"]["model_dir"]
        entries |= {"stanza": version("stanza"), "models": self._models.digests()}
        return json.dumps(entries, sort_keys=True)

    def require(self) -> str | None:
        if find_spec("stanza") is None:
            return "Stanza is not installed: pip install 'mta-framework[stanza]'."
        return self._models.missing()

    def extract(self, texts: Sequence[str]) -> list[SpanSet]:
        parsed = zip(texts, self._parse(texts), strict=True)
        return [_span_set(text, sentences, self.params.words == "all") for text, sentences in parsed]

    def failures(self, texts: Sequence[str]) -> list[int]:
        return [sum(_phrases(sentence) is None for sentence in sentences) for sentences in self._parse(texts)]

    def _parse(self, texts: Sequence[str]) -> list[list[Sentence]]:
        return _parsed(self._models, tuple(texts))

    @property
    def _models(self) -> _Models:
        folder = self.params.model_dir
        return _Models(Path(folder).expanduser() if folder else _default_folder(), self.params.language)


class _Models(NamedTuple):
    """The models of a language on disk, in Stanza's folder layout; inspected without loading them."""

    folder: Path
    language: str

    def missing(self) -> str | None:
        """What to do before the models can be loaded; None if they are complete."""
        if self.sets():
            return None
        listing = self.folder / "resources.json"
        if listing.is_file() and not self.packages():
            return f"{listing} has no default models for the language {self.language!r}: name another."
        where = "" if self.folder == _default_folder() else f", model_dir={str(self.folder)!r}"
        command = f'python -c "import stanza; stanza.download({self.language!r}{where})"'
        return f"Stanza's models for {self.language!r} are not in {self.folder}: {command}."

    def sets(self) -> list[dict[str, str]]:
        """Each complete set of models, as processor -> name, constituency first."""
        packages = self.packages()
        whole = []
        for processors in (_BY_CONSTITUENTS, _BY_DEPENDENCIES):
            chosen = {name: packages[name] for name in processors if name in packages}
            if {*processors} - _OPTIONAL <= {*chosen} and all(path.is_file() for path in self._files(chosen)):
                whole.append(chosen)
        return whole

    def digests(self) -> dict[str, str]:
        """Digest of every model that may be used, by its path in the folder."""
        files = {path for chosen in self.sets() for path in self._files(chosen)}
        return {path.relative_to(self.folder).as_posix(): _digest(path, _stamp(path)) for path in sorted(files)}

    def packages(self) -> Mapping[str, str]:
        """Processor -> name of its default model."""
        _, entry = self._entry()
        return entry.get("packages", {}).get("default", {})

    def _files(self, chosen: Mapping[str, str]) -> Iterator[Path]:
        code, entry = self._entry()
        for processor, name in chosen.items():
            if (processor, name) == ("lemma", "identity"):
                continue
            yield self.folder / code / processor / f"{name}.pt"
            for part in entry.get(processor, {}).get(name, {}).get("dependencies", []):
                yield self.folder / code / part["model"] / f"{part['package']}.pt"

    def _entry(self) -> tuple[str, Mapping[str, Any]]:
        """Code of the language and its entry in the list of models; empty without a list."""
        listing = self.folder / "resources.json"
        languages = _listed(listing, _stamp(listing)) if listing.is_file() else {}
        code = languages.get(self.language, {}).get("alias", self.language)
        return code, languages.get(code, {})


@lru_cache(maxsize=1)  # spans and failures of the same texts are requested one after the other
def _parsed(models: _Models, texts: tuple[str, ...]) -> list[list[Sentence]]:
    nlp = _load(models)
    with _one_thread():
        # Text by text: in bulk, Stanza joins texts, and the tokens of one may depend on the next.
        documents = [nlp.process(text, processors=["tokenize"]) for text in texts]
        parsed = [list(document.sentences) for document in documents]
        _annotate(nlp, documents)
    return parsed


def _default_folder() -> Path:
    """Stanza's default download folder, computed as Stanza does, but without importing it."""
    from platformdirs import user_cache_dir

    if named := os.getenv("STANZA_RESOURCES_DIR"):
        return Path(named)
    package = find_spec("stanza")
    source = Path(package.origin).with_name("_version.py").read_text("utf-8") if package and package.origin else ""
    match = re.search(r"__resources_version__ = '([^']+)'", source)
    return Path(user_cache_dir("stanza", "StanfordNLP", match[1] if match else None), "resources")


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


@cache
def _listed(listing: Path, stamp: tuple[int, int]) -> Mapping[str, Any]:
    try:
        return dict(json.loads(listing.read_text(encoding="utf-8")))
    except ValueError:
        return {}


@cache
def _digest(path: Path, stamp: tuple[int, int]) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def _load(models: _Models) -> Pipeline:
    # Not an attribute of the extractor, so that the extractor is small to send to worker processes.
    from stanza.pipeline.core import Pipeline

    if missing := models.missing():
        raise RunError(missing)
    for chosen in models.sets():
        nlp = Pipeline(
            models.language,
            dir=str(models.folder),
            package=None,
            processors=chosen,
            download_method=None,
            use_gpu=False,
            logging_level="ERROR",
        )
        parser = nlp.processors.get("constituency")
        if parser is None or {"NP", "VP"} <= parser.get_constituents():
            return nlp
    raise RunError(f"Stanza's constituents for {models.language!r} are not called NP and VP; download depparse too")


@contextmanager
def _one_thread() -> Iterator[None]:
    """Use one thread: processes share the work, and more threads would be slower, and hang in forked processes."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _annotate(nlp: Pipeline, documents: Sequence[Document]) -> None:
    """Tag and parse all sentences at once, except those that are too long."""
    for document in documents:
        document.sentences = [sentence for sentence in document.sentences if len(sentence.tokens) <= _LONGEST]
        document.num_tokens = sum(len(sentence.tokens) for sentence in document.sentences)
        document.num_words = sum(len(sentence.words) for sentence in document.sentences)
    documents = [document for document in documents if document.sentences]
    nlp.process(documents, processors=[name for name in _BY_DEPENDENCIES if name != "tokenize"])
    if "constituency" in nlp.processors:
        _bracket(nlp, documents)


def _bracket(nlp: Pipeline, documents: Sequence[Document]) -> None:
    """Parse constituents; a sentence that Stanza fails on, which would fail all of them, is left without."""
    try:
        nlp.process(documents, processors=["constituency"])
    except AssertionError:
        for document in documents:
            sentences = document.sentences
            for sentence in sentences:
                document.sentences = [sentence]
                with suppress(AssertionError):
                    nlp.process(document, processors=["constituency"])
            document.sentences = sentences


def _span_set(text: str, sentences: Sequence[Sentence], all_words: bool) -> SpanSet:
    tokens: list[Span] = []
    ranges: list[Span] = []
    for sentence in sentences:
        units = _units(sentence)
        for phrase in _phrases(sentence) or ():
            first, end = _unit_range(phrase, sentence.words, units)
            if first < end:
                ranges.append((len(tokens) + first, len(tokens) + end))
        tokens += [(unit.start, unit.end) for unit in units]
    phrases = outermost_phrases(ranges)
    if all_words:
        words = [(start, end) for start, end in tokens if not _is_punctuation(text[start:end])]
    else:
        words = words_within(tokens, phrases)
    return {"words": words, "phrases": [(tokens[first][0], tokens[end - 1][1]) for first, end in phrases]}


def _is_punctuation(text: str) -> bool:
    return all(unicodedata.category(character).startswith("P") for character in text)


class _Unit(NamedTuple):
    """A character range that cannot be split, and the indices of its words: several only in a contraction."""

    start: int
    end: int
    words: range


def _units(sentence: Sentence) -> list[_Unit]:
    units = []
    index = 0
    for token in sentence.tokens:
        indices = range(index, index + len(token.words))
        index = indices.stop
        if token.words and all(word.start_char is not None for word in token.words):
            pairs = zip(token.words, indices, strict=True)
            units += [_Unit(word.start_char, word.end_char, range(n, n + 1)) for word, n in pairs]
        else:
            units.append(_Unit(token.start_char, token.end_char, indices))
    return units


def _unit_range(phrase: Span, words: Sequence[Word], units: Sequence[_Unit]) -> Span:
    """Convert a range of words to one of units; a contraction is in it with all its words, or with a noun or verb.

    So "du chat" (de + le chat) gives "chat", and "damelo" (da + me + lo) stays whole.
    """
    first, end = phrase

    def belongs(unit: _Unit) -> bool:
        inside = range(max(unit.words.start, first), min(unit.words.stop, end))
        heads = any(words[index].upos in HEADS for index in inside)
        return bool(inside) and (len(inside) == len(unit.words) or heads)

    inside = [index for index, unit in enumerate(units) if belongs(unit)]
    return (inside[0], inside[-1] + 1) if inside else (0, 0)


def _phrases(sentence: Sentence) -> list[Span] | None:
    """Half-open ranges of word indices; None if the sentence was not parsed."""
    words = sentence.words
    if sentence.constituency is not None:
        return by_constituents(sentence.constituency, words)
    if all(word.head is not None for word in words):
        return by_dependencies(words)
    return None
