"""Records whose content follows from an index, and their kind."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Numbered:
    """A kind of records that needs no teacher."""

    folder_name: str = "numbered-0123456789abcdef"

    @property
    def description(self) -> dict[str, Any]:
        return {"kind": "numbered", "layer": 3}


def key(index: int) -> bytes:
    return hashlib.sha256(f"text {index}".encode()).digest()


def data(index: int, size: int = 300) -> bytes:
    block = hashlib.sha256(f"data {index}".encode()).digest()
    return (block * (size // len(block) + 1))[:size]


def rows(first: int, last: int, size: int = 300) -> list[tuple[bytes, bytes]]:
    """Keys and data of the records from ``first`` up to, without, ``last``."""
    return [(key(index), data(index, size)) for index in range(first, last)]


def shards(folder: Path) -> list[Path]:
    """The files of records below a folder, by name."""
    return sorted(folder.rglob("*.arrow"))
