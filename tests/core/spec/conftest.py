from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def write_spec(tmp_path: Path) -> Callable[..., Path]:
    """Writes a small valid spec, with top-level fields replaced, and returns its path."""

    def write(**fields: Any) -> Path:
        spec: dict[str, Any] = {
            "name": "run",
            "teacher": {"hub": "teacher"},
            "student": {"hub": "student"},
            "data": {"train": {"hub": "rows", "split": "train"}},
            "base_loss": {"name": "plain"},
            "training": {"epochs": 1},
        }
        path = tmp_path / "spec.json"
        path.write_text(json.dumps(spec | fields), encoding="utf-8")
        return path

    return write
