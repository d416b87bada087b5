"""Runs to their end, and runs that break off in the middle of a step."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest

from mta_framework import RunError
from mta_framework.evaluation.report import Report
from mta_framework.registry import discover
from mta_framework.runs import pipeline
from mta_framework.runs.plugin_binding import bind
from mta_framework.training.trainer import DistillationTrainer


def finished(path: Path, name: str, *overrides: str, resume: bool = False) -> Report:
    """Run a spec under a name, or go on with it."""
    return pipeline.run(bind(path, discover(), [f"name={name}", *overrides]), resume=resume)


def interrupted(path: Path, name: str, step: int) -> None:
    """Begin a run that breaks off in the middle of the step after ``step``."""
    original = DistillationTrainer.before_optimizer_step

    def before_optimizer_step(trainer: DistillationTrainer) -> None:
        if trainer.state.global_step == step:
            raise RunError("interrupted")
        original(trainer)

    with (
        mock.patch.object(DistillationTrainer, "before_optimizer_step", before_optimizer_step),
        pytest.raises(RunError, match="interrupted"),
    ):
        finished(path, name)
