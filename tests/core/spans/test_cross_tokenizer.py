"""Two tokenizers on one text: the same spans on both sides, and places at which both have read the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sides import sides
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from mta_framework.data.prompts import Sample
from mta_framework.data.tokens import encode

CORPUS = ["The old lamp is broken. Cafe\u0301 and café, 日本語のテキスト, 😀👩‍👩‍👧 tabs\tand\nlines."] * 20
PIECES = [
    "The",
    " old",
    "lamp",
    " ",
    "  ",
    "\t",
    "\n",
    ".",
    "e\u0301",
    "é",
    "日本",
    "語",
    "😀",
    "👩‍👩‍👧",
    "\u200b",
    "x",
    " 7",
]
texts = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)


def byte_level(trim_offsets: bool = False) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=trim_offsets)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|end|>")


def unigram(normalizer: normalizers.Normalizer | None = None) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.Unigram())
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["<unk>", "<s>", "</s>"]
    trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


STUDENT, TEACHER = byte_level(), unigram()


def encoded(prompt, response, spans=None, max_length=200):
    sample = Sample(prompt, response, (response,))
    span_sets = None if spans is None else [{"words": spans}]
    return encode([sample], span_sets, sides(max_length, STUDENT, TEACHER), max_length - 1).examples[0]


def read_by_student(example, token):
    """The text that the tokens before ``token`` spell; byte-level tokens are bytes, so this is exact."""
    return STUDENT.decode(example.input_ids[:token].tolist(), clean_up_tokenization_spaces=False)


def ends_of_teacher(example, prompt, response):
    """Where each token of the teacher's response ends in the text, by its own offsets in the whole or alone."""
    given = example.teacher.input_ids[example.teacher.prompt_length : -1].tolist()
    for before, text in ((0, prompt + response), (len(prompt), response)):
        whole = TEACHER(text, add_special_tokens=False, return_offsets_mapping=True)
        start = len(whole["input_ids"]) - len(given)
        if whole["input_ids"][start:] == given:
            return [before + end for _, end in whole["offset_mapping"][start:]]
    raise AssertionError("the response has tokens that the tokenizer does not give it")


@settings(max_examples=200, deadline=None)
@given(prompt=texts, response=texts)
def test_matched_tokens_are_predicted_from_the_same_text(prompt, response):
    example = encoded(prompt, response)
    teacher = example.teacher
    text = prompt + response
    ends = [len(prompt), *ends_of_teacher(example, prompt, response)]
    assert example.matched_R2[:, 0].tolist() == sorted(set(example.matched_R2[:, 0].tolist()))
    assert example.matched_R2[:, 1].tolist() == sorted(set(example.matched_R2[:, 1].tolist()))
    for student_token, teacher_token in example.matched_R2.tolist():
        end = max(ends[: teacher_token - teacher.prompt_length + 1])
        assert read_by_student(example, student_token) == text[:end]


@settings(max_examples=100, deadline=None)
@given(prompt=texts.filter(bool), response=texts)
def test_beginning_and_end_of_a_response_are_matched(prompt, response):
    example = encoded(prompt, response)
    assert example.matched_R2[0].tolist() == [example.prompt_length, example.teacher.prompt_length]
    assert example.matched_R2[-1].tolist() == [len(example.input_ids) - 1, len(example.teacher.input_ids) - 1]


@settings(max_examples=200, deadline=None)
@given(data=st.data(), prompt=texts, response=texts)
def test_both_sides_hold_the_same_spans_in_one_order(data, prompt, response):
    text = prompt + response
    edges = st.tuples(st.integers(0, max(len(text) - 1, 0)), st.integers(1, 6)).map(lambda it: (it[0], it[0] + it[1]))
    spans = sorted({edge for edge in data.draw(st.lists(edges, max_size=6)) if edge[1] <= len(text)})
    example = encoded(prompt, response, spans)
    student_spans, teacher_spans = example.spans["words"], example.teacher.spans["words"]
    assert len(student_spans) == len(teacher_spans)
    alone = encode([Sample(prompt, response, (response,))], [{"words": spans}], sides(200, STUDENT), 199).examples[0]
    kept = [tuple(span) for span in alone.spans["words"].tolist()]
    assert [tuple(span) for span in student_spans.tolist()] == [
        span for span in kept if span in {tuple(s) for s in student_spans.tolist()}
    ]


def test_plain_words_have_tokens_on_both_sides():
    text = "The old lamp is broken."
    words = [(0, 3), (4, 7), (8, 12), (13, 15), (16, 22)]
    example = encoded("", text, words)
    assert len(example.spans["words"]) == len(example.teacher.spans["words"]) == 5
    for side, tokenizer in ((example, STUDENT), (example.teacher, TEACHER)):
        pieces = [tokenizer.decode(side.input_ids[first:last].tolist()).strip() for first, last in side.spans["words"]]
        assert pieces == [text[start:end] for start, end in words]


def test_beginnings_of_words_are_matched():
    example = encoded("The", " old lamp")
    texts_read = [read_by_student(example, student_token) for student_token in example.matched_R2[:, 0].tolist()]
    assert {"The", "The old", "The old lamp"} <= set(texts_read)


def matched_with(teacher: PreTrainedTokenizerFast, prompt: str, response: str) -> list[tuple[str, str]]:
    """What the student has read at each matched token, and the teacher's token there."""
    example = encode([Sample(prompt, response, (response,))], None, sides(200, STUDENT, teacher), 199).examples[0]
    ids = example.teacher.input_ids.tolist()
    return [
        (read_by_student(example, student_token), teacher.convert_ids_to_tokens(ids[teacher_token]))
        for student_token, teacher_token in example.matched_R2.tolist()
    ]


def test_an_accent_that_a_teacher_composes_is_read_with_its_letter():
    matches = matched_with(unigram(normalizers.NFKC()), "x", "e\u0301 x")
    assert "xe" not in [read for read, _ in matches]
    assert ("xe\u0301", "▁") in [(read, token[:1]) for read, token in matches]


def test_prompt_and_response_are_read_where_a_teacher_drops_white_space_at_their_ends():
    matches = matched_with(unigram(normalizers.Strip()), "The\n", "old \n")
    assert [read for read, _ in matches if read in ("The", "The\nold", "The\nold ")] == []
    assert matches[0][0] == "The\n"
    assert matches[-1] == ("The\nold \n", "</s>")


def test_limits_hold_for_both_and_what_is_cut_off_is_not_matched():
    long = encoded("The", " old lamp is broken" * 4)
    short = encoded("The", " old lamp is broken" * 4, max_length=12)
    assert len(short.input_ids) <= 12
    assert len(short.teacher.input_ids) <= 12
    kept = [pair for pair in long.matched_R2.tolist() if pair[0] < 12 and pair[1] < 12]
    assert short.matched_R2.tolist() == kept


@pytest.mark.parametrize("trimmed", [False, True])
def test_one_tokenizer_matched_with_itself_matches_every_token(trimmed):
    tokenizer = byte_level(trimmed)
    sample = Sample("The old", " lamp is broken.", ("x",))
    example = encode([sample], None, sides(100, tokenizer, tokenizer), 99).examples[0]
    tokens = np.arange(example.prompt_length, len(example.input_ids))
    assert example.matched_R2.tolist() == np.stack([tokens, tokens], axis=1).tolist()


def test_tokens_outside_of_supervised_turns_are_matched_by_nothing():
    prompt, first, between, second = "The lamp. ", "old lamp", "\nlamp\n", "The old"
    text = prompt + first + between + second
    start = len(prompt + first + between)
    turns = ((len(prompt), len(prompt + first)), (start, len(text)))
    sample = Sample(prompt, text[len(prompt) :], ("",), supervised=turns)
    example = encode([sample], None, sides(200, STUDENT, TEACHER), 199).examples[0]
    starts = [len(read_by_student(example, token)) for token in example.matched_R2[:, 0].tolist()]
    assert starts[0] == len(prompt)
    assert start in starts
    assert starts[-1] == len(text)  # the end tokens
    assert all(any(start <= offset < end for start, end in turns) for offset in starts[:-1])
    for side, matched in ((example, example.matched_R2[:, 0]), (example.teacher, example.matched_R2[:, 1])):
        assert side.supervised_T[matched].all()
