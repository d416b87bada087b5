"""Writes a comparison to a folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from mta_framework.comparison.renderings import latex, markdown, scores_csv, wins_csv
from mta_framework.comparison.results import Comparison
from mta_framework.errors import RunError
from mta_framework.storage import write_atomically

STEM = "comparison"


def write(folder: Path, comparison: Comparison) -> list[Path]:
    """Write ``comparison.md``, ``.csv``, ``.tex``, ``.json`` and ``wins.csv`` (every prompt); each appears whole.

    Returns:
        Paths of the files.

    Raises:
        RunError: The folder cannot be written to.
    """
    contents: dict[str, str | bytes] = {
        f"{STEM}.md": markdown(comparison),
        f"{STEM}.csv": scores_csv(comparison),
        f"{STEM}.tex": latex(comparison),
        f"{STEM}.json": comparison_json(comparison),
        "wins.csv": wins_csv(comparison),
    }
    for name, content in contents.items():
        put(folder / name, content)
    return [folder / name for name in contents]


def put(path: Path, content: str | bytes) -> None:
    """Write one file of a comparison; it appears whole.

    Raises:
        RunError: Its folder cannot be written to.
    """
    try:
        write_atomically(path, content)
    except OSError as error:
        hint = "make room, or name another folder"
        raise RunError(f"cannot write to {path.parent} ({error.strerror}); {hint}") from error


def comparison_json(comparison: Comparison) -> bytes:
    """Standard JSON: the cells of a row as a list, NaN as null; the prompts are left to ``wins.csv``."""
    rows = [
        {
            **{name: getattr(row, name) for name in ("label", "baseline", "runs", "reference")},
            "cells": [
                {"metric": metric, "set": entry, **dataclasses.asdict(cell)}
                for (metric, entry), cell in row.cells.items()
            ],
        }
        for row in comparison.rows
    ]
    parts = {field.name: getattr(comparison, field.name) for field in dataclasses.fields(comparison)}
    del parts["pairs"]
    return TypeAdapter(dict[str, Any]).dump_json({**parts, "rows": rows}, indent=2) + b"\n"
