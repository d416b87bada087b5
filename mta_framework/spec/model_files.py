"""Checks on local models and tokenizers by their files alone. No torch, no model is opened."""

from __future__ import annotations

import json
from pathlib import Path

from mta_framework.errors import Fault, refusal

_GGUF_MAGIC = b"GGUF"
GENERATION_CONFIG = "generation_config.json"
SAVED_TEACHER = "teacher.json"
"""Name of the file that marks the folder of a teacher without weights, which a teacher cache has."""
SAVED_SERVER = "server.json"
"""Name of the file that describes a teacher behind a server, in its folder in a teacher cache."""
RECORDS = "records"
"""Subfolder of a teacher's folder in a teacher cache that has a folder for each kind of records."""
_TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
_SWITCHES = ("do_sample", "use_cache")
_NUMERIC = (
    *("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff"),
    *("repetition_penalty", "length_penalty", "no_repeat_ngram_size", "num_beams", "num_return_sequences"),
    *("max_length", "max_new_tokens", "min_length", "min_new_tokens"),
)
_LONGEST_SHOWN = 60
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json")


def model_fault(path: Path, where: str, missing_hint: str = "Check the path.") -> Fault | None:
    """The fault of a path that is neither a model folder with safetensors weights nor a GGUF file.

    The folder of a teacher without weights (``is_saved_teacher``) is a fault, too.

    Args:
        path: Path of the folder or file.
        where: Field that names the path.
        missing_hint: What to do where nothing exists at the path.
    """
    problem = _file_problem(path) if path.is_file() else _folder_problem(path)
    expected = "a folder with config.json and safetensors weights, or a .gguf file"
    settings = path / GENERATION_CONFIG
    if problem is None and path.is_dir() and settings.is_file():
        return generation_fault(settings, where)
    return _fault(path, where, problem, expected, missing_hint)


def is_saved_teacher(path: Path) -> bool:
    """Whether a path is the folder of a teacher without weights."""
    return (path / SAVED_TEACHER).is_file()


def kept_records(path: Path | None) -> Path | None:
    """The folder of a teacher without weights, if that has records; None for any other path."""
    return path if path is not None and is_saved_teacher(path) and (path / RECORDS).is_dir() else None


def is_kept_teacher(path: Path) -> bool:
    """Whether a path is the folder of one teacher in a teacher cache, with records, without weights, or both."""
    return is_saved_teacher(path) or (path / RECORDS).is_dir()


def teacher_fault(path: Path, where: str, missing_hint: str = "Check the path.") -> Fault | None:
    """The fault of a path that is no model of ``model_fault`` and no folder of a teacher without weights."""
    return None if is_saved_teacher(path) else model_fault(path, where, missing_hint)


def described_fault(path: Path, where: str, missing_hint: str = "Check the path.") -> Fault | None:
    """The fault of a path that is no folder with the configuration and tokenizer of a model; weights are not needed."""
    if path.is_dir() and not (path / "config.json").is_file():
        return _fault(path, where, "has no config.json", "a folder with config.json and tokenizer.json", missing_hint)
    return tokenizer_fault(path, where, missing_hint)


def generation_fault(file: Path, where: str) -> Fault | None:
    """The fault of generation settings that hold a value of another type than transformers writes.

    Args:
        file: A generation_config.json.
        where: Field that names the model.
    """
    if problem := _json_problem(file):
        return Fault(where, f"{problem} (got {file})", "one JSON object", "Correct the file, or delete it.")
    settings = json.loads(file.read_text(encoding="utf-8"))
    for names, fits, expected in (
        (_TOKEN_IDS, _is_token_ids, "the id of a token, a list of ids, or null"),
        (_NUMERIC, _is_numeric, "a number, or null"),
        (_SWITCHES, lambda value: isinstance(value, bool), "true, false or null"),
    ):
        for name in names:
            if (value := settings.get(name)) is not None and not fits(value):
                problem = f"has an unusable {name} in its {file.name} (got {_shown(value)})"
                return Fault(where, problem, expected, f"Correct {file}.")
    return None


def _is_token_ids(value: object) -> bool:
    return all(type(entry) is int for entry in (value if isinstance(value, list) else [value]))


def _is_numeric(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


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
    try:
        with path.open("rb") as file:
            return None if file.read(len(_GGUF_MAGIC)) == _GGUF_MAGIC else "is a file but no GGUF file"
    except OSError as error:
        return f"cannot be read: {refusal(error, path)}"


def _folder_problem(path: Path) -> str | None:
    if is_saved_teacher(path):
        return "holds the head and the tokenizer of a teacher, and no weights"
    config = path / "config.json"
    if not config.is_file():
        adapter = (path / "adapter_config.json").is_file()
        return "holds an adapter without its model: merge it first" if adapter else "has no config.json"
    if any(file.is_file() for file in path.glob("*.safetensors")):
        return _json_problem(config)
    if any(path.glob("*.bin")) or any(path.glob("*.pt")):
        return "has its weights in .bin or .pt files only, which can run code"
    return "has no weights"


def _json_problem(file: Path) -> str | None:
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return f"has a {file.name} that is not JSON, or nested too deeply"
    except OSError as error:
        return f"has a {file.name} that cannot be read: {refusal(error, file)}"
    return f"has a {file.name} that is not a JSON object" if not isinstance(fields, dict) else None
