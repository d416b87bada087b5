"""The data stage: data sets of a spec -> examples with spans, ready to be cut into batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mta_framework.data.prompts import Sample, render
from mta_framework.data.records import read_records
from mta_framework.data.tokens import EncodedSet, encode
from mta_framework.errors import Fault, InputError, collect_faults
from mta_framework.interfaces import SpanExtractor
from mta_framework.spans.cache import SpanCache
from mta_framework.spans.extraction import SpanArrays
from mta_framework.spans.template_pieces import parse_pieces
from mta_framework.spec.data import DataSection, DatasetSection

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


_SHOWN = 3


@dataclass(frozen=True)
class PreparedData:
    """What is trained on.

    Args:
        train: Tokenised, with token spans.
        validation: Likewise, or None.
        parsed: How many texts, or pieces of them, had to be parsed.
        unparsed: How many stretches of the texts could not be.
        shown: The first texts of the training set, with their spans as characters.
    """

    train: EncodedSet
    validation: EncodedSet | None
    parsed: int
    unparsed: int
    shown: tuple[tuple[str, SpanArrays], ...] = ()


def prepare(
    section: DataSection,
    tokenizer: PreTrainedTokenizerBase,
    extractor: SpanExtractor | None,
    cache_folder: Path,
    teacher_tokenizer: PreTrainedTokenizerBase | None = None,
) -> PreparedData:
    """Read, render, parse and tokenise the training and validation sets.

    Args:
        section: What to read and how long texts may be.
        tokenizer: The student's, a fast one.
        extractor: Bound span extractor, or None without alignment.
        cache_folder: Where spans are kept between runs.
        teacher_tokenizer: The teacher's where it is another one.

    Raises:
        InputError: All faults of the files.
        RunError: The extractor broke its contract.
    """
    cache = SpanCache(cache_folder, extractor, section.processes) if extractor else None
    preparer = _Preparer(section, tokenizer, cache, teacher_tokenizer)
    faults: list[Fault] = []
    encoded = [preparer.encode(faults, name, part) for name, part in _parts(section)]
    if faults:
        raise InputError(faults)
    train, validation = [*encoded, None][:2]
    assert train is not None
    return PreparedData(train, validation, preparer.parsed, preparer.unparsed, preparer.shown)


def _parts(section: DataSection) -> Iterator[tuple[str, DatasetSection]]:
    yield "data.train", section.train
    if section.validation is not None:
        yield "data.validation", section.validation


class _Preparer:
    def __init__(
        self,
        section: DataSection,
        tokenizer: PreTrainedTokenizerBase,
        cache: SpanCache | None,
        teacher_tokenizer: PreTrainedTokenizerBase | None,
    ):
        self.parsed = 0
        self.unparsed = 0
        self.shown: tuple[tuple[str, SpanArrays], ...] = ()
        self._teacher_tokenizer = teacher_tokenizer
        self._section = section
        self._tokenizer = tokenizer
        self._cache = cache

    def encode(self, faults: list[Fault], where: str, part: DatasetSection) -> EncodedSet | None:
        section = self._section
        with collect_faults(faults):
            cut = section.parse == "fields"
            samples = render(read_records(part, where), section.template, self._tokenizer, cut)
            spans = self._parse(samples, self._cache) if self._cache and not faults else None
            limits = section.max_length, section.max_prompt_length
            encoded = encode(samples, spans, self._tokenizer, *limits, self._teacher_tokenizer)
            if spans and not self.shown:
                used = [example.index for example in encoded.examples[:_SHOWN]]
                self.shown = tuple((samples[number].text, spans[number]) for number in used)
            return encoded
        return None

    def _parse(self, samples: Sequence[Sample], cache: SpanCache) -> list[SpanArrays]:
        texts, cuts = zip(*((sample.text, sample.cuts) for sample in samples), strict=True)
        spans = parse_pieces(texts, cuts, cache.spans)
        self.parsed += cache.parsed
        self.unparsed += sum(cache.failures)
        return spans
