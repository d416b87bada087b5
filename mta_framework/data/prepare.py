"""The data stage: reads, renders, parses and tokenises the data sets of a spec into examples with spans."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mta_framework.data.parsed_part import parsed_part
from mta_framework.data.prompts import Sample, training_samples
from mta_framework.data.records import read_records
from mta_framework.data.row_teachers import RowTeachers, merge, named_texts
from mta_framework.data.tokens import EncodedSet, SampleTokenizer, encode, require_examples
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
    teachers: Mapping[str, tuple[PreTrainedTokenizerBase, TurnEnd] | None] | None = None,
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
        teachers: The same two of each teacher by its name, None where its tokenizer is the student's; one teacher, or
            none, has an empty name. None: there is none with a tokenizer of its own.
        check_only: Whether a fault elsewhere stops the run, so that rows are read for their own faults, and no more.

    Raises:
        InputError: The data sets are faulty, all faults are listed; or ``check_only``, with as many as there are.
        RunError: The extractor fails or breaks its contract.
    """
    cache = SpanCache(cache_folder, extractor, section.processes) if extractor else None
    side = partial(SampleTokenizer.of, section)
    student = side(tokenizer, turn_end)
    named = (teachers or {"": None}).items()
    sides = {name: [student, *([side(*teacher)] if teacher else [])] for name, teacher in named}
    preparer = _Preparer(section, cache, sides)
    faults: list[Fault] = []
    rendered = [preparer.render(faults, name, part) for name, part in _parts(section)]
    if faults or check_only:
        raise InputError(faults)
    encoded = [preparer.encode(faults, part) for part in rendered]
    if faults:
        raise InputError(faults)
    train, validation = [*encoded, None][:2]
    assert train is not None
    return PreparedData(train, validation, preparer.parsed, preparer.unparsed, preparer.preview, preparer.unused)


def _parts(section: DataSection) -> Iterator[tuple[str, DatasetSection]]:
    yield "data.train", section.train
    if section.validation is not None:
        yield "data.validation", section.validation


class _Rendered(NamedTuple):
    samples: list[Sample]
    teacher_names: list[str]


class _Preparer:
    def __init__(
        self,
        section: DataSection,
        cache: SpanCache | None,
        sides: Mapping[str, Sequence[SampleTokenizer]],
    ):
        self.parsed = 0
        self.unparsed = 0
        self.preview: tuple[tuple[str, SpanArrays], ...] = ()
        self.unused: dict[str, Mapping[str, int]] = {}
        self._sides = sides
        self._section = section
        self._cache = cache

    def render(self, faults: list[Fault], where: str, part: DatasetSection) -> _Rendered:
        with collect_faults(faults):
            records = read_records(part, where, self._row_teachers)
            self.unused[where] = records.unused
            samples = training_samples(records, self._section, self._student.tokenizer)
            return _Rendered(samples, [record.teacher_name for record in records])
        return _Rendered([], [])

    @property
    def _student(self) -> SampleTokenizer:
        return next(iter(self._sides.values()))[0]

    @property
    def _row_teachers(self) -> RowTeachers | None:
        names, section = [*self._sides], self._section
        return RowTeachers(names, section.teacher_field, section.default_teacher) if len(names) > 1 else None

    def encode(self, faults: list[Fault], rendered: _Rendered) -> EncodedSet | None:
        samples = rendered.samples
        with collect_faults(faults):
            spans = self._parse(rendered, self._cache) if self._cache and not faults else None
            encoded = self._encoded(rendered, spans)
            require_examples(encoded, self._section.max_prompt_length)
            if spans and not self.preview:
                used = [example.index for example in encoded.examples[:_PREVIEW]]
                self.preview = tuple((samples[index].text, spans[index]) for index in used)
            return encoded
        return None

    def _encoded(self, rendered: _Rendered, spans: Sequence[SpanArrays] | None) -> EncodedSet:
        """The tokenised set: the texts of each teacher with its tokenizer, together in the order of the rows."""
        limit, parts = self._section.max_prompt_length, []
        if len(self._sides) == 1:
            (sides,) = self._sides.values()
            return encode(rendered.samples, spans, sides, limit)
        for name, sides in self._sides.items():
            if rows := [row for row, named in enumerate(rendered.teacher_names) if named == name]:
                of_rows = [rendered.samples[row] for row in rows], spans and [spans[row] for row in rows]
                parts.append(named_texts(encode(*of_rows, sides, limit), name, rows))
        return merge(parts)

    def _parse(self, rendered: _Rendered, cache: SpanCache) -> list[SpanArrays]:
        tokenizers = {name: [side.tokenizer for side in sides] for name, sides in self._sides.items()}
        section = self._section
        limits = section.max_length, None if section.cut_prompts_to else section.max_prompt_length
        named = zip(rendered.samples, rendered.teacher_names, strict=True)
        parts = (parsed_part(sample, tokenizers[name], *limits) for sample, name in named)
        texts, boundaries = zip(*parts, strict=True)
        spans = extract_by_field(texts, boundaries, cache.spans)
        self.parsed += cache.parsed
        self.unparsed += sum(cache.failures)
        return spans
