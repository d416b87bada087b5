"""Write the specs of the students: four base losses, each without and with MTA; a test keeps them from drifting.

    python examples/smollm2/generate.py

``student-BASE.json`` and ``student-BASE-mta.json`` differ in their names and in ``alignment`` alone.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SETS = "../paper/data"
Spec = dict[str, Any]

BASES: dict[str, Spec] = {
    "kl": {},
    "fdd": {},
    "distillm": {"batches": {"policy": "adaptive"}},
    "distillm2": {"batches": {"policy": "pairs", "every_epochs": 1}},
}
"""Options of each base loss; what it is silent about is the paper's setting by default."""

ALIGNMENT: Spec = {
    "spans": {"name": "spacy_phrases"},
    "importance": {"name": "attention"},
    "layers": {"name": "proportional", "params": {"words": 1, "phrases": 2}},
    "terms": [{"name": "dsa", "weight": 2.0}, {"name": "hid", "weight": 0.2}],
}
DATA: Spec = {
    "train": {"path": f"{SETS}/dolly/train.jsonl"},
    "validation": {"path": f"{SETS}/dolly/dev.jsonl"},
    "max_length": 256,
    "max_prompt_length": 128,
}
EVALUATION: Spec = {
    "sets": {name: {"path": f"{SETS}/{name}/test.jsonl"} for name in ("dolly", "self_inst", "vicuna", "sni")},
    "models": ["student", "teacher"],
    "seeds": [10, 20, 30, 40, 50],
    "temperature": 0.7,
    "max_new_tokens": 512,
}


def specs() -> dict[str, Spec]:
    """All students by the stem of their file."""
    return {
        f"student-{base}{suffix}": student(base, suffix, alignment)
        for base in BASES
        for suffix, alignment in (("", None), ("-mta", ALIGNMENT))
    }


def student(base: str, suffix: str, alignment: Spec | None) -> Spec:
    """One student; losses whose batch policy writes responses get a section that says how."""
    options = BASES[base]
    return {
        "name": f"smollm2-{base}{suffix}",
        "teacher": {"run": "teacher.json"},
        "student": {"teacher_layers": [1, 4, 6, 9, 12, 14, 17, 19, 22, 25, 27, 30]},
        "data": DATA,
        "base_loss": {"name": base} | ({"params": options} if options else {}),
        "alignment": alignment,
        "training": training(paired=base == "distillm2")
        | ({"generation": {"engine": "transformers"}} if options else {}),
        "evaluation": EVALUATION,
    }


def training(paired: bool) -> Spec:
    """The paper's set-up; a step on pairs takes half the prompts, and so as many texts."""
    return {
        "epochs": 5,
        "batch_size": 8 if paired else 16,
        "learning_rate": 1e-4,
        "weight_decay": 0.01,
        "warmup_ratio": 0.1 if paired else 0.0,
        "schedule": "cosine",
        "max_grad_norm": 1.0,
        "precision": "bf16",
    }


def text(spec: Spec) -> str:
    """JSON with one line for what holds no other list or object and fits on one."""

    def join(match: re.Match[str]) -> str:
        line = match[1] + re.sub(r"\s*\n\s*", " ", match[2]) + match[3]
        return line if len(line) <= 100 else match[0]

    return re.sub(r"([\[{])\s+([^\[\]{}]*?)\s+([\]}])", join, json.dumps(spec, indent=2)) + "\n"


def main(folder: Path = HERE) -> None:
    """Write one file per student."""
    for name, spec in specs().items():
        (folder / f"{name}.json").write_text(text(spec), encoding="utf-8")


if __name__ == "__main__":
    main()
