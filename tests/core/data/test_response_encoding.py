"""Responses as training texts: the generated tokens as they are, the end once, the spans of the data's own rows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
from sides import sides
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from mta_framework import PluginParams, RunError, SpanExtractor, SpanSet
from mta_framework.data.prompts import Sample, render_prompts
from mta_framework.data.records import read_records
from mta_framework.data.response_encoding import ResponseEncoder, TokenResponse
from mta_framework.data.tokens import encode
from mta_framework.spans.extraction import extract
from mta_framework.spec.data import DatasetSection
from mta_framework.types import Example

Build = Callable[..., PreTrainedTokenizerFast]


class Characters(SpanExtractor):
    """Words between spaces, and every character; remembers the threads that asked."""

    NAME = "characters"
    VERSION = "1"

    def __init__(self, params: PluginParams):
        super().__init__(params)
        self.asked: list[str] = []

    @property
    def granularities(self) -> tuple[str, ...]:
        return ("words", "characters")

    def extract(self, texts: Sequence[str]) -> list[SpanSet]:
        self.asked += texts
        return [{"words": words_of(text), "characters": [(n, n + 1) for n in range(len(text))]} for text in texts]


def words_of(text: str) -> list[tuple[int, int]]:
    ends = [-1, *(offset for offset, character in enumerate(text) if character.isspace()), len(text)]
    return [(start + 1, end) for start, end in pairwise(ends) if end > start + 1]


def characters() -> Characters:
    return Characters(Characters.Params())


def prompt_of(text: str, tokenizer: PreTrainedTokenizerBase) -> Example:
    """A row of the data whose own response must not matter."""
    rows = encode([Sample(text, "other", ("other",))], [{"words": [(0, 1)]}], sides(500, tokenizer), 499)
    return rows.examples[0]


def ids_of(text: str, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def encoder_of(tokenizer: PreTrainedTokenizerBase, extractor: SpanExtractor | None, max_length: int) -> ResponseEncoder:
    return ResponseEncoder(tokenizer, tokenizer.eos_token_id, extractor, max_length)


def encode_one(
    ids: Sequence[int], tokenizer: PreTrainedTokenizerBase, finished: bool = True, max_length: int = 100
) -> Example:
    encoder = encoder_of(tokenizer, characters(), max_length)
    (example,) = encoder.encode([prompt_of("Say: ", tokenizer)], [TokenResponse(tuple(ids), finished)], by_student=True)
    return example


def token_texts(example: Example, granularity: str, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    return [tokenizer.decode(example.input_ids[start:end].tolist()) for start, end in example.spans[granularity]]


def assert_same(actual: Example, expected: Example) -> None:
    assert actual.input_ids.tolist() == expected.input_ids.tolist()
    assert actual.input_ids.dtype == expected.input_ids.dtype
    assert (actual.prompt_length, actual.by_student) == (expected.prompt_length, expected.by_student)
    assert actual.prompt_text == expected.prompt_text
    assert actual.prompt_offsets is not None
    assert expected.prompt_offsets is not None
    assert actual.prompt_offsets.tolist() == expected.prompt_offsets.tolist()
    assert actual.spans.keys() == expected.spans.keys()
    for granularity, spans in expected.spans.items():
        assert actual.spans[granularity].tolist() == spans.tolist()
        assert actual.spans[granularity].dtype == spans.dtype


@pytest.mark.parametrize("kind", ["byte level", "byte level, trimmed", "metaspace", "normalizer"])
@pytest.mark.parametrize("whole", [True, False])
def test_the_data_s_own_responses_give_the_data_s_own_examples(
    rows_file: Path, byte_tokenizer: Build, sentencepiece_tokenizer: Build, kind: str, whole: bool
) -> None:
    byte_level = kind.startswith("byte level")
    tokenizer = byte_tokenizer("trimmed" in kind) if byte_level else sentencepiece_tokenizer(kind)
    samples = render_prompts(read_records(DatasetSection(path=str(rows_file)), "data.train"), "alpaca", tokenizer)
    samples += [Sample("日本: ", "語 and 😀 ", ("",)), Sample("a", "b  c\n", ("",))]
    extractor = characters()
    spans = extract(extractor, [sample.text for sample in samples])
    every = encode(samples, spans, sides(1000, tokenizer), 999)
    longest = max(len(example.input_ids) for example in every.examples)
    max_length = longest if whole else longest - 8
    rows = every if whole else encode(samples, spans, sides(max_length, tokenizer), max_length - 1)
    assert (rows.too_long, rows.truncated > 0) == (0, not whole)
    response_ids = [example.input_ids[example.prompt_length : -1] for example in every.examples]
    responses = [TokenResponse(tuple(ids.tolist()), finished=True) for ids in response_ids]
    encoder = encoder_of(tokenizer, extractor, max_length)
    for given in (None, spans):
        for actual, expected in zip(encoder.encode(rows.examples, responses, False, given), rows.examples, strict=True):
            assert_same(actual, expected)
    assert encoder.texts(rows.examples, responses) == [sample.text for sample in samples]


def test_only_the_prompt_of_a_text_matters(byte_tokenizer: Build) -> None:
    tokenizer = byte_tokenizer()
    prompt = replace(prompt_of("Say: ", tokenizer), index=17)
    (written,) = encoder_of(tokenizer, characters(), 100).encode(
        [prompt], [TokenResponse(ids_of("a lamp", tokenizer), True)], by_student=True
    )
    assert written.by_student
    assert (written.prompt_text, written.index) == ("Say: ", 17)
    assert tokenizer.decode(written.input_ids.tolist()) == "Say: a lamp<|end|>"
    assert token_texts(written, "words", tokenizer) == ["Say:", "a", " lamp"]
    again = encoder_of(tokenizer, characters(), 100).encode(
        [written], [TokenResponse(ids_of("no", tokenizer), True)], by_student=False
    )[0]
    assert not again.by_student
    assert tokenizer.decode(again.input_ids.tolist()) == "Say: no<|end|>"


@pytest.mark.parametrize("finished", [True, False])
def test_the_generated_tokens_are_kept_and_the_end_follows_once_where_there_was_one(
    byte_tokenizer: Build, finished: bool
) -> None:
    tokenizer = byte_tokenizer()
    ids = [token for character in "the lamp" for token in ids_of(character, tokenizer)]
    assert len(ids) > len(ids_of("the lamp", tokenizer))
    example = encode_one(ids, tokenizer, finished)
    assert example.input_ids[example.prompt_length :].tolist() == ids + [tokenizer.eos_token_id] * finished
    assert token_texts(example, "words", tokenizer) == ["Say:", "the", "lamp"]
    end = example.prompt_length + len(ids)
    assert example.spans["characters"][-8:].tolist() == [[token, token + 1] for token in range(end - 8, end)]


def test_other_tokens_of_the_same_number_have_characters_of_their_own(byte_tokenizer: Build) -> None:
    tokenizer = byte_tokenizer()
    pieces = sorted(piece for piece in tokenizer.get_vocab() if piece in "lighthouse keeper instruction describes")
    pair, text, ids = next(
        (pair, text, ids)
        for pair in product(pieces, repeat=2)
        if len(retokenised := ids_of(text := "".join(pair), tokenizer)) == 2
        and (ids := tuple(tokenizer.convert_tokens_to_ids(list(pair)))) != retokenised
    )
    prompt, response = prompt_of("Say: ", tokenizer), TokenResponse(ids, True)
    seam = len("Say: ") + len(pair[0])
    given = {"halves": np.array([[5, seam], [seam, 5 + len(text)]], dtype=np.int32)}
    (example,) = encoder_of(tokenizer, None, 100).encode([prompt], [response], True, [given])
    assert token_texts(example, "halves", tokenizer) == list(pair)


def test_of_an_empty_response_the_end_is_supervised_or_nothing(byte_tokenizer: Build) -> None:
    tokenizer = byte_tokenizer()
    finished, cut = encode_one([], tokenizer), encode_one([], tokenizer, finished=False)
    assert finished.input_ids[finished.prompt_length :].tolist() == [tokenizer.eos_token_id]
    assert cut.input_ids.tolist() == cut.prompt_ids.tolist()
    assert finished.spans["words"].tolist() == cut.spans["words"].tolist()


def test_a_response_has_ended_where_its_end_token_is_left(byte_tokenizer: Build) -> None:
    tokenizer = byte_tokenizer()
    encoder, ids = encoder_of(tokenizer, None, 100), ids_of("a lamp", tokenizer)
    assert encoder.has_ended(encode_one(ids, tokenizer))
    assert not encoder.has_ended(encode_one(ids, tokenizer, finished=False))
    assert not encoder.has_ended(encode_one([], tokenizer, finished=False))


def test_a_response_is_cut_at_the_longest_length_together_with_its_spans(byte_tokenizer: Build) -> None:
    tokenizer = byte_tokenizer()
    ids = [token for character in "zq zq" for token in ids_of(character, tokenizer)]
    length = len(encode_one(ids, tokenizer, finished=False).input_ids)
    whole, without_end, without_letter = (encode_one(ids, tokenizer, True, length + more) for more in (1, 0, -1))
    assert tokenizer.decode(whole.input_ids.tolist()) == "Say: zq zq<|end|>"
    assert tokenizer.decode(without_end.input_ids.tolist()) == "Say: zq zq"
    assert tokenizer.decode(without_letter.input_ids.tolist()) == "Say: zq z"
    last = [token_texts(example, "words", tokenizer)[-1] for example in (whole, without_end, without_letter)]
    assert last == ["zq", "zq", "z"]


def test_characters_that_are_split_over_tokens_lie_in_their_words(byte_tokenizer: Build) -> None:
    tokenizer = byte_tokenizer()
    pieces = [token for character in "日本😀 a" for token in ids_of(character, tokenizer)]
    retokenised = encode_one(pieces, tokenizer)
    assert token_texts(retokenised, "words", tokenizer) == ["Say:", "日本😀", "a"]
    # The same text in tokens that no tokenizer would choose: the last bytes of one word, alone.
    joined = ids_of("lamp", tokenizer)
    apart = [token for character in "lamp" for token in ids_of(character, tokenizer)]
    assert list(joined) != apart
    unlike_retokenised = encode_one([*apart, *pieces], tokenizer)
    assert token_texts(unlike_retokenised, "words", tokenizer) == ["Say:", "lamp日本😀", "a"]
    characters_ = unlike_retokenised.spans["characters"][-5:].tolist()
    first = unlike_retokenised.prompt_length + len(apart)
    assert characters_[0] == [first, first + len(ids_of("日", tokenizer))]


@pytest.mark.parametrize("style", ["metaspace", "normalizer"])
@pytest.mark.parametrize("pieces", ["▁ T h e ▁ l a m p", "T h e ▁ l a m p", "▁ ▁ T h e ▁ l a m p"])
def test_the_space_that_decoding_strips_moves_no_span(sentencepiece_tokenizer: Build, style: str, pieces: str) -> None:
    tokenizer = sentencepiece_tokenizer(style)
    example = encode_one(tokenizer.convert_tokens_to_ids(pieces.split()), tokenizer)
    words = [
        tokenizer.convert_ids_to_tokens(example.input_ids[start:end].tolist()) for start, end in example.spans["words"]
    ]
    assert ["".join(tokens).strip("▁") for tokens in words[1:]] == ["The", "lamp"]


def test_half_a_character_is_text_of_its_own(byte_tokenizer: Build) -> None:
    tokenizer = byte_tokenizer()
    half = ids_of("日", tokenizer)[:2]
    example = encode_one([*half, *ids_of(" lamp", tokenizer)], tokenizer, finished=False)
    assert example.input_ids[example.prompt_length :][:2].tolist() == list(half)
    encoder = encoder_of(tokenizer, None, 100)
    prompt = prompt_of("Say: ", tokenizer)
    assert encoder.texts([prompt], [TokenResponse(half, False)]) == ["Say: \ufffd"]
    assert token_texts(example, "words", tokenizer)[-1].strip() == "lamp"


def test_special_tokens_within_a_response_are_trained_on_but_lie_in_no_span(byte_tokenizer: Build) -> None:
    tokenizer = byte_tokenizer()
    turn = tokenizer.convert_tokens_to_ids("<|im_end|>")
    example = encode_one([*ids_of("a lamp", tokenizer), turn, *ids_of(" is it", tokenizer)], tokenizer)
    assert tokenizer.decode(example.input_ids.tolist()) == "Say: a lamp<|im_end|> is it<|end|>"
    inside = {int(token) for first, end in example.spans["words"] for token in example.input_ids[first:end]}
    assert turn not in inside
    assert token_texts(example, "words", tokenizer) == ["Say:", "a", " lamp", " is", " it"]


def test_written_out_markers_are_ordinary_text(byte_tokenizer: Build) -> None:
    tokenizer = byte_tokenizer()
    ids = [token for character in "<|end|>" for token in ids_of(character, tokenizer)]
    example = encode_one(ids, tokenizer)
    assert example.input_ids[example.prompt_length :].tolist() == [*ids, tokenizer.eos_token_id]
    first = example.prompt_length
    assert example.spans["words"].tolist()[-1] == [first, first + len(ids)]


def test_without_extractor_there_are_no_spans_and_given_ones_are_not_parsed(byte_tokenizer: Build) -> None:
    tokenizer = byte_tokenizer()
    prompt, response = prompt_of("Say: ", tokenizer), TokenResponse(ids_of("a lamp", tokenizer), True)
    (plain,) = encoder_of(tokenizer, None, 100).encode([prompt], [response], by_student=True)
    assert plain.spans == {}
    extractor = characters()
    given = {"words": np.array([[7, 11]], dtype=np.int32)}
    (example,) = encoder_of(tokenizer, extractor, 100).encode([prompt], [response], True, [given])
    assert token_texts(example, "words", tokenizer) == [" lamp"]
    assert extractor.asked == []


def test_each_text_is_parsed_once_and_no_texts_are_normal(byte_tokenizer: Build) -> None:
    tokenizer, extractor = byte_tokenizer(), characters()
    encoder = encoder_of(tokenizer, extractor, 100)
    assert encoder.encode([], [], by_student=True) == []
    prompts = [prompt_of(text, tokenizer) for text in ("a: ", "b: ")]
    encoder.encode(prompts, [TokenResponse(ids_of("x", tokenizer), True)] * 2, by_student=True)
    assert extractor.asked == ["a: x", "b: x"]


def test_an_extractor_that_breaks_its_contract_is_a_run_error(byte_tokenizer: Build) -> None:
    class Invalid(Characters):
        def extract(self, texts: Sequence[str]) -> list[SpanSet]:
            return [{"words": [(0, 1000)], "characters": []} for _ in texts]

    tokenizer = byte_tokenizer()
    encoder = encoder_of(tokenizer, Invalid(Invalid.Params()), 100)
    with pytest.raises(RunError, match=r"span extractor 'characters', text 0 .*0 <= start < end"):
        encoder.encode([prompt_of("Say: ", tokenizer)], [TokenResponse((), True)], by_student=True)


def test_a_missing_response_is_an_error(byte_tokenizer: Build) -> None:
    tokenizer = byte_tokenizer()
    with pytest.raises(ValueError, match="shorter"):
        encoder_of(tokenizer, None, 100).encode([prompt_of("Say: ", tokenizer)], [], by_student=True)


def test_the_tokenizer_of_the_caller_is_left_alone(byte_tokenizer: Build) -> None:
    tokenizer = byte_tokenizer()
    encoder = encoder_of(tokenizer, characters(), 100)
    prompt = prompt_of("Say: ", tokenizer)
    tokenizer.backend_tokenizer.enable_truncation(2)
    (example,) = encoder.encode([prompt], [TokenResponse((40, 41, 42, 43), True)], by_student=True)
    assert tokenizer.backend_tokenizer.truncation is not None
    assert len(example.input_ids) == example.prompt_length + 5


def test_threads_may_encode_while_others_use_the_tokenizer(byte_tokenizer: Build) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    encoder = encoder_of(tokenizer, characters(), 100)
    prompts = [prompt_of(f"Say {index}: ", tokenizer) for index in range(30)]
    ids = tuple(token for character in "the lamp 😀" for token in ids_of(character, tokenizer))
    responses = [TokenResponse(ids[index % len(ids) :], bool(index % 2)) for index in range(30)]
    expected = encoder.encode(prompts, responses, by_student=True)
    stop = threading.Event()

    def disturb() -> None:
        while not stop.is_set():  # each call changes the settings of the tokenizer it is made on
            tokenizer(["the lamp"] * 50, padding="max_length", max_length=7, truncation=True)
            tokenizer(["the lamp"] * 50, padding=False, truncation=False)

    with ThreadPoolExecutor(4) as workers:
        disturbing = workers.submit(disturb)
        calls = [workers.submit(encoder.encode, prompts, responses, True) for _ in range(12)]
        try:
            actual = [call.result(timeout=60) for call in calls]
        finally:
            stop.set()
        disturbing.result(timeout=60)
    for examples in actual:
        for example, original in zip(examples, expected, strict=True):
            assert_same(example, original)


@pytest.mark.parametrize(
    ("log_probs", "max_length", "expected"),
    [
        ((-0.5, -1.5, -0.25), 100, [-0.5, -1.5, -0.25]),
        ((-0.5, -1.5), 100, [-0.5, -1.5]),
        ((-0.5, -1.5, -0.25), 1, [-0.5]),
    ],
    ids=["with the end", "without the end", "cut"],
)
def test_log_probabilities_go_with_the_tokens_that_are_left(
    byte_tokenizer: Build, log_probs: tuple[float, ...], max_length: int, expected: list[float]
) -> None:
    tokenizer = byte_tokenizer(False)
    prompt, ids = prompt_of("Say: ", tokenizer), ids_of("xy", tokenizer)
    encoder = encoder_of(tokenizer, None, prompt.prompt_length + max_length)
    plain = TokenResponse(ids[:2], True)
    (written,) = encoder.encode([prompt], [TokenResponse(ids[:2], True, log_probs)], by_student=True)
    (without,) = encoder.encode([prompt], [plain], by_student=True)
    assert written.log_probs is not None
    assert written.log_probs.dtype == np.float32
    assert written.log_probs.tolist() == expected
    assert without.log_probs is None
    assert without.input_ids.tolist() == written.input_ids.tolist()
