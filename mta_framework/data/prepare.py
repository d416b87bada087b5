"""The data stage: reads, renders, parses and tokenises the data sets of a spec into examples with spans."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mta_framework.data.parsed_part import parsed_part
from mta_framework.data.prompts import Sample, training_samples
from mta_framework.data.records import read_records
from mta_framework.data.tokens import EncodedSet, SampleTokenizer, encode
from mta_framework.errors import Fault, InputError, collect_faults
from mta_framework.interfaces import SpanExtractor
from mta_framework.models.turn_end import TurnEnd
from mta_framework.spans.cache import SpanCache
from mta_framework.spans.extraction import SpanArrays
from mta_framework.spans.field_extraction import extract_by_field
from mta_framework.spec.data import DataSection, DatasetSection

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


_PREVIEW = 3


@dataclass(frozen=True)
class PreparedData:
    """The tokenised training and validation sets.

    Args:
        train: Training set, with token spans.
        validation: Validation set, with token spans; None without one.
        parsed: Number of texts, or parts of texts, that were parsed now rather than read from the cache.
        unparsed: Number of segments of the texts that could not be parsed.
        preview: The first texts of the training set, with their spans as character ranges.
        unused: Field of each data set -> keys of its rows that are not used -> number of rows in which they hold
            something.
    """

    train: EncodedSet
    validation: EncodedSet | None
    parsed: int
    unparsed: int
    preview: tuple[tuple[str, SpanArrays], ...] = ()
    unused: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


def prepare(
    section: DataSection,
    tokenizer: PreTrainedTokenizerBase,
    turn_end: TurnEnd,
    extractor: SpanExtractor | None,
    cache_folder: Path,
    teacher: tuple[PreTrainedTokenizerBase, TurnEnd] | None = None,
    check_only: bool = False,
) -> PreparedData:
    """Read, render, parse and tokenise the training and validation sets.

    Texts are parsed only once all rows are known to be sound, and only as far as the length limits let them be used.

    Args:
        section: Section ``data`` of the spec.
        tokenizer: Tokenizer of the student, a fast one.
        turn_end: What ends a response in its tokens.
        extractor: Span extractor; None without alignment.
        cache_folder: Directory of the span cache, kept across runs.
        teacher: The same two of the teacher where its tokenizer differs from the student's; None otherwise.
        check_only: Whether a fault elsewhere stops the run, so that rows are read for their own faults, and no more.

    Raises:
        InputError: The data sets are faulty, all faults are listed; or ``check_only``, with as many as there are.
        RunError: The extractor fails or breaks its contract.
    """
    cache = SpanCache(cache_folder, extractor, section.processes) if extractor else None
    sides = [
        SampleTokenizer(*side, section.max_length, section.cut_prompts_to, section.leading_character)
        for side in [(tokenizer, turn_end), teacher]
        if side
    ]
    preparer = _Preparer(section, cache, sides)
    faults: list[Fault] = []
    rendered = [preparer.render(faults, name, part) for name, part in _parts(section)]
    if faults or check_only:
        raise InputError(faults)
    encoded = [preparer.encode(faults, samples) for samples in rendered]
    if faults:
        raise InputError(faults)
    train, validation = [*encoded, None][:2]
    assert train is not None
    return PreparedData(train, validation, preparer.parsed, preparer.unparsed, preparer.preview, preparer.unused)


def _parts(section: DataSection) -> Iterator[tuple[str, DatasetSection]]:
    yield "data.train", section.train
    if section.validation is not None:
        yield "data.validation", section.validation


class _Preparer:
    def __init__(
        self,
        section: DataSection,
        cache: SpanCache | None,
        sides: Sequence[SampleTokenizer],
    ):
        self.parsed = 0
        self.unparsed = 0
        self.preview: tuple[tuple[str, SpanArrays], ...] = ()
        self.unused: dict[str, Mapping[str, int]] = {}
        self._sides = sides
        self._section = section
        self._cache = cache

    def render(self, faults: list[Fault], where: str, part: DatasetSection) -> list[Sample]:
        with collect_faults(faults):
            records = read_records(part, where)
            self.unused[where] = records.unused
            return training_samples(records, self._section, self._sides[0].tokenizer)
        return []

    def encode(self, faults: list[Fault], samples: Sequence[Sample]) -> EncodedSet | None:
        section = self._section
        with collect_faults(faults):
            spans = self._parse(samples, self._cache) if self._cache and not faults else None
            encoded = encode(samples, spans, self._sides, section.max_prompt_length)
            if spans and not self.preview:
                used = [example.index for example in encoded.examples[:_PREVIEW]]
                self.preview = tuple((samples[index].text, spans[index]) for index in used)
            return encoded
        return None

    def _parse(self, samples: Sequence[Sample], cache: SpanCache) -> list[SpanArrays]:
        tokenizers = [side.tokenizer for side in self._sides]
        section = self._section
        limits = section.max_length, None if section.cut_prompts_to else section.max_prompt_length
        texts, boundaries = zip(*(parsed_part(sample, tokenizers, *limits) for sample in samples), strict=True)
        spans = extract_by_field(texts, boundaries, cache.spans)
        self.parsed += cache.parsed
        self.unparsed += sum(cache.failures)
        return spans
