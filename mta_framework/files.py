"""Writes files so that a reader sees the old content or the new, never a part."""

from __future__ import annotations

import os
from pathlib import Path


def replace(path: Path, content: str | bytes) -> None:
    """Write ``content`` (text as UTF-8) to the side, then put it in place; missing folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    side = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        side.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(side, path)
    finally:
        side.unlink(missing_ok=True)
