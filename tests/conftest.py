"""Fixtures that more than one area uses: a tokenizer, rows and a complete spec, all tiny."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
sys.path.insert(0, str(Path(__file__).parent / "shared"))

from cache_folder import cache_folder
from finished_runs import FinishedRuns
from warm_python import WarmPython

# How fast a machine draws examples says nothing about the code.
settings.register_profile("patient", settings.default, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

SUBJECTS = ("The old keeper", "A young student", "My neighbour", "The tall engineer", "Their teacher", "A quiet clerk")
VERBS = ("has repaired", "is painting", "carefully moved", "will sell", "found", "had forgotten")
OBJECTS = (
    "the broken lamp",
    "a red bicycle",
    "three wooden chairs",
    "the city map",
    "an empty bottle",
    "his black coat",
)


def instruction_rows() -> list[dict[str, str]]:
    """36 rows of plain English, some with an input, one with an empty output."""
    rows = [
        {
            "instruction": f"Say what {subject.lower()} did.",
            "input": "" if index % 2 else f"{subject} {verb} {thing}.",
            "output": f"{subject} {verb} {thing} yesterday.",
        }
        for index, subject in enumerate(SUBJECTS)
        for verb, thing in zip(VERBS, OBJECTS, strict=True)
    ]
    rows[5]["output"] = ""
    return rows


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked ``longest`` begin first, so that no worker is left with one at the end."""
    items.sort(key=lambda item: item.get_closest_marker("longest") is None)


@pytest.fixture(scope="session")
def warm_python() -> Iterator[WarmPython]:
    """Starts Python processes in which torch and the framework are already imported."""
    python = WarmPython()
    yield python
    python.close()


@pytest.fixture(scope="session")
def tiny_stanza() -> Path:
    """A folder of Stanza models that know a few dozen English sentences; trained once, in a minute or two.

    Kept beyond the session, by what they are made from.
    """
    script = Path(__file__).parent / "tiny_stanza" / "train.py"
    source = b"".join(path.read_bytes() for path in (script, script.with_name("treebank.txt")))
    digest = hashlib.sha256(source + f"{version('stanza')} {version('torch')}".encode()).hexdigest()[:16]
    folder = cache_folder("tiny_stanza") / digest
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            unfinished = folder.with_suffix(".unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            subprocess.run([sys.executable, str(script), str(unfinished)], check=True, capture_output=True)
            unfinished.rename(folder)
    return folder


@pytest.fixture(scope="session")
def session_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A temporary folder that all processes of a session share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def tokenizer_folder(session_folder: Path) -> Path:
    """A byte-level BPE tokenizer of 500 entries, saved as transformers does."""
    folder = session_folder / "tokenizer"
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            _write_tokenizer(folder)
    return folder


def _write_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    form = "Below is an instruction that describes a task. Write a response that appropriately completes the request. "
    form += "paired with an input that provides further context. ### Instruction: ### Input: ### Response:"
    texts = [*[form] * 50, *(" ".join(row.values()) for row in instruction_rows())]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, min_frequency=1, special_tokens=["<|end|>"], initial_alphabet=alphabet
    )
    tokenizer.train_from_iterator(texts, trainer)
    whole = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|end|>")
    whole.save_pretrained(folder)


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Path:
    """A quantised model of random weights with a chat template of its own, as one file."""
    from tiny_gguf import write_gguf

    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_gguf(path, tokenizer_folder)
    return path


@pytest.fixture
def run_once(session_folder: Path, tmp_path: Path) -> FinishedRuns:
    """Runs a spec of the temporary folder, or copies what the same run left earlier in the session."""
    return FinishedRuns(session_folder, tmp_path)


@pytest.fixture
def trained_teacher(run_once: FinishedRuns, spec_dict: dict[str, Any], tmp_path: Path) -> None:
    """The teacher's run of ``spec_dict`` is finished."""
    run_once(tmp_path / "teacher.json")


@pytest.fixture
def rows_file(tmp_path: Path) -> Path:
    """``instruction_rows`` as JSON Lines."""
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in instruction_rows()), encoding="utf-8")
    return path


def tiny_llama(hidden_size: int, layers: int) -> dict[str, Any]:
    """A configuration small enough to train in a test; no dropout."""
    return {
        "model_type": "llama",
        "hidden_size": hidden_size,
        "intermediate_size": 2 * hidden_size,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
    }


@pytest.fixture
def spec_dict(tmp_path: Path, tokenizer_folder: Path, rows_file: Path) -> dict[str, Any]:
    """A complete run: a tiny teacher by its own spec, a smaller student with KL + MTA, two evaluations."""
    data = {"train": {"path": str(rows_file)}, "max_length": 160, "max_prompt_length": 120}
    training = {"max_steps": 4, "batch_size": 8, "learning_rate": 1e-3, "log_steps": 1, "trackers": []}
    teacher = {
        "name": "teacher",
        "student": {"config": tiny_llama(32, 4), "tokenizer": str(tokenizer_folder)},
        "data": data,
        "base_loss": {"name": "sft"},
        "training": training,
    }
    (tmp_path / "teacher.json").write_text(json.dumps(teacher), encoding="utf-8")
    return {
        "name": "student",
        "seed": 1,
        "teacher": {"run": "teacher.json"},
        "student": {"config": tiny_llama(16, 4)},
        "data": {**data, "validation": {"path": str(rows_file), "limit": 6}},
        "base_loss": {"name": "kl"},
        "alignment": {"spans": {"name": "spacy_phrases"}},
        "training": training,
        "evaluation": {
            "sets": {"seen": {"path": str(rows_file), "limit": 5}},
            "models": ["student", "teacher", "initial_student"],
            "seeds": [10, 20],
            "max_new_tokens": 6,
        },
    }


@pytest.fixture
def write_spec(tmp_path: Path) -> Callable[..., Path]:
    """Writes a spec beside the data and gives its path."""

    def write(spec: dict[str, Any], name: str = "student.json") -> Path:
        path = tmp_path / name
        path.write_text(json.dumps(spec), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def paper_data() -> Path:
    """The folder of the paper's data sets; tests that read it are skipped where there is none."""
    folder = Path(os.environ.get("MTA_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not (folder / "dolly" / "train.jsonl").is_file():
        pytest.skip(f"the paper's data sets are not in {folder}")
    return folder
