"""Write the specs of this folder from the tables below; a test keeps them from drifting.

    python examples/paper/generate.py

One teacher and six students for each pair of models: three base losses, each without and with MTA. Where a setting
comes from is said in the README beside this file.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SEED = 42
Spec = dict[str, Any]
Layers = tuple[tuple[int, int], ...]
"""Pairs of a student layer and the teacher layer that it is compared to."""


@dataclass(frozen=True)
class Pair:
    """A teacher and its student.

    Args:
        teacher: Model id on the hub.
        student: As above.
        layers: Key layers of MTA, the first for words, the others for phrases.
        layers_with_fdd: Those of FDD, and of MTA where FDD is the base.
        dsa_weight: Weight of MTA's structural term; that of its other term is a tenth of it.
        micro_batch_size: Texts per forward pass.
        learning_rate: Of the student.
        learning_rate_distillm2: Of the student with DistiLLM-2.
        lora: Whether both are trained by adapters.
    """

    teacher: str
    student: str
    layers: Layers
    layers_with_fdd: Layers
    dsa_weight: float
    micro_batch_size: int
    learning_rate: float
    learning_rate_distillm2: float
    lora: bool = False


_OPT_LAYERS = ((16, 20), (18, 23), (20, 26), (22, 29), (24, 32))
PAIRS = {
    "gpt2": Pair("gpt2-xl", "gpt2", ((6, 24), (9, 36), (12, 48)), ((4, 16), (6, 24), (8, 32)), 2.0, 16, 1e-4, 1e-4),
    "qwen": Pair(
        "Qwen/Qwen1.5-1.8B",
        "Qwen/Qwen1.5-0.5B",
        ((14, 14), (16, 16), (18, 18), (20, 20), (22, 22), (24, 24)),
        ((4, 4), (8, 8), (16, 16)),
        2.0,
        8,
        1e-4,
        5e-5,
    ),
    "opt": Pair("facebook/opt-6.7b", "facebook/opt-1.3b", _OPT_LAYERS, _OPT_LAYERS, 3.0, 8, 5e-4, 5e-4, lora=True),
}
BASES = ("fdd", "distillm", "distillm2")

DISTILLM: Spec = {
    "name": "distillm",
    "params": {
        "divergence": "reverse",
        "skew": 0.1,
        "batches": {"policy": "adaptive", "capacity": 1000, "tolerance": 0.1, "increment": 0.1, "temperature": 1.0},
    },
}
DISTILLM2: Spec = {
    "name": "distillm2",
    "params": {
        "skew": 0.1,
        "curriculum": False,
        "gradual_beta": None,
        "batches": {"policy": "pairs", "every_epochs": 1, "temperature": 0.8},
    },
}
LORA: Spec = {"rank": 16, "alpha": 64, "dropout": 0.1, "target_modules": ["q_proj", "v_proj"]}
LORA_DISTILLM2: Spec = {"rank": 16, "alpha": 128, "dropout": 0.1, "target_modules": ["q_proj", "k_proj", "v_proj"]}
DATA: Spec = {
    "train": {"path": "data/dolly/train.jsonl"},
    "validation": {"path": "data/dolly/dev.jsonl"},
    "template": "alpaca",
    "max_length": 256,
    "max_prompt_length": 128,
    "long_prompts": "first_tokens",
    "add_special_tokens": False,
}
OPTIMISER: Spec = {"weight_decay": 0.01, "schedule": "cosine", "max_grad_norm": 1.0, "precision": "bf16"}
EVALUATION: Spec = {
    "sets": {name: {"path": f"data/{name}/test.jsonl"} for name in ("dolly", "self_inst", "vicuna", "sni")},
    "models": ["student"],
    "metrics": [{"name": "rouge_l", "params": {"references": "first"}}],
    "seeds": [10, 20, 30, 40, 50],
    "temperature": 0.7,
    "top_p": 1.0,
    "max_prompt_length": 256,
    "max_new_tokens": 512,
}


def specs() -> dict[str, Spec]:
    """All specs by the name of their run, which is that of their file."""
    specs_by_run = {f"{name}-teacher": teacher(name, pair) for name, pair in PAIRS.items()}
    for name, pair in PAIRS.items():
        for base in BASES:
            for mta in (False, True):
                run = f"{name}-{base}{'-mta' if mta else ''}"
                specs_by_run[run] = student(run, name, pair, base, mta)
    return specs_by_run


def teacher(name: str, pair: Pair) -> Spec:
    """The larger model, fine-tuned on the data."""
    training: Spec = {"epochs": 10, "batch_size": 16, "micro_batch_size": 4, "learning_rate": 5e-5}
    if pair.lora:
        training |= {"epochs": 5, "learning_rate": pair.learning_rate}
    return {
        "name": f"{name}-teacher",
        "seed": SEED,
        "student": {"hub": pair.teacher} | ({"lora": LORA} if pair.lora else {}),
        "data": DATA,
        "base_loss": {"name": "sft"},
        "training": training | {"warmup_ratio": 0.0} | OPTIMISER | {"gradient_checkpointing": True},
        "evaluation": EVALUATION,
    }


def student(run: str, name: str, pair: Pair, base: str, mta: bool) -> Spec:
    """One cell of the paper's table, with or without MTA."""
    paired = base == "distillm2"
    lora = LORA_DISTILLM2 if paired else LORA
    training = {
        "epochs": 5,
        "batch_size": 8 if paired else 16,
        "micro_batch_size": 4 if paired else pair.micro_batch_size,
        "learning_rate": pair.learning_rate_distillm2 if paired else pair.learning_rate,
        "warmup_ratio": 0.1 if paired else 0.0,
    }
    return {
        "name": run,
        "seed": SEED,
        "teacher": {"run": f"{name}-teacher.json"},
        "student": {"hub": pair.student} | ({"lora": lora} if pair.lora else {}),
        "data": DATA | ({"leading_character": "any"} if mta else {}),
        "base_loss": base_loss(pair, base, mta),
        "alignment": alignment(pair, base) if mta else None,
        "training": training | OPTIMISER | {"generation": {"engine": "transformers"}},
        "evaluation": EVALUATION,
    }


def base_loss(pair: Pair, base: str, mta: bool) -> Spec:
    """What MTA is added to; FDD's temperature is lower where it is."""
    if base != "fdd":
        return {"distillm": DISTILLM, "distillm2": DISTILLM2}[base]
    layers = [{"student": of_student, "teacher": of_teacher} for of_student, of_teacher in pair.layers_with_fdd]
    return {"name": "fdd", "params": {"output": DISTILLM, "layers": layers, "temperature": 2.0 if mta else 5.0}}


def alignment(pair: Pair, base: str) -> Spec:
    """MTA: words at the first key layer, phrases at the others."""
    layers = pair.layers_with_fdd if base == "fdd" else pair.layers
    granularities = ["words"] + ["phrases"] * (len(layers) - 1)
    pairs = [
        {"student": of_student, "teacher": of_teacher, "granularity": granularity}
        for (of_student, of_teacher), granularity in zip(layers, granularities, strict=True)
    ]
    return {
        "spans": {"name": "spacy_phrases", "params": {"model": "en_core_web_sm", "words": "within_each_phrase"}},
        "importance": {"name": "attention", "params": {"padding_rows": True}},
        "layers": {"name": "explicit", "params": {"pairs": pairs}},
        "terms": [
            {"name": "dsa", "weight": pair.dsa_weight, "params": {"reduction": "batch"}},
            {"name": "hid", "weight": pair.dsa_weight / 10, "params": {"reduction": "mean"}},
        ],
        "projection_learning_rate": 5e-4,
    }


def text(spec: Spec) -> str:
    """JSON with one line for what holds no other list or object and fits on one."""

    def join(match: re.Match[str]) -> str:
        line = match[1] + re.sub(r"\s*\n\s*", " ", match[2]) + match[3]
        return line if len(line) <= 100 else match[0]

    return re.sub(r"([\[{])\s+([^\[\]{}]*?)\s+([\]}])", join, json.dumps(spec, indent=2)) + "\n"


def main(folder: Path = HERE) -> None:
    """Write one file per spec."""
    for name, spec in specs().items():
        (folder / f"{name}.json").write_text(text(spec), encoding="utf-8")


if __name__ == "__main__":
    main()
