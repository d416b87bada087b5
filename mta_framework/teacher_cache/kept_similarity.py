"""Keeps the similarity of layers that a layer mapper measured, for runs of the same models and texts."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from mta_framework.errors import writing_to
from mta_framework.storage import json_digest, read_json, write_json
from mta_framework.types import Example, LayerSimilarity

_log = logging.getLogger(__name__)

LAYERS = "layers"
"""Subfolder of a teacher's folder with the similarities of its layers and those of students."""

_SIMILARITY: TypeAdapter[LayerSimilarity] = TypeAdapter(LayerSimilarity)


def kept_similarity(
    folder: Path, models: Sequence[Any], texts: Sequence[Example], compare: Callable[[], LayerSimilarity]
) -> LayerSimilarity:
    """Return the similarity of layers as it was measured before, or measure and keep it.

    Args:
        folder: Folder of the teacher in the cache.
        models: Whatever the similarity depends on besides teacher and texts.
        texts: The texts that it is measured on, in any order.
        compare: Measures it.

    Raises:
        RunError: The folder cannot be written to.
    """
    file = folder / LAYERS / f"{json_digest([models, sorted(map(_text_digest, texts))])[:16]}.json"
    if file.is_file():
        if (kept := read_similarity(file)) is not None:
            return kept
        _log.warning("teacher cache: %s is damaged, and the similarity of layers is measured anew", file)
    similarity = compare()
    with writing_to(file.parent, "make room, or set teacher.cache"):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, {"similarity": asdict(similarity), "sha256": json_digest(asdict(similarity))})
    return similarity


def _text_digest(text: Example) -> str:
    digest = hashlib.sha256()
    for side in (text, text.teacher or text):
        for array in (side.input_ids, *(side.spans[name] for name in sorted(side.spans))):
            digest.update(len(array).to_bytes(8, "little"))
            digest.update(np.ascontiguousarray(array, dtype=np.int32).tobytes())
    return digest.hexdigest()


def read_similarity(file: Path) -> LayerSimilarity | None:
    """Read what a file keeps; None where it is damaged.

    Args:
        file: File in the folder ``LAYERS`` of a teacher.
    """
    with suppress(ValueError, KeyError, TypeError, OSError):
        document = read_json(file)
        if document["sha256"] == json_digest(document["similarity"]):
            return _SIMILARITY.validate_python(document["similarity"])
    return None
