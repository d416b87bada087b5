"""Predictions, and their files: complete ones are never generated twice; ``journal`` keeps incomplete ones.

A JSON Lines file has one row per prompt. A key file beside it holds digests of the rows and of what they were made
from: rows made from something else, damaged or edited are not reused.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mta_framework.errors import Fault, InputError
from mta_framework.storage import write_atomically


@dataclass(frozen=True)
class Prediction:
    """A response with its scores.

    Args:
        prompt: Prompt as it was asked, shortened where it was too long.
        question: Instruction and input, without the template around them.
        prediction: The model's response.
        references: Texts that the response is compared with.
        finished: Whether the response ended before the token limit.
        tokens: Number of tokens of the response, without the end token.
        scores: Label of the metric -> score.
        weights: Label of the metric -> weight of the score in the mean over prompts; absent labels weigh 1.
        answer: The response without its reasoning, which metrics saw; None: they saw all of it.
    """

    prompt: str
    question: str
    prediction: str
    references: tuple[str, ...]
    finished: bool
    tokens: int
    scores: Mapping[str, float] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    answer: str | None = None

    @property
    def scored_text(self) -> str:
        """The text that metrics saw."""
        return self.prediction if self.answer is None else self.answer


@dataclass(frozen=True)
class Key:
    """Digests of what predictions depend on.

    Args:
        responses: Digest of model, prompts and sampling.
        scores: Digest of references, questions and metrics.
    """

    responses: str
    scores: str


def write_predictions(path: Path, predictions: Sequence[Prediction], key: Key) -> None:
    """Write the key file, then the rows that it makes valid.

    The key file keeps the record of the rows that are replaced, so that they stay valid if the process ends in between.
    """
    rows = [dataclasses.asdict(prediction) for prediction in predictions]
    for row in rows:
        if row["answer"] is None:
            del row["answer"]
    content = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows).encode()
    record = {**dataclasses.asdict(key), "sha256": hashlib.sha256(content).hexdigest()}
    with suppress(OSError, ValueError):  # no rows yet, or damaged ones
        record["replaced"] = _verified(path)[1]
    write_atomically(_key_path(path), json.dumps(record))
    write_atomically(path, content)


def read_predictions(path: Path, key: Key) -> list[Prediction] | None:
    """Read the predictions that were made from the same model, prompts and sampling.

    Returns:
        The predictions, without scores where their ``scores`` key differs; None if there are no such predictions.
    """
    try:
        content, record = _verified(path)
        rows = _rows(content)
    except (OSError, ValueError, TypeError, KeyError):  # cut off, edited, or of a version with other fields
        return None
    if record.get("responses") != key.responses:
        return None
    if record.get("scores") == key.scores:
        return rows
    return [dataclasses.replace(row, scores={}, weights={}, answer=None) for row in rows]


def read_rows(path: Path) -> list[Prediction]:
    """Read the rows of a complete file, whatever they were made from.

    Raises:
        InputError: There is no such file, it holds something else, or it was edited.
    """
    try:
        return _rows(_verified(path)[0])
    except FileNotFoundError as error:
        problem = f"cannot be read, since {error.filename} does not exist"
    except (OSError, ValueError, TypeError, KeyError) as error:
        problem = f"holds no predictions as they were written (got {error})"
    expected = "predictions as an evaluation leaves them"
    raise InputError([Fault(str(path), problem, expected, "Evaluate again; what is sound is reused.")])


def _verified(path: Path) -> tuple[bytes, dict[str, Any]]:
    """The content of a file and its record in the key file.

    Raises:
        OSError: One of the two cannot be read.
        ValueError: The content is not what the key was written for.
    """
    content, record = path.read_bytes(), json.loads(_key_path(path).read_bytes())
    digest = hashlib.sha256(content).hexdigest()
    while isinstance(record, dict):
        if record.get("sha256") == digest:
            return content, {name: value for name, value in record.items() if name != "replaced"}
        record = record.get("replaced")
    raise ValueError(f"rows that do not match the digest in {_key_path(path).name}")


def _rows(content: bytes) -> list[Prediction]:
    rows = [json.loads(line) for line in content.decode().split("\n") if line]
    return [Prediction(**{**row, "references": tuple(row["references"])}) for row in rows]


def _key_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.key")
