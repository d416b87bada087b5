"""What ``gpu.py`` measures, in two sizes: for a GPU, and for the rehearsal on a CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from synthetic import SHAPE


@dataclass(frozen=True)
class Pair:
    """A teacher with random weights, and the student that learns from it.

    Args:
        teacher: Fields of the teacher's configuration.
        student: Section ``student`` of a spec.
        batch_size: Texts per step.
    """

    teacher: Mapping[str, Any]
    student: Mapping[str, Any]
    batch_size: int


@dataclass(frozen=True)
class Settings:
    """Sizes of everything.

    Args:
        pairs: Name -> pair; the first is the one that all losses are measured on.
        steps: Measured steps per variant.
        max_length: Most tokens of a text.
        matrix: Size of the matrices whose product gives the rate of the device.
        prompts: Number of prompts that responses are generated to.
        rows: Number of responses generated at once.
        new_tokens: Most tokens of a response.
        bases: Base losses; empty: all installed ones.
        terms: Alignment terms, likewise.
        estimators: Importance estimators, likewise.
        runs: Names of the runs of ``gpu_runs``; empty: all of them.
        device: Device of everything.
    """

    pairs: Mapping[str, Pair]
    steps: int
    max_length: int
    matrix: int
    prompts: int
    rows: int
    new_tokens: int
    bases: Sequence[str] = ()
    terms: Sequence[str] = ()
    estimators: Sequence[str] = ()
    runs: Sequence[str] = ()
    device: str = "cuda"


SMALL, WIDE, LARGE_VOCABULARY, LARGEST = "SmolLM2-135M", "GPT-2 XL", "Qwen2.5-1.5B", "Llama-2-7B"


def _llama(hidden: int, inner: int, layers: int, heads: int, kv: int, vocabulary: int, tied: bool) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "vocab_size": vocabulary,
        "tie_word_embeddings": tied,
    }


def _gpt2(width: int, layers: int, heads: int, vocabulary: int = 50257) -> dict[str, Any]:
    return {"model_type": "gpt2", "n_embd": width, "n_layer": layers, "n_head": heads, "vocab_size": vocabulary}


FULL = Settings(
    pairs={
        SMALL: Pair(SHAPE, {"teacher_layers": [1, 7, 13, 18, 24, 30]}, 32),
        WIDE: Pair(_gpt2(1600, 48, 25), {"config": _gpt2(768, 12, 12)}, 16),
        LARGE_VOCABULARY: Pair(
            _llama(1536, 8960, 28, 12, 2, 151936, True), {"config": _llama(896, 4864, 24, 14, 2, 151936, True)}, 16
        ),
        LARGEST: Pair(
            _llama(4096, 11008, 32, 32, 32, 32000, False), {"config": _llama(2048, 5632, 22, 32, 4, 32000, False)}, 8
        ),
    },
    steps=8,
    max_length=512,
    matrix=8192,
    prompts=64,
    rows=32,
    new_tokens=128,
)
"""Shapes of the teachers by name; the students are 6 of its own blocks, GPT-2, Qwen2.5-0.5B and TinyLlama-1.1B."""

_TINY_TEACHER = _llama(16, 32, 6, 2, 2, 4100, True)
_TINY_PAIR = Pair(_TINY_TEACHER, {"config": _llama(16, 32, 4, 2, 2, 4100, True)}, 2)

TINY = Settings(
    pairs={
        SMALL: Pair(_TINY_TEACHER, {"teacher_layers": [1, 3, 5, 6]}, 2),
        WIDE: Pair(_gpt2(16, 6, 2, 4100), {"config": _gpt2(16, 4, 2, 4100)}, 2),
        LARGE_VOCABULARY: _TINY_PAIR,
        LARGEST: _TINY_PAIR,
    },
    steps=1,
    max_length=128,
    matrix=64,
    prompts=4,
    rows=2,
    new_tokens=4,
    bases=("kl", "none"),
    terms=("dsa",),
    estimators=("attention", "entropy"),
    runs=("KL + MTA", "DistiLLM"),
    device="cpu",
)
"""The same parts in seconds on a CPU."""
