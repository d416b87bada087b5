"""Checks on local models and tokenizers by their files alone. No torch, no model is opened."""

from __future__ import annotations

import json
from pathlib import Path

from mta_framework.errors import Fault

_GGUF_MAGIC = b"GGUF"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json")


def model_fault(path: Path, where: str, missing_hint: str = "Check the path.") -> Fault | None:
    """The fault of a path that is neither a model folder with safetensors weights nor a GGUF file.

    Args:
        path: Path of the folder or file.
        where: Field that names the path.
        missing_hint: What to do where nothing exists at the path.
    """
    problem = _file_problem(path) if path.is_file() else _folder_problem(path)
    expected = "a folder with config.json and safetensors weights, or a .gguf file"
    return _fault(path, where, problem, expected, missing_hint)


def tokenizer_fault(path: Path, where: str, missing_hint: str = "Check the path.") -> Fault | None:
    """The fault of a path that is no folder with the files of a tokenizer; arguments as for ``model_fault``."""
    problem = None
    if not path.is_dir():
        problem = "is not a folder"
    elif not any((path / name).is_file() for name in _TOKENIZER_FILES):
        problem = "has no tokenizer"
    return _fault(path, where, problem, "a folder with tokenizer.json", missing_hint)


def _fault(path: Path, where: str, problem: str | None, expected: str, missing_hint: str) -> Fault | None:
    if problem is None:
        return None
    if not path.exists():
        return Fault(where, f"does not exist (got {path})", expected, missing_hint)
    return Fault(where, f"{problem} (got {path})", expected, "Give such a folder; save_pretrained writes one.")


def _file_problem(path: Path) -> str | None:
    with path.open("rb") as file:
        return None if file.read(len(_GGUF_MAGIC)) == _GGUF_MAGIC else "is a file but no GGUF file"


def _folder_problem(path: Path) -> str | None:
    config = path / "config.json"
    if not config.is_file():
        adapter = (path / "adapter_config.json").is_file()
        return "holds an adapter without its model: merge it first" if adapter else "has no config.json"
    if any(file.is_file() for file in path.glob("*.safetensors")):
        generation = path / "generation_config.json"
        return _json_problem(config) or (_json_problem(generation) if generation.is_file() else None)
    if any(path.glob("*.bin")) or any(path.glob("*.pt")):
        return "has its weights in .bin or .pt files only, which can run code"
    return "has no weights"


def _json_problem(file: Path) -> str | None:
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return f"has a {file.name} that is not JSON, or nested too deeply"
    return f"has a {file.name} that is not a JSON object" if not isinstance(fields, dict) else None
