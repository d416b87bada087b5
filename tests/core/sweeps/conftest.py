from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mta_framework.registry import discover
from mta_framework.sweeps.bound_sweep import BoundSweep, bind_sweep

Bind = Callable[..., BoundSweep]


@pytest.fixture
def sweep_dict(spec_dict: dict[str, Any], write_spec: Callable[..., Path]) -> dict[str, Any]:
    """Two methods from two seeds, over the complete run."""
    write_spec({**spec_dict, "alignment": {"spans": {"name": "words"}, "layers": {"name": "proportional"}}})
    return {
        "name": "grid",
        "spec": "student.json",
        "set": {"evaluation.models": ["student"], "alignment.layers.params": {"phrases": 0}},
        "axes": [
            {"name": "method", "cells": {"KL": {"alignment": None}, "KL + MTA": {}}},
            {"name": "seed", "field": "seed", "values": [3, 4]},
        ],
        "baseline": "KL",
    }


@pytest.fixture
def bound(write_spec: Callable[..., Path]) -> Bind:
    """Writes a sweep beside its spec and binds it."""

    def bind(sweep: dict[str, Any]) -> BoundSweep:
        return bind_sweep(write_spec(sweep, "sweep.json"), discover())

    return bind
