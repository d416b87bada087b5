from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

import mta_framework.runs

PLUGINS = '''
from pydantic import BaseModel, Field

from mta_framework import BaseLoss, PluginParams, hookimpl


class Anchor(BaseModel):
    layer: int = Field(ge=1, description="Where it is dropped.")


class Plain(BaseLoss):
    """Nothing, plainly.

    It needs no teacher.
    """

    NAME = "plain_test"
    NEEDS_TEACHER = False

    class Params(PluginParams):
        strength: float = Field(1.0, gt=0, le=2, description="How much of it.")
        anchors: tuple[Anchor, ...] = Field((), description="Where it holds.")

    def compute(self, student, teacher, batch, progress):
        return ()


class Demanding(Plain):
    """Wants an option."""

    NAME = "demanding_test"

    class Params(PluginParams):
        depth: int = Field(ge=1, description="How deep.")


@hookimpl
def mta_register_base_losses():
    return [Plain, Demanding]
'''

Mta = Callable[..., Result]


@pytest.fixture
def plugin_file(tmp_path: Path) -> Path:
    """A file with two base losses that need no teacher, ``plain_test`` and ``demanding_test``."""
    path = tmp_path / "plugins.py"
    path.write_text(PLUGINS)
    return path


@pytest.fixture
def mta(plugin_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mta:
    """Runs ``mta -p plugins.py ARGUMENTS`` in the temporary folder, on a wide terminal."""
    from mta_framework.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("RANK", raising=False)

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(main, ["-p", str(plugin_file), *map(str, arguments)])

    return run


@pytest.fixture
def spec_file(tmp_path: Path) -> Path:
    """A sound spec of a run without teacher."""
    (tmp_path / "train.jsonl").write_text('{"instruction": "a", "input": "", "output": "b"}\n')
    spec: dict[str, Any] = {
        "name": "plain",
        "student": {"hub": "a/student"},
        "data": {"train": {"path": "train.jsonl"}},
        "base_loss": {"name": "plain_test"},
        "training": {"epochs": 2},
    }
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(spec))
    return path


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stands in for the pipeline and keeps what it was called with."""
    calls = SimpleNamespace(arguments=[], outcome=SimpleNamespace(evaluation=None))

    def run(bound: Any, resume: bool, command: str) -> Any:
        calls.arguments.append((bound, resume, command))
        if isinstance(calls.outcome, BaseException):
            raise calls.outcome
        return calls.outcome

    module = ModuleType("mta_framework.runs.pipeline")
    module.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mta_framework.runs.pipeline", module)
    monkeypatch.setattr(mta_framework.runs, "pipeline", module, raising=False)
    return calls
