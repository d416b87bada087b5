"""The characters of generated tokens: computed from their bytes, on tokenizers of both kinds and any tokens."""

from __future__ import annotations

import codecs
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from mta_framework.data.tokens import special_ids
from mta_framework.spans.generated_offsets import generated_offsets, text_of

Build = Callable[..., PreTrainedTokenizerFast]
Range = tuple[int, int]

SCRIPTS = "A lamp 😀👩‍🚀, 日本語 and é\u0301 again"


def byte_values() -> dict[str, int]:
    """Byte-level characters and their bytes: printable ones stand for themselves, the others follow from 256 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    unprintable = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(unprintable)}


def from_bytes(pieces: list[bytes]) -> tuple[str, list[Range]]:
    """The text of pieces, and for each the range of the characters that any of its bytes belongs to."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text, firsts, start = "", [], 0
    content = b"".join(pieces)
    for position in range(len(content) + 1):
        rest = position == len(content)
        new = decoder.decode(content[position : position + 1], rest)
        pending = len(decoder.getstate()[0])
        for index, character in enumerate(new):
            firsts.append(start)
            start = position + (not rest) - pending if index == len(new) - 1 else position
            text += character
    owner = np.searchsorted(firsts, np.arange(len(content)), side="right") - 1
    ends = np.cumsum([len(piece) for piece in pieces])
    return text, [
        (int(owner[end - len(piece)]), int(owner[end - 1]) + 1) if piece else (-1, -1)
        for end, piece in zip(ends, pieces, strict=True)
    ]


def offsets_of(ids: list[int], tokenizer: PreTrainedTokenizerFast) -> tuple[str, list[Range]]:
    text = text_of(ids, tokenizer)
    offsets = generated_offsets(ids, text, tokenizer)
    assert offsets.dtype == np.int32
    assert offsets.shape == (len(ids), 2)
    return text, [tuple(pair) for pair in offsets.tolist()]


def check_cover(text: str, ranges: list[Range]) -> None:
    """Nothing is left out, and starts and ends ascend."""
    reached = 0
    starts, ends = [[pair[side] for pair in ranges] for side in (0, 1)]
    assert starts == sorted(starts)
    assert ends == sorted(ends)
    for start, end in zip(starts, ends, strict=True):
        assert reached - 1 <= start <= reached
        reached = end
    assert reached == len(text)
    assert all(0 <= start <= end <= len(text) for start, end in ranges)


def check_without_characters(range_: Range, text: str, shared: bool) -> None:
    """Empty, or within a character that another token began."""
    start, end = range_
    assert start == end or (shared and end - start == 1 and ord(text[start]) > 127)


def test_any_tokens_of_a_byte_level_vocabulary_have_the_characters_of_their_bytes(byte_tokenizer: Build) -> None:
    tokenizer = byte_tokenizer()
    values = byte_values()
    special = set(special_ids(tokenizer).tolist())

    def bytes_of(token: int) -> bytes:
        return b"" if token in special else bytes(values[c] for c in tokenizer.convert_ids_to_tokens(token))

    characters = st.sampled_from("aé日😀 \u0301").map(lambda c: tokenizer(c)["input_ids"])
    anything = st.integers(0, len(tokenizer) - 1).map(lambda token: [token])

    @settings(max_examples=150, deadline=None)
    @given(parts=st.lists(characters | anything, max_size=20))
    def compare(parts: list[list[int]]) -> None:
        ids = [token for part in parts for token in part]
        text, ranges = offsets_of(ids, tokenizer)
        expected_text, expected = from_bytes([bytes_of(token) for token in ids])
        assert text == expected_text
        check_cover(text, ranges)
        for token, expected_range, range_ in zip(ids, expected, ranges, strict=True):
            if token in special:
                check_without_characters(range_, text, shared=range_ in expected)
            elif range_ != expected_range:  # further bytes of a character that is none: nothing new after the first
                assert text[range_[0] - 1] == "\ufffd"
                assert "\ufffd" in text[slice(*expected_range)]

    compare()


@pytest.mark.parametrize("style", ["metaspace", "normalizer"])
def test_any_tokens_of_a_sentencepiece_vocabulary_have_their_pieces(style: str, sentencepiece_tokenizer: Build) -> None:
    tokenizer = sentencepiece_tokenizer(style)
    special = set(tokenizer.all_special_ids)
    pieces = {token: tokenizer.convert_ids_to_tokens(token) for token in range(len(tokenizer))}
    characters = st.sampled_from("a日😀 ").map(lambda c: tokenizer(c, add_special_tokens=False)["input_ids"])
    anything = st.integers(0, len(tokenizer) - 1).map(lambda token: [token])
    plain = st.sampled_from([token for token, piece in pieces.items() if not piece.startswith("<")]).map(
        lambda token: [token]
    )

    @settings(max_examples=150, deadline=None)
    @given(parts=st.lists(characters | anything | plain | plain, max_size=20))
    def compare(parts: list[list[int]]) -> None:
        ids = [token for part in parts for token in part]
        text, ranges = offsets_of(ids, tokenizer)
        check_cover(text, ranges)
        first = next((position for position, token in enumerate(ids) if token not in special), None)
        for position, (token, (start, end)) in enumerate(zip(ids, ranges, strict=True)):
            piece = pieces[token].replace("▁", " ")
            if token in special:
                check_without_characters((start, end), text, shared=(start, end) in ranges[:position])
            elif not piece.startswith("<0x"):
                expected = piece.removeprefix(" ") if position == first else piece
                # Bytes that turn out to be no character change what was settled before them.
                assert text[start:end].endswith(expected)
                assert text[start:end] == expected or "\ufffd" in text[start:end]

    compare()


def test_the_space_that_decoding_strips_belongs_to_no_token(sentencepiece_tokenizer: Build) -> None:
    for style in ("metaspace", "normalizer"):
        tokenizer = sentencepiece_tokenizer(style)
        ids = tokenizer.convert_tokens_to_ids(["▁", "▁", "l", "a", "m", "p", "▁", "T"])
        text, ranges = offsets_of(ids, tokenizer)
        assert text == " lamp T"
        assert ranges == [(0, 0), (0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (6, 7)]


@pytest.mark.parametrize("style", ["byte level", "metaspace", "normalizer"])
def test_usual_tokens_have_the_offsets_of_the_tokenizer(
    style: str, byte_tokenizer: Build, sentencepiece_tokenizer: Build
) -> None:
    tokenizer = byte_tokenizer(trim_offsets=False) if style == "byte level" else sentencepiece_tokenizer(style)
    encoded = tokenizer(SCRIPTS, return_offsets_mapping=True, add_special_tokens=False)
    text, ranges = offsets_of(encoded["input_ids"], tokenizer)
    assert text == SCRIPTS
    assert len(ranges) > len(SCRIPTS) / 2
    # A tokenizer gives the space that it put first, alone, the range of the first character.
    alone = encoded["offset_mapping"][:2] == [(0, 1), (0, 1)]
    assert ranges[alone:] == encoded["offset_mapping"][alone:]
    assert alone == (style != "byte level")


def test_no_tokens_are_normal(byte_tokenizer: Build) -> None:
    assert offsets_of([], byte_tokenizer()) == ("", [])


def test_a_token_beyond_the_vocabulary_has_no_characters(byte_tokenizer: Build) -> None:
    tokenizer = byte_tokenizer()
    ids = [*tokenizer("lamp")["input_ids"], len(tokenizer) + 5]
    text, ranges = offsets_of(ids, tokenizer)
    assert (text, ranges[-1]) == ("lamp", (4, 4))
