"""Which tokens lie in a span, compared with a plain double loop."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sides import sides
from transformers import PreTrainedTokenizerFast

from mta_framework.data.prompts import Sample, render_prompts
from mta_framework.data.rows import Message, Record
from mta_framework.data.tokens import encode
from mta_framework.spans.char_to_token import LeadingCharacter, TokenOffsets

Build = Callable[..., PreTrainedTokenizerFast]

Range = tuple[int, int]

TEXT = st.text(alphabet="ab the\n\t日本😀é'-\u3000\u0301", max_size=25)


def reference(
    text: str, offsets: list[Range], special: list[bool], spans: list[Range], leading: str = "space"
) -> list[Range]:
    """The rule, span by span and token by token."""
    ranges = []
    for start, end in spans:
        inside = []
        for token, (first, last) in enumerate(offsets):
            characters = text[first:last]
            if not characters or special[token]:
                continue
            one_space = len(characters) > 1 and characters[0].isspace() and not characters[1].isspace()
            if first >= start - (one_space or leading == "any") and last <= end:
                inside.append(token)
        if inside and not any(special[inside[0] : inside[-1] + 1]):
            ranges.append((inside[0], inside[-1] + 1))
    return ranges


@st.composite
def texts_with_spans(draw: st.DrawFn) -> tuple[str, str, list[Range]]:
    prompt, response = draw(TEXT), draw(TEXT)
    length = len(prompt + response)
    ends = st.tuples(st.integers(0, length), st.integers(0, length)).map(lambda pair: (min(pair), max(pair)))
    return prompt, response, sorted({pair for pair in draw(st.lists(ends, max_size=12)) if pair[0] < pair[1]})


@pytest.mark.parametrize("trim_offsets", [True, False])
def test_token_ranges_are_those_of_the_plain_double_loop(byte_tokenizer: Build, trim_offsets: bool) -> None:
    tokenizer = byte_tokenizer(trim_offsets=trim_offsets, template="<s> $A")

    @settings(max_examples=150, deadline=None)
    @given(case=texts_with_spans(), max_length=st.integers(16, 120))
    def compare(case: tuple[str, str, list[Range]], max_length: int) -> None:
        prompt, response, spans = case
        before = tokenizer(prompt, return_offsets_mapping=True)
        after = tokenizer(response, return_offsets_mapping=True, add_special_tokens=False)
        offsets = [*before["offset_mapping"], *((s + len(prompt), e + len(prompt)) for s, e in after["offset_mapping"])]
        special = [token == tokenizer.convert_tokens_to_ids("<s>") for token in before["input_ids"]]
        special += [False] * len(after["input_ids"])
        expected = reference(prompt + response, offsets[:max_length], special[:max_length], spans)
        sample = Sample(prompt, response, (response,))
        (example,) = encode([sample], [{"g": spans}], sides(max_length, tokenizer), 10_000).examples
        assert [tuple(token_range) for token_range in example.spans["g"].tolist()] == expected
        assert example.spans["g"].dtype == np.int32

    compare()


@settings(max_examples=300, deadline=None)
@given(data=st.data(), text=TEXT, leading=st.sampled_from(["space", "any"]))
def test_any_ascending_offsets_give_the_ranges_of_the_plain_double_loop(
    data: st.DataObject, text: str, leading: LeadingCharacter
) -> None:
    bounds = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=10)))
    offsets = list(zip([0, *bounds], [*bounds, len(text)], strict=True))
    special = data.draw(st.lists(st.booleans(), min_size=len(offsets), max_size=len(offsets)))
    spans = [(start, end) for start in range(len(text)) for end in range(start + 1, len(text) + 1)]
    ranges = TokenOffsets(text, np.array(offsets), np.array(special), leading).token_ranges(spans)
    assert [tuple(pair) for pair in ranges.tolist()] == reference(text, offsets, special, spans, leading)


def ranges_of(text: str, offsets: list[Range], spans: list[Range], special: tuple[int, ...] = ()) -> list[list[int]]:
    mask = np.array([token in special for token in range(len(offsets))], dtype=bool)
    return TokenOffsets(text, np.array(offsets, dtype=int).reshape(-1, 2), mask).token_ranges(spans).tolist()


def test_a_token_with_one_leading_space_may_begin_one_character_early() -> None:
    assert ranges_of("a bc", [(0, 1), (1, 4)], [(2, 4)]) == [[1, 2]]


def test_a_token_with_two_leading_spaces_or_a_leading_letter_may_not() -> None:
    assert ranges_of("a  bc", [(0, 1), (1, 5)], [(2, 5), (3, 5)]) == []
    assert ranges_of("axbc", [(0, 1), (1, 4)], [(2, 4)]) == []


def test_a_line_break_before_a_span_belongs_to_it_where_any_character_may() -> None:
    text, mask = "a\nbc", np.zeros(3, dtype=bool)
    offsets = np.array([(0, 1), (1, 2), (2, 4)])
    assert TokenOffsets(text, offsets, mask).token_ranges([(2, 4)]).tolist() == [[2, 3]]
    assert TokenOffsets(text, offsets, mask, "any").token_ranges([(2, 4)]).tolist() == [[1, 3]]


def test_a_token_that_is_one_space_lies_inside_only_where_it_lies() -> None:
    assert ranges_of("a bc", [(0, 1), (1, 2), (2, 4)], [(2, 4), (0, 2)]) == [[2, 3], [0, 2]]


def test_all_tokens_that_share_a_character_count() -> None:
    assert ranges_of("a😀b", [(0, 1), (1, 2), (1, 2), (1, 2), (2, 3)], [(1, 2)]) == [[1, 4]]


def test_a_span_within_a_token_has_no_tokens_and_no_spans_are_normal() -> None:
    assert ranges_of("abcd", [(0, 4)], [(1, 3)]) == []
    assert ranges_of("abcd", [(0, 4)], []) == []
    assert ranges_of("", [], []) == []
    assert ranges_of("", [(0, 0)], [], special=(0,)) == []


def test_special_tokens_with_text_count_for_no_span_and_interrupt() -> None:
    text, offsets = "a<s>b c", [(0, 1), (1, 4), (4, 5), (5, 7)]
    assert ranges_of(text, offsets, [(0, 4), (1, 5), (1, 4), (0, 5)], special=(1,)) == [[0, 1], [2, 3]]


def test_the_markers_of_a_chat_template_belong_to_no_span(chat_tokenizer: PreTrainedTokenizerFast) -> None:
    (sample,) = render_prompts([Record((Message("user", "the lamp"),), ("the keeper",))], "chat", chat_tokenizer)
    everything = [(start, len(sample.text)) for start in range(len(sample.text))]
    (example,) = encode([sample], [{"g": everything}], sides(64, chat_tokenizer), 32).examples
    inside = {int(token) for first, end in example.spans["g"] for token in example.input_ids[first:end]}
    assert inside
    assert not inside & set(chat_tokenizer.all_special_ids)


def test_an_unknown_word_counts_though_its_token_is_special() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({"<unk>": 0, "</s>": 1, "lamp": 2}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>", unk_token="<unk>")
    (example,) = encode([Sample("new lamp", "", ("",))], [{"g": [(0, 3), (0, 8)]}], sides(9, tokenizer), 8).examples
    assert example.spans["g"].tolist() == [[0, 1], [0, 2]]
