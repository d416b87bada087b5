"""Kinds of tokenizers: a conversation has the ids that the chat template gives, its prompt those of generation."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sides import sides
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from mta_framework.data.prompts import Sample, render_prompts
from mta_framework.data.rows import Message, Record
from mta_framework.data.tokens import encode, prompt_ids

CORPUS = ["The lighthouse keeper repairs the broken lamp. user assistant question", "Paris is the capital of it."] * 5
TURNS = ["<|im_start|>", "<|im_end|>"]
CHATML = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA2 = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] | trim }} [/INST]"
    "{% else %} {{ m['content'] | trim }} {{ eos_token }}{% endif %}{% endfor %}"
)
LLAMA3_SPLIT = r"\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def finished(backend: Tokenizer, bos: str = "<s>", eos: str = "</s>") -> PreTrainedTokenizerFast:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=bos, eos_token=eos, unk_token="<unk>")
    tokenizer.add_special_tokens({"additional_special_tokens": TURNS})
    return tokenizer


def byte_level(split: str | None = None) -> PreTrainedTokenizerFast:
    """In the manner of GPT-2; with ``split`` in that of Llama 3, which takes whole words before it merges."""
    backend = Tokenizer(models.BPE(ignore_merges=split is not None))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if split is not None:
        parts = [pre_tokenizers.Split(Regex(split), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
        backend.pre_tokenizer = pre_tokenizers.Sequence(parts)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    return finished(backend)


def metaspace(scheme: str) -> PreTrainedTokenizerFast:
    """In the manner of Llama 2 as transformers writes it today; ``scheme`` says which pieces get a space mark."""
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    backend.decoder = decoders.Metaspace(prepend_scheme=scheme)
    trainer = trainers.BpeTrainer(vocab_size=150, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    backend.train_from_iterator([*(f"{text} [INST] [/INST]" for text in CORPUS), "\n"], trainer)
    return finished(backend)


def unigram() -> PreTrainedTokenizerFast:
    """In the manner of T5 and XLNet, which read a line break as a space, and several spaces as one."""
    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip(left=False, right=False)]
    )
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=["<unk>", "<s>", "</s>"], unk_token="<unk>", show_progress=False
    )
    backend.train_from_iterator([f"{text} [INST] [/INST]" for text in CORPUS], trainer)
    return finished(backend)


def word_piece() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordPiece(unk_token="<unk>"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=False)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=120, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    backend.train_from_iterator([f"{text} [INST] [/INST]" for text in CORPUS], trainer)
    return finished(backend)


KINDS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "GPT-2": byte_level,
    "Llama 3": lambda: byte_level(LLAMA3_SPLIT),
    "Llama 2, marks by the pre-tokenizer": lambda: metaspace("first"),
    "Llama 2, a mark after each special token": lambda: metaspace("always"),
    "T5": unigram,
    "BERT": word_piece,
}
ANSWERS = ["Paris", "the lamp. It is", "日本 😀 lamp", "42", "", "Paris\nParis", "[1] the"]


@pytest.fixture(params=[*KINDS, "Llama 2, marks by the normalizer"])
def kind(request):
    return request.param


@pytest.fixture
def tokenizer(kind, sentencepiece_tokenizer):
    if kind in KINDS:
        return KINDS[kind]()
    built = sentencepiece_tokenizer("normalizer")
    built.add_special_tokens({"additional_special_tokens": TURNS})
    return built


def of_the_template(tokenizer, turns, prompt=False):
    """The ids that transformers gives."""
    return list(tokenizer.apply_chat_template(turns, add_generation_prompt=prompt, tokenize=True)["input_ids"])


def alone(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("template", [CHATML, LLAMA2], ids=["ChatML", "Llama 2"])
def test_ids_of_a_conversation_are_those_that_the_chat_template_gives(kind, tokenizer, template, answer):
    tokenizer.chat_template = template
    record = Record((Message("user", "capital of it?"),), (answer,))
    (sample,) = render_prompts([record], "chat", tokenizer)
    (example,) = encode([sample], None, sides(400, tokenizer), 399).examples
    turns = [{"role": "user", "content": "capital of it?"}, {"role": "assistant", "content": answer}]
    opened, whole = of_the_template(tokenizer, turns[:1], prompt=True), of_the_template(tokenizer, turns)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>" if template == CHATML else "</s>")
    whole = whole[: len(whole) - whole[::-1].index(end)]
    assert example.prompt_ids.tolist() == opened
    if whole[: len(opened)] != opened:
        assert kind == "T5", "a token of the whole text reaches across the border"
        whole = opened + alone(tokenizer, sample.response)
    assert example.input_ids.tolist() == whole


@pytest.mark.parametrize("supervise", ["last", "none"])
def test_prompts_of_training_are_those_of_generation(tokenizer, supervise):
    tokenizer.chat_template = CHATML
    record = Record((Message("user", "capital of it?"),), ("Paris",))
    (sample,) = render_prompts([record], "chat", tokenizer, supervise=supervise)
    turns = [{"role": "user", "content": "capital of it?"}]
    assert prompt_ids([sample], tokenizer) == [of_the_template(tokenizer, turns, prompt=True)]


def test_no_answer_begins_with_a_lone_space_under_a_tokenizer_that_marks_the_beginning_of_a_text(
    sentencepiece_tokenizer,
):
    tokenizer = sentencepiece_tokenizer("normalizer")
    tokenizer.chat_template = LLAMA2
    (sample,) = render_prompts([Record((Message("user", "it"),), ("the lamp",))], "chat", tokenizer)
    (example,) = encode([sample], None, sides(400, tokenizer), 399).examples
    answer = tokenizer.convert_ids_to_tokens(example.input_ids[example.prompt_length :].tolist())
    assert answer == ["▁the", "▁lam", "p", "▁", "</s>"]
    assert tokenizer.convert_ids_to_tokens(alone(tokenizer, sample.response)) == ["▁", *answer]


PIECES = ["The", " lamp", "repairs", " ", "  ", "\n", "\n\n", "'s", "?", " 7", "é", "日本", "😀", "</s>", "<|im_end|>"]
texts = st.lists(st.sampled_from(PIECES), max_size=8).map("".join)
BYTE_LEVEL = {"GPT-2": byte_level(), "Llama 3": byte_level(LLAMA3_SPLIT)}


@pytest.mark.parametrize("kind", BYTE_LEVEL)
@settings(max_examples=60, deadline=None)
@given(prompt=texts.filter(bool), response=texts)
def test_byte_level_tokenizers_give_prompt_and_response_the_ids_that_they_have_alone(kind, prompt, response):
    tokenizer = BYTE_LEVEL[kind]
    (example,) = encode([Sample(prompt, response, ("",))], None, sides(400, tokenizer), 399).examples
    if response.rstrip().endswith(tokenizer.eos_token):  # white space behind the end is left out
        response = response.rstrip()
    expected = alone(tokenizer, prompt) + alone(tokenizer, response)
    ends = [] if alone(tokenizer, response)[-1:] == [tokenizer.eos_token_id] else [tokenizer.eos_token_id]
    assert example.input_ids.tolist() == expected + ends
