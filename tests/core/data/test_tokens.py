"""Tokens: where supervision begins, what is cut or left out, and generation prompts."""

from __future__ import annotations

from collections.abc import Callable

import chat_templates
import numpy as np
import pytest
from sides import sides
from transformers import PreTrainedTokenizerFast

from mta_framework.data.prompts import Sample, render_prompts
from mta_framework.data.rows import Message, Record
from mta_framework.data.tokens import SampleTokenizer, encode, prompt_ids, require_examples
from mta_framework.errors import InputError
from mta_framework.models.turn_end import settle_turn_end
from mta_framework.types import Example

Build = Callable[..., PreTrainedTokenizerFast]


def sample(prompt: str, response: str) -> Sample:
    return Sample(prompt, response, (response,))


def encode_one(one: Sample, tokenizer: PreTrainedTokenizerFast, max_length: int = 64) -> Example:
    (example,) = encode([one], None, sides(max_length, tokenizer), max_length - 1).examples
    return example


def text_of(ids: np.ndarray, tokenizer: PreTrainedTokenizerFast) -> str:
    return tokenizer.decode(ids.tolist(), clean_up_tokenization_spaces=False)


def test_supervision_begins_with_the_first_token_of_the_response_and_ends_with_the_end(byte_tokenizer: Build) -> None:
    tokenizer = byte_tokenizer()
    # "the" and " the" are tokens, so joint tokenisation would let a token reach over the seam.
    example = encode_one(sample("repair ", "the lamp"), tokenizer)
    assert text_of(example.input_ids[: example.prompt_length], tokenizer) == "repair "
    assert text_of(example.input_ids[example.prompt_length :], tokenizer) == "the lamp<|end|>"
    assert example.input_ids.dtype == np.int32


def test_of_an_empty_response_only_the_end_is_supervised(byte_tokenizer: Build) -> None:
    example = encode_one(sample("repair", ""), tokenizer := byte_tokenizer())
    assert example.input_ids[example.prompt_length :].tolist() == [tokenizer.eos_token_id]


def test_the_end_is_not_written_twice(byte_tokenizer: Build) -> None:
    tokenizer = byte_tokenizer()
    twice = encode_one(sample("repair", "the lamp<|end|>"), tokenizer)
    assert twice.input_ids.tolist() == encode_one(sample("repair", "the lamp"), tokenizer).input_ids.tolist()


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("<s> $A", "<s>repair"),
        ("$A <|end|>", "repair"),
        ("<s> $A <|end|>", "<s>repair"),
        ("<|end|> $A", "<|end|>repair"),
    ],
)
def test_prompts_keep_the_beginning_and_lose_the_end_that_the_tokenizer_adds(
    byte_tokenizer: Build, template: str, expected: str
) -> None:
    tokenizer = byte_tokenizer(template=template)
    example = encode_one(sample("repair", "x"), tokenizer)
    assert text_of(example.input_ids, tokenizer) == f"{expected}x<|end|>"
    assert prompt_ids([sample("repair", "x")], tokenizer) == [example.input_ids[:-2].tolist()]


@pytest.mark.parametrize(
    ("template", "prompt", "expected"),
    [
        ("<s> $A", "<s>repair", "<s>repair"),
        ("<s> $A <|end|>", "<s>repair", "<s>repair"),
        ("<s> $A", "repair<s>", "<s>repair<s>"),
        ("<s> $A", "<s><s>repair", "<s><s>repair"),
        ("<|im_start|> <s> $A", "<|im_start|><s>repair", "<|im_start|><s>repair"),
        ("<|im_start|> <s> $A", "<s>repair", "<|im_start|><s><s>repair"),
        ("$A", "<s>repair", "<s>repair"),
    ],
)
def test_a_prompt_that_begins_as_the_tokenizer_begins_sequences_gets_no_second_beginning(
    byte_tokenizer: Build, template: str, prompt: str, expected: str
) -> None:
    tokenizer = byte_tokenizer(template=template)
    example = encode_one(sample(prompt, " the lamp"), tokenizer)
    assert text_of(example.input_ids, tokenizer) == f"{expected} the lamp<|end|>"
    assert prompt_ids([sample(prompt, "")], tokenizer) == [example.prompt_ids.tolist()]
    assert text_of(example.prompt_ids, tokenizer) == expected


def test_spans_of_a_prompt_that_begins_a_sequence_itself_keep_their_characters(byte_tokenizer: Build) -> None:
    tokenizer = byte_tokenizer(template="<s> $A")
    row = sample("<s>zz", "q")
    (example,) = encode([row], [{"words": [(3, 5)]}], sides(64, tokenizer), 32).examples
    assert example.spans["words"].tolist() == [[1, 3]]


def test_an_end_that_stands_in_the_prompt_itself_is_kept(byte_tokenizer: Build) -> None:
    tokenizer = byte_tokenizer()
    example = encode_one(sample("repair<|end|>", "x"), tokenizer)
    assert text_of(example.input_ids, tokenizer) == "repair<|end|>x<|end|>"


@pytest.mark.parametrize("space", ["", "\n"])
def test_a_completion_that_holds_the_end_of_a_turn_gets_no_other(
    chat_tokenizer: PreTrainedTokenizerFast, space: str
) -> None:
    chat_tokenizer.chat_template = chat_templates.CHATML
    assert chat_tokenizer.eos_token != "<|im_end|>"
    row = Sample("<|im_start|>assistant\n", f"the lamp<|im_end|>{space}", ("",))
    (example,) = encode([row], None, sides(50, chat_tokenizer), 49).examples
    assert chat_tokenizer.decode(example.input_ids[example.prompt_length :]) == "the lamp<|im_end|>"


def test_chat_prompts_get_no_second_set_of_special_tokens(chat_tokenizer: PreTrainedTokenizerFast) -> None:
    samples = render_prompts([Record((Message("user", "Hi"),), ("the lamp",))], "chat", chat_tokenizer)
    samples.append(sample("plain", "x"))
    chat, plain = encode(samples, None, sides(64, chat_tokenizer), 32).examples
    expected = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nthe lamp<|im_end|>"
    assert text_of(chat.input_ids, chat_tokenizer) == expected
    assert text_of(plain.input_ids, chat_tokenizer) == "<s>plainx<|end|>"
    assert (chat.input_ids == chat_tokenizer.convert_tokens_to_ids("<|im_end|>")).sum() == 2


def test_prompts_get_no_special_tokens_where_they_are_not_asked_for(chat_tokenizer: PreTrainedTokenizerFast) -> None:
    rows = [Record("plain", ("x",)), Record((Message("user", "Hi"),), ("the lamp",))]
    usual = render_prompts(rows, "chat", chat_tokenizer)
    without = render_prompts(rows, "chat", chat_tokenizer, add_special_tokens=False)
    texts = [text_of(np.array(ids), chat_tokenizer) for ids in prompt_ids(without, chat_tokenizer)]
    assert texts == ["plain", usual[1].prompt]
    assert prompt_ids(usual, chat_tokenizer)[1] == prompt_ids(without, chat_tokenizer)[1]
    assert text_of(np.array(prompt_ids(usual, chat_tokenizer)[0]), chat_tokenizer) == "<s>plain"
    assert text_of(encode_one(without[0], chat_tokenizer).input_ids, chat_tokenizer) == "plainx<|end|>"


def test_long_responses_are_cut_and_long_prompts_left_out(byte_tokenizer: Build) -> None:
    tokenizer = byte_tokenizer()
    samples = [sample("z" * 4, "q" * 3), sample("z" * 4, "q" * 4), sample("z" * 5, "q"), sample("z" * 10_000, "q")]
    encoded = encode(samples, None, sides(8, tokenizer), 4)
    assert (encoded.too_long, encoded.truncated) == (2, 1)
    assert [text_of(example.input_ids, tokenizer) for example in encoded.examples] == ["zzzzqqq<|end|>", "zzzzqqqq"]
    assert [example.prompt_length for example in encoded.examples] == [4, 4]


def test_long_prompts_keep_their_first_tokens_where_asked(byte_tokenizer: Build) -> None:
    tokenizer = byte_tokenizer()
    samples = [sample("abcde", "xy"), sample("abc", "xyz"), sample("abcdefg", "xyz")]
    spans = [{"words": [(0, 2), (3, 5), (2, 5), (4, 5), (5, 7)]}, {"words": [(0, 3)]}, {"words": [(1, 7), (7, 9)]}]
    side = SampleTokenizer(tokenizer, settle_turn_end(tokenizer, ()), 7, cut_prompts_to=4)
    encoded = encode(samples, spans, [side], 4)
    assert (encoded.too_long, encoded.truncated, encoded.cut_prompts) == (0, 1, 2)
    texts = [text_of(example.input_ids, tokenizer) for example in encoded.examples]
    assert texts == ["abcdxy<|end|>", "abcxyz<|end|>", "abcdxyz"]
    assert [example.prompt_length for example in encoded.examples] == [4, 3, 4]
    # Spans keep what is left of them, and those of which nothing is left are gone.
    assert encoded.examples[0].spans["words"].tolist() == [[0, 2], [3, 4], [2, 4], [4, 6]]
    assert encoded.examples[2].spans["words"].tolist() == [[1, 4], [4, 6]]


def test_texts_keep_their_number_in_the_data_set_where_others_are_left_out(byte_tokenizer: Build) -> None:
    tokenizer = byte_tokenizer()
    samples = [sample("z" * 5, "q"), sample("z", "q"), sample("z" * 5, "q"), sample("z" * 4, "q")]
    for teacher in (None, tokenizer):
        encoded = encode(samples, None if teacher is None else [{}] * 4, sides(8, tokenizer, teacher), 4)
        assert [example.index for example in encoded.examples] == [1, 3]


def test_nothing_left_is_an_input_error(byte_tokenizer: Build) -> None:
    encoded = encode([sample("z" * 4, "")] * 2, None, sides(8, byte_tokenizer()), 3)
    with pytest.raises(InputError, match=r"data.max_prompt_length: every prompt is longer than 3 tokens \(2 rows\)"):
        require_examples(encoded, 3)


def test_settings_for_padding_and_truncation_in_the_tokenizer_have_no_effect(byte_tokenizer: Build) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.enable_truncation(2)
    tokenizer.backend_tokenizer.enable_padding(length=50)
    assert len(encode_one(sample("zzzz", "qqqq"), tokenizer).input_ids) == 9


def test_many_samples_are_encoded_like_one(byte_tokenizer: Build) -> None:
    tokenizer = byte_tokenizer()
    samples = [sample(f"repair {index}", "日本語😀" * (index % 3)) for index in range(1003)]
    encoded = encode(samples, [{"words": [(0, 6)]}] * len(samples), sides(64, tokenizer), 32)
    for index in (0, 999, 1000, 1002):
        (alone,) = encode([samples[index]], [{"words": [(0, 6)]}], sides(64, tokenizer), 32).examples
        assert encoded.examples[index].input_ids.tolist() == alone.input_ids.tolist()
        assert encoded.examples[index].spans["words"].tolist() == alone.spans["words"].tolist()
        assert text_of(alone.input_ids, tokenizer) == samples[index].text + "<|end|>"
