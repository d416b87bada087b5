"""Keeps finished predictions on disk, so that no evaluation makes them twice; ``journal`` keeps unfinished ones.

A JSON Lines file has one row per prompt. A key beside it says what the rows were made from and their digest: rows
that were made otherwise, damaged or edited are not taken for complete ones.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mta_framework.errors import Fault, InputError
from mta_framework.evaluation.set_results import Prediction
from mta_framework.storage import write_atomically


@dataclass(frozen=True)
class Key:
    """What predictions depend on, as digests: ``responses`` on model, prompts and sampling, ``scores`` on the rest."""

    responses: str
    scores: str


def digest(value: Any) -> str:
    """SHA-256 of a JSON-able value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def write_predictions(path: Path, predictions: Sequence[Prediction], key: Key) -> None:
    """Write rows, then the key that vouches for them."""
    rows = [json.dumps(dataclasses.asdict(prediction), ensure_ascii=False) for prediction in predictions]
    content = "".join(f"{row}\n" for row in rows).encode()
    write_atomically(path, content)
    write_atomically(
        _key_path(path), json.dumps({**dataclasses.asdict(key), "sha256": hashlib.sha256(content).hexdigest()})
    )


def read_predictions(path: Path, key: Key) -> list[Prediction] | None:
    """Rows that were made from the same model, prompts and sampling.

    Returns:
        The predictions, without scores where only those were made otherwise; None if there are no such rows.
    """
    try:
        content, known = _vouched_for(path)
        rows = _rows(content)
    except (OSError, ValueError, TypeError, KeyError):  # torn, edited, or of a version with other fields
        return None
    if known.get("responses") != key.responses:
        return None
    if known.get("scores") == key.scores:
        return rows
    return [dataclasses.replace(row, scores={}, weights={}) for row in rows]


def read_rows(path: Path) -> list[Prediction]:
    """The rows of a finished file, whatever they were made from.

    Raises:
        InputError: There is no such file, it holds something else, or it was edited.
    """
    try:
        return _rows(_vouched_for(path)[0])
    except FileNotFoundError as error:
        problem = f"does not exist (got no such file as {error.filename})"
    except (OSError, ValueError, TypeError, KeyError) as error:
        problem = f"holds no predictions as they were written (got {error})"
    expected = "predictions as an evaluation leaves them"
    raise InputError([Fault(str(path), problem, expected, "Evaluate again; what is sound is reused.")])


def _vouched_for(path: Path) -> tuple[bytes, dict[str, Any]]:
    """Content and key of a file.

    Raises:
        OSError: One of the two cannot be read.
        ValueError: The content is another than the key was written for.
    """
    content, known = path.read_bytes(), json.loads(_key_path(path).read_bytes())
    if not isinstance(known, dict) or known.get("sha256") != hashlib.sha256(content).hexdigest():
        raise ValueError(f"rows that {_key_path(path).name} does not vouch for")
    return content, known


def _rows(content: bytes) -> list[Prediction]:
    return [_prediction(json.loads(line)) for line in content.decode().split("\n") if line]


def _prediction(row: dict[str, Any]) -> Prediction:
    return Prediction(**{**row, "references": tuple(row["references"])})


def _key_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.key")
