"""Tokenizers that are trained on the spot, and records of every kind."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

CORPUS = ["The lighthouse keeper repairs the broken lamp.\n", "Below is an instruction that describes a task. "] * 5
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="session")
def byte_tokenizer() -> Callable[..., PreTrainedTokenizerFast]:
    """Byte-level BPE in the manner of GPT-2; ``template`` is the post-processor's, e.g. ``<s> $A </s>``."""

    def build(trim_offsets: bool = True, template: str | None = None) -> PreTrainedTokenizerFast:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        special = ["<|end|>", "<|im_start|>", "<|im_end|>", "<s>"]
        trainer = trainers.BpeTrainer(
            vocab_size=330,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(CORPUS, trainer)
        byte_level = processors.ByteLevel(trim_offsets=trim_offsets)
        if template is None:
            tokenizer.post_processor = byte_level
        else:
            ids = [(token, tokenizer.token_to_id(token)) for token in special]
            pieces = processors.TemplateProcessing(single=template, special_tokens=ids)
            tokenizer.post_processor = processors.Sequence([byte_level, pieces])
        return PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            eos_token="<|end|>",
            additional_special_tokens=special[1:3],
        )

    return build


@pytest.fixture(scope="session")
def sentencepiece_tokenizer() -> Callable[..., PreTrainedTokenizerFast]:
    """In the manner of Llama: ``▁`` for spaces, one before the text; bytes for unknown characters.

    ``style`` says who writes and removes the ``▁``: "metaspace" or "normalizer".
    """

    def build(style: str) -> PreTrainedTokenizerFast:
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        special = ["<unk>", "<s>", "</s>"]
        trainer = trainers.BpeTrainer(vocab_size=150, special_tokens=special, show_progress=False)
        tokenizer.train_from_iterator(CORPUS, trainer)
        content = json.loads(tokenizer.to_str())
        vocabulary = content["model"]["vocab"]
        vocabulary.update({f"<0x{byte:02X}>": len(vocabulary) + byte for byte in range(256)})
        content["model"]["byte_fallback"] = True
        tokenizer = Tokenizer.from_str(json.dumps(content))
        bytes_and_all = [decoders.ByteFallback(), decoders.Fuse()]
        if style == "metaspace":
            tokenizer.decoder = decoders.Sequence([decoders.Metaspace(), *bytes_and_all])
        else:
            tokenizer.pre_tokenizer = None
            tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
            steps = [decoders.Replace("▁", " "), *bytes_and_all, decoders.Strip(" ", 1, 0)]
            tokenizer.decoder = decoders.Sequence(steps)
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")

    return build


@pytest.fixture
def chat_tokenizer(byte_tokenizer: Callable[..., PreTrainedTokenizerFast]) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer with a chat template."""
    tokenizer = byte_tokenizer(template="<s> $A")
    tokenizer.chat_template = CHAT
    return tokenizer


@pytest.fixture
def write_rows(tmp_path: Path) -> Callable[[Sequence[object]], Path]:
    """Write rows as JSON Lines."""

    def write(rows: Sequence[object]) -> Path:
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def log() -> tuple[dict[str, float], ...]:
    """A log of training: two entries of steps, one of validation, the summary."""
    return (
        {"loss": 3.2, "kl": 3.0, "dsa": 0.1, "learning_rate": 1e-4, "grad_norm": 2.0, "epoch": 0.5, "step": 10},
        {"loss": 2.2, "kl": 2.0, "dsa": 0.1, "learning_rate": 5e-5, "grad_norm": 1.0, "epoch": 1.0, "step": 20},
        {"eval_loss": 2.5, "eval_kl": 2.3, "eval_dsa": 0.1, "epoch": 1.0, "step": 20},
        {"train_runtime": 9.0, "train_loss": 2.7, "total_flos": 0.0, "epoch": 1.0, "step": 20},
    )
