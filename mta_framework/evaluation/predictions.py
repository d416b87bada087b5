"""Keeps predictions on disk, so that an evaluation that was cut off goes on where it stopped.

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

from mta_framework.evaluation.results import Prediction
from mta_framework.files import replace


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
    replace(path, content)
    replace(_key_path(path), json.dumps({**dataclasses.asdict(key), "sha256": hashlib.sha256(content).hexdigest()}))


def read_predictions(path: Path, key: Key) -> list[Prediction] | None:
    """Rows that were made from the same model, prompts and sampling.

    Returns:
        The predictions, without scores where only those were made otherwise; None if there are no such rows.
    """
    try:
        content = path.read_bytes()
        known = json.loads(_key_path(path).read_bytes())
    except (OSError, ValueError):
        return None
    expected = {"responses": key.responses, "sha256": hashlib.sha256(content).hexdigest()}
    if not isinstance(known, dict) or any(known.get(name) != value for name, value in expected.items()):
        return None
    rows = [_prediction(json.loads(line)) for line in content.decode().split("\n") if line]
    return rows if known.get("scores") == key.scores else [dataclasses.replace(row, scores={}) for row in rows]


def _prediction(row: dict[str, Any]) -> Prediction:
    return Prediction(**{**row, "references": tuple(row["references"])})


def _key_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.key")
