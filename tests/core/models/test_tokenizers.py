from __future__ import annotations

import copy

import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from mta_framework import InputError
from mta_framework.models.tokenizers import (
    check_vocabulary,
    load_student_tokenizer,
    load_teacher_tokenizer,
    shared_tokens,
    vocabulary_difference,
)
from mta_framework.spec.student import StudentSection
from mta_framework.spec.teacher import TeacherSection


@pytest.fixture
def folder(tiny, tokenizer, tmp_path):
    tiny("llama").save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def words(*tokens, **special):
    backend = Tokenizer(models.WordLevel({token: index for index, token in enumerate(tokens)}, unk_token=tokens[0]))
    return PreTrainedTokenizerFast(tokenizer_object=backend, **special)


def test_own_tokenizer_is_loaded(folder, tokenizer):
    for loaded in (
        load_teacher_tokenizer(TeacherSection(path=str(folder))),
        load_teacher_tokenizer(TeacherSection(run="other.json"), folder),
        load_student_tokenizer(StudentSection(path=str(folder))),
        load_student_tokenizer(StudentSection(config={"model_type": "gpt2"}, tokenizer=str(folder))),
    ):
        assert loaded.get_vocab() == tokenizer.get_vocab()


def test_student_without_tokenizer_takes_the_teachers(tokenizer):
    assert load_student_tokenizer(StudentSection(teacher_layers=[1]), tokenizer) is tokenizer
    with pytest.raises(InputError, match=r"student\.tokenizer: is missing"):
        load_student_tokenizer(StudentSection(config={"model_type": "gpt2"}))


def test_padding_token_is_the_end_token_where_there_is_none(tmp_path):
    words("a", "</s>", eos_token="</s>").save_pretrained(tmp_path)
    section = StudentSection(config={"model_type": "gpt2"}, tokenizer=str(tmp_path))
    loaded = load_student_tokenizer(section)
    assert (loaded.pad_token, loaded.pad_token_id) == ("</s>", 1)


def test_tokenizer_without_end_token_is_refused(tmp_path):
    words("a", "b").save_pretrained(tmp_path)
    with pytest.raises(InputError, match="has no end-of-sequence token"):
        load_student_tokenizer(StudentSection(config={"model_type": "gpt2"}, tokenizer=str(tmp_path)))


def test_slow_tokenizer_is_refused(tmp_path, monkeypatch):
    words("a", "</s>", eos_token="</s>").save_pretrained(tmp_path)
    monkeypatch.setattr(PreTrainedTokenizerFast, "is_fast", False)
    with pytest.raises(InputError, match="gives no character offsets"):
        load_student_tokenizer(StudentSection(config={"model_type": "gpt2"}, tokenizer=str(tmp_path)))


def test_folder_without_tokenizer_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"student\.tokenizer: has no tokenizer"):
        load_student_tokenizer(StudentSection(config={"model_type": "gpt2"}, tokenizer=str(tmp_path)))
    with pytest.raises(InputError, match=r"student\.tokenizer: does not exist"):
        load_student_tokenizer(StudentSection(config={"model_type": "gpt2"}, tokenizer=str(tmp_path / "no")))
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(
        InputError, match=r"could not be loaded .* expected a tokenizer of transformers that needs no code"
    ):
        load_student_tokenizer(StudentSection(config={"model_type": "gpt2"}, tokenizer=str(tmp_path)))


def test_equal_tokenizers_agree(tokenizer):
    assert vocabulary_difference(tokenizer, copy.deepcopy(tokenizer)) is None


def test_tokenizers_that_differ_by_trailing_tokens_agree(tokenizer):
    longer = copy.deepcopy(tokenizer)
    longer.add_tokens(["<pad-1>", "<pad-2>"])
    assert len(longer) == len(tokenizer) + 2
    assert vocabulary_difference(tokenizer, longer) is None
    assert vocabulary_difference(longer, tokenizer) is None


def test_first_differing_tokens_are_named():
    message = vocabulary_difference(words("x", "a", "b", "c"), words("x", "a", "c", "b", "d"))
    assert message == "in 2 tokens (got id 2: 'b' and 'c', id 3: 'c' and 'b')"


def test_shared_tokens_are_those_of_the_same_text_whatever_stands_for_white_space():
    byte_level = words("x", "Ġthe", "the", "Ã", "Ã©", "Ġ")
    byte_level.backend_tokenizer.decoder = decoders.ByteLevel()
    pieces = words("<unk>", "the", "▁a", "▁the", "é", "<0xC3>", "▁")
    assert shared_tokens(byte_level, pieces) == [(1, 3), (2, 1), (3, 5), (4, 4), (5, 6)]
    assert shared_tokens(pieces, byte_level) == [(1, 2), (3, 1), (4, 4), (5, 3), (6, 5)]


def test_bytes_of_one_vocabulary_are_shared_unless_a_token_of_their_text_is():
    byte_level = words("x", "Ċ", "A", "ĉ", "<ŀ>")
    byte_level.backend_tokenizer.decoder = decoders.ByteLevel()
    pieces = words("<0x0A>", "<0x41>", "<0x09>", "A", "\t", "<0x0a1>")
    assert shared_tokens(byte_level, pieces) == [(1, 0), (2, 3), (3, 4)]
    assert shared_tokens(pieces, byte_level) == [(0, 1), (3, 2), (4, 3)]
    assert shared_tokens(pieces, words("<0x0A>", "A", "<0x09>")) == [(0, 0), (3, 1), (4, 2)]


def test_of_tokens_of_one_text_the_first_is_shared():
    assert shared_tokens(words("x", "▁a", " a", "b"), words("b", " a")) == [(1, 1), (3, 0)]
    assert shared_tokens(words("x"), words("y")) == []


def test_vocabulary_must_embed_every_token(tiny, tokenizer):
    model = tiny("llama")
    assert check_vocabulary(tokenizer, model, "teacher.path") is None
    model.resize_token_embeddings(256, mean_resizing=False)
    fault = check_vocabulary(tokenizer, model, "teacher.path")
    assert fault is not None
    assert str(fault).startswith("teacher.path: has fewer embeddings")
