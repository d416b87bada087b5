"""Selects the checkpoint whose student is exported: the best by a validation loss or by a metric of answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import EarlyStoppingCallback, TrainerControl, TrainerState

from mta_framework.spec.training import TrainingSection
from mta_framework.training import checkpoints
from mta_framework.training.distiller import Distiller
from mta_framework.types.log_entries import BestCheckpoint


@dataclass(frozen=True)
class AnswerScore:
    """A metric of the student's answers to validation prompts.

    Args:
        metric: Name of the metric; its values are logged as ``eval_`` and this name.
        higher_is_better: Whether a higher mean is better.
        compute: Returns the mean score of the present student, the same on every process, given the number of finished
            steps. It leaves the student, its mode and the random state unchanged.
    """

    metric: str
    higher_is_better: bool
    compute: Callable[[int], float]


def stopping(section: TrainingSection) -> list[EarlyStoppingCallback]:
    """Create the callback that stops training early; none without ``early_stopping_patience``."""
    if section.early_stopping_patience is None:
        return []
    return [EarlyStoppingCallback(section.early_stopping_patience, section.early_stopping_threshold)]


def is_done(state: TrainerState) -> bool:
    """Whether a training that reached this state takes no further step: it took all, or stopped early."""
    saved: Any = state.stateful_callbacks  # a dictionary, in spite of its annotation
    stops = EarlyStoppingCallback.__name__ in saved and saved[TrainerControl.__name__]["args"]["should_training_stop"]
    return bool(state.global_step >= state.max_steps or stops)


def load_best(
    distiller: Distiller, state: TrainerState, section: TrainingSection, folder: Path
) -> BestCheckpoint | None:
    """Load student and projections of the best checkpoint; None where the last student is exported.

    Args:
        distiller: Module that was trained.
        state: Progress of the training that is done.
        section: Training section of the spec.
        folder: Folder of the run's checkpoints.

    Raises:
        RunError: The checkpoint cannot be read.
    """
    if not section.load_best_model_at_end or state.best_global_step is None or state.best_metric is None:
        return None
    best = checkpoints.path_of(folder, state.best_global_step)
    if state.best_global_step != state.global_step:
        checkpoints.load_weights_of(distiller, best)
    return BestCheckpoint(section.metric_for_best_model, state.best_global_step, state.best_metric, state.max_steps)
