"""Makes the table of ``benchmarks/simulated_device.py`` importable, whose models are made once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from simulated_device import Models, Row, markdown, rows


@pytest.fixture(scope="session")
def models() -> Models:
    """Tiny models on the device."""
    return Models()


@pytest.fixture(scope="session")
def table(models) -> dict[tuple[str, str], Row]:
    """The whole table, by family and name."""
    return {(row.family, row.name): row for row in rows(models)}


@pytest.fixture(scope="session")
def printed(table) -> str:
    """The table and its reasons as Markdown."""
    return "\n".join(markdown(list(table.values())))
