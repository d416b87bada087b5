from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from several_teachers import write_named_rows, write_teachers
from warm_python import WarmPython


@pytest.fixture
def no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs write their report without its page, which takes a third of a tiny run; for tests that do not look at it."""
    monkeypatch.setattr("mta_framework.reporting.run_page.run_page", lambda report: "<!doctype html>")


WORKER = Path(__file__).with_name("gradient_worker.py")

OneStep = Callable[[Path, Path, int], tuple[dict[str, float], dict[str, Any]]]
"""Runs one step of a spec, in a folder, with a micro-batch size; gives losses, and gradients before clipping."""


@pytest.fixture(scope="session")
def gradient_worker() -> ModuleType:
    """The program ``gradient_worker.py`` as a module, to run in this process."""
    module_spec = importlib.util.spec_from_file_location("gradient_worker", WORKER)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    return module


@pytest.fixture
def one_step(gradient_worker: ModuleType) -> OneStep:
    """Runs one step in this process."""

    def run(spec: Path, folder: Path, micro_batch_size: int) -> tuple[dict[str, float], dict[str, Any]]:
        gradient_worker.one_step(spec, folder, micro_batch_size)
        return gradient_worker.outcome(folder)

    return run


@pytest.fixture
def one_step_on_two_ranks(warm_python: WarmPython, gradient_worker: ModuleType) -> OneStep:
    """Runs one step under two gloo processes."""

    def run(spec: Path, folder: Path, micro_batch_size: int) -> tuple[dict[str, float], dict[str, Any]]:
        warm_python.run_on_two_ranks([WORKER, spec, folder, micro_batch_size])
        assert json.loads((folder / "loss.json").read_text())["processes"] == 2
        return gradient_worker.outcome(folder)

    return run


@pytest.fixture
def two_tokenizers(spec_dict: dict[str, Any], rows_file: Path, tmp_path: Path) -> dict[str, Any]:
    """The usual spec, but with a student whose tokenizer is a unigram model; the teacher's is byte-level."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["<unk>", "<s>", "</s>"]
    trainer = trainers.UnigramTrainer(vocab_size=300, special_tokens=special, unk_token="<unk>", show_progress=False)
    texts = [" ".join(json.loads(line).values()) for line in rows_file.read_text(encoding="utf-8").splitlines()]
    tokenizer.train_from_iterator([*texts, "### Instruction: ### Input: ### Response:" * 20], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    fast.save_pretrained(tmp_path / "unigram")
    student = {**spec_dict["student"], "tokenizer": str(tmp_path / "unigram")}
    data = {**spec_dict["data"], "max_length": 400, "max_prompt_length": 350}
    return {**spec_dict, "student": student, "data": data}


@pytest.fixture(scope="session")
def teacher_folders(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> dict[str, Path]:
    """Two teachers of different widths and depths, by name."""
    return write_teachers(tmp_path_factory.mktemp("teachers"), tokenizer_folder)


@pytest.fixture
def named_rows(rows_file: Path, tmp_path: Path) -> Path:
    """Rows of which every third names ``code``, and the others ``maths``."""
    path = tmp_path / "named.jsonl"
    write_named_rows(path, rows_file, lambda index: "maths" if index % 3 else "code")
    return path


@pytest.fixture
def several_spec(
    spec_dict: dict[str, Any], teacher_folders: dict[str, Path], named_rows: Path, tokenizer_folder: Path
) -> dict[str, Any]:
    """Four steps of KL with MTA over words, by two teachers."""
    rows, layers = {"path": str(named_rows)}, {"words": 2, "phrases": 0}
    plain = {name: value for name, value in spec_dict.items() if name != "teacher"}
    return {
        **plain,
        "teachers": {name: {"path": str(folder)} for name, folder in teacher_folders.items()},
        "data": {**spec_dict["data"], "train": rows, "validation": {**rows, "limit": 6}},
        "student": {**spec_dict["student"], "tokenizer": str(tokenizer_folder)},
        "alignment": {"spans": {"name": "words"}, "layers": {"name": "proportional", "params": layers}},
        "evaluation": None,
    }
