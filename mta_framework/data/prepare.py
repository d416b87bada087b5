"""The data stage: data sets of a spec -> examples with spans, ready to be cut into batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mta_framework.data.prompts import render
from mta_framework.data.records import read_records
from mta_framework.data.spans import SpanCache
from mta_framework.data.tokens import EncodedSet, encode
from mta_framework.errors import Fault, InputError, collecting
from mta_framework.interfaces import SpanExtractor
from mta_framework.spec.sections import DataSection, DatasetSection

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class PreparedData:
    """Tokenised sets with token spans, and how many texts had to be parsed for them."""

    train: EncodedSet
    validation: EncodedSet | None
    parsed: int


def prepare(
    section: DataSection, tokenizer: PreTrainedTokenizerBase, extractor: SpanExtractor | None, cache_folder: Path
) -> PreparedData:
    """Read, render, parse and tokenise the training and validation sets.

    Args:
        section: What to read and how long texts may be.
        tokenizer: Fast; of student and teacher both.
        extractor: Bound span extractor, or None without alignment.
        cache_folder: Where spans are kept between runs.

    Raises:
        InputError: All faults of the files.
        RunError: The extractor broke its contract.
    """
    cache = SpanCache(cache_folder, extractor, section.processes) if extractor else None
    preparer = _Preparer(section, tokenizer, cache)
    faults: list[Fault] = []
    encoded = [preparer.encode(faults, name, part) for name, part in _parts(section)]
    if faults:
        raise InputError(faults)
    train, validation = [*encoded, None][:2]
    assert train is not None
    return PreparedData(train, validation, preparer.parsed)


def _parts(section: DataSection) -> Iterator[tuple[str, DatasetSection]]:
    yield "data.train", section.train
    if section.validation is not None:
        yield "data.validation", section.validation


class _Preparer:
    def __init__(self, section: DataSection, tokenizer: PreTrainedTokenizerBase, cache: SpanCache | None):
        self.parsed = 0
        self._section = section
        self._tokenizer = tokenizer
        self._cache = cache

    def encode(self, faults: list[Fault], where: str, part: DatasetSection) -> EncodedSet | None:
        section = self._section
        with collecting(faults):
            samples = render(read_records(part, where), section.template, self._tokenizer)
            spans = self._cache.spans([sample.text for sample in samples]) if self._cache and not faults else None
            self.parsed += self._cache.parsed if self._cache else 0
            return encode(samples, spans, self._tokenizer, section.max_length, section.max_prompt_length)
        return None
