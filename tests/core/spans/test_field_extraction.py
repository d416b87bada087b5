"""Texts that are parsed field by field, and the boundaries of their fields."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sides import sides
from transformers import PreTrainedTokenizerFast

from mta_framework import PluginParams, RunError, SpanExtractor, SpanSet
from mta_framework.data.prepare import prepare
from mta_framework.data.prompts import Sample, render_prompts
from mta_framework.data.records import read_records
from mta_framework.data.response_encoding import ResponseEncoder, TokenResponse
from mta_framework.data.rows import Instruction, Message, Record
from mta_framework.data.tokens import encode
from mta_framework.models.turn_end import settle_turn_end
from mta_framework.spans.cache import SpanCache
from mta_framework.spans.extraction import extract
from mta_framework.spans.field_extraction import extract_by_field
from mta_framework.spec.data import DataSection, DatasetSection


class Whole(SpanExtractor):
    """A text as one span, and its first two characters; remembers what it was asked."""

    NAME = "whole"
    VERSION = "1"

    def __init__(self) -> None:
        super().__init__(PluginParams())
        self.asked: list[str] = []

    @property
    def granularities(self) -> tuple[str, ...]:
        return ("all", "two")

    def extract(self, texts: Sequence[str]) -> list[SpanSet]:
        self.asked += texts
        return [
            {"all": [(0, 99 if text == "broken" else len(text))] if text else [], "two": [(0, 2)] if text[1:] else []}
            for text in texts
        ]


def parts_of(sample: Sample) -> list[str]:
    return [sample.text[start:end] for start, end in pairwise((0, *sample.boundaries, len(sample.text)))]


def as_lists(spans: object) -> list[dict[str, list[list[int]]]]:
    return [{name: array.tolist() for name, array in span_set.items()} for span_set in spans]  # type: ignore[attr-defined]


def test_spans_of_parts_are_ranges_of_the_whole_text(tmp_path: Path) -> None:
    cache = SpanCache(tmp_path, Whole(), processes=1)
    span_sets = extract_by_field(["abcde", "", "ab"], [(1, 3), (), (2,)], cache.spans)
    assert as_lists(span_sets) == [
        {"all": [[0, 1], [1, 3], [3, 5]], "two": [[1, 3], [3, 5]]},
        {"all": [], "two": []},
        {"all": [[0, 2]], "two": [[0, 2]]},
    ]
    assert all(array.dtype == np.int32 and array.shape[1] == 2 for spans in span_sets for array in spans.values())


def test_texts_without_boundaries_are_parsed_as_a_whole(tmp_path: Path) -> None:
    texts = ["ab", "", "日本語", "ab"]
    cache = SpanCache(tmp_path, Whole(), processes=1)
    assert as_lists(extract_by_field(texts, [()] * 4, cache.spans)) == as_lists(cache.spans(texts))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=8), st.sets(st.integers(1, 7), max_size=4)), max_size=5))
def test_no_span_crosses_a_boundary_and_none_is_lost(drawn: list[tuple[str, set[int]]]) -> None:
    texts = [text for text, _ in drawn]
    boundaries = [sorted(offset for offset in offsets if offset <= len(text)) for text, offsets in drawn]
    extractor = Whole()

    def parse(parts: Sequence[str], text_indices: Sequence[int]) -> list[dict[str, np.ndarray]]:
        span_sets = extractor.extract(parts)
        return [{name: np.array(s, dtype=np.int32).reshape(-1, 2) for name, s in spans.items()} for spans in span_sets]

    for text, offsets, spans in zip(texts, boundaries, extract_by_field(texts, boundaries, parse), strict=True):
        assert spans["all"].tolist() == [[a, b] for a, b in pairwise([0, *offsets, len(text)]) if a < b]
    assert len(set(extractor.asked)) == len(extractor.asked)


def test_the_template_is_parsed_once_and_every_field_alone(
    tmp_path: Path, chat_tokenizer: PreTrainedTokenizerFast
) -> None:
    rows = [Record(Instruction(f"Add {n}.", f"{n} {n}"), (f"It is {2 * n}.",)) for n in range(50)]
    samples = render_prompts(rows, "alpaca", chat_tokenizer, split_fields=True)
    extractor = Whole()
    cache = SpanCache(tmp_path, extractor, processes=1)
    extract_by_field([sample.text for sample in samples], [sample.boundaries for sample in samples], cache.spans)
    assert cache.parsed == len(extractor.asked) == 3 * 50 + 3
    assert sum("###" in text for text in extractor.asked) == 3
    assert {"Add 7.", "7 7", "It is 14."} <= set(extractor.asked)


def test_a_broken_part_is_named_by_the_index_of_its_text(tmp_path: Path) -> None:
    cache = SpanCache(tmp_path, Whole(), processes=1)
    with pytest.raises(RunError, match=r"text 2 \('broken'\)"):
        extract_by_field(["a b", "a c", "a broken"], [(1, 2)] * 3, cache.spans)


def test_texts_have_no_boundaries_unless_fields_are_split(chat_tokenizer: PreTrainedTokenizerFast) -> None:
    rows = [Record(Instruction("Add."), ("2",)), Record("Q", ("A",)), Record((Message("user", "a"),), ("b",))]
    assert [sample.boundaries for sample in render_prompts(rows, "alpaca", chat_tokenizer)] == [(), (), ()]


@pytest.mark.parametrize(
    ("record", "template", "expected"),
    [
        (Record(Instruction("Add {input}", "{1}"), ("2",)), "alpaca", ["Add {input}", "\n\n### Input:\n", "{1}"]),
        (Record("Q: ", ("",)), "chat", ["Q: ", ""]),
        (
            Record((Message("system", "user"), Message("user", "assistant")), (" Yes\n",)),
            "alpaca",
            ["<|im_start|>system\n", "user", "<|im_end|>\n<|im_start|>user\n", "assistant"],
        ),
        (Record(Instruction("", ""), ("",)), "chat", ["<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"]),
    ],
    ids=["alpaca", "ready", "contents like roles", "empty contents"],
)
def test_a_text_is_split_where_fields_begin_and_end(
    chat_tokenizer: PreTrainedTokenizerFast, record: Record, template: str, expected: list[str]
) -> None:
    (sample,) = render_prompts([record], template, chat_tokenizer, split_fields=True)  # type: ignore[arg-type]
    (whole,) = render_prompts([record], template, chat_tokenizer)  # type: ignore[arg-type]
    assert (sample.prompt, sample.response) == (whole.prompt, whole.response)
    parts = parts_of(sample)
    assert any(parts[n : n + len(expected)] == expected for n in range(len(parts))), parts
    assert len(sample.prompt) in sample.boundaries
    assert list(sample.boundaries) == sorted(set(sample.boundaries))


def test_the_end_of_a_turn_is_no_part_of_the_response_field(chat_tokenizer: PreTrainedTokenizerFast) -> None:
    (sample,) = render_prompts(
        [Record((Message("user", "a"),), ("Yes. ",))], "alpaca", chat_tokenizer, split_fields=True
    )
    assert parts_of(sample)[-2:] == ["Yes. ", "<|im_end|>"]


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("{{ m['content'] | trim }}", ["Hi there", "#", "Yes", "#"]),
        ("{{ m['content'] | upper }}", [" HI THERE#", "YES\n#"]),
    ],
    ids=["trimming", "changing"],
)
def test_templates_that_change_contents(
    chat_tokenizer: PreTrainedTokenizerFast, content: str, parts: list[str]
) -> None:
    chat_tokenizer.chat_template = f"{{% for m in messages %}}{content}#{{% endfor %}}"
    (sample,) = render_prompts(
        [Record((Message("user", " Hi there"),), ("Yes\n",))], "chat", chat_tokenizer, split_fields=True
    )
    assert parts_of(sample) == parts


@pytest.mark.parametrize("finished", [True, False])
def test_responses_written_during_training_are_fields_too(
    rows_file: Path, chat_tokenizer: PreTrainedTokenizerFast, finished: bool
) -> None:
    tokenizer, extractor = chat_tokenizer, Whole()
    samples = render_prompts(
        read_records(DatasetSection(path=str(rows_file)), "data"), "alpaca", tokenizer, split_fields=True
    )
    texts, boundaries = [sample.text for sample in samples], [sample.boundaries for sample in samples]
    spans = extract_by_field(texts, boundaries, partial(extract, extractor))
    expected = encode(samples, spans, sides(500, tokenizer), 499).examples
    responses = [
        TokenResponse(tuple(example.input_ids[example.prompt_length : -1].tolist()), finished) for example in expected
    ]
    encoded = ResponseEncoder(tokenizer, tokenizer.eos_token_id, extractor, 500).encode(
        expected, responses, by_student=True
    )
    for example, original in zip(encoded, expected, strict=True):
        assert example.prompt_boundaries == original.prompt_boundaries
        assert {name: array.tolist() for name, array in example.spans.items()} == {
            name: array.tolist() for name, array in original.spans.items()
        }
    assert {sample.response for sample in samples} <= set(extractor.asked)


def test_a_data_section_says_what_is_parsed(
    rows_file: Path, tmp_path: Path, chat_tokenizer: PreTrainedTokenizerFast
) -> None:
    asked = {}
    for parse in ("text", "fields"):
        section = DataSection.model_validate(
            {"train": {"path": str(rows_file)}, "parse": parse, "max_length": 999, "max_prompt_length": 998}
        )
        extractor = Whole()
        prepared = prepare(section, chat_tokenizer, settle_turn_end(chat_tokenizer, ()), extractor, tmp_path / parse)
        asked[parse] = extractor.asked
        assert prepared.parsed == len(extractor.asked)
        assert all((example.prompt_boundaries != ()) == (parse == "fields") for example in prepared.train.examples)
    assert all(text.startswith("Below is") for text in asked["text"])
    assert sum(text.startswith("Below is") for text in asked["fields"]) == 2
