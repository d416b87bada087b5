"""The training stage: trains a distiller on examples, from the latest checkpoint if there is one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from mta_framework.data.batches import GroupedSampler
from mta_framework.distributed import processes
from mta_framework.models.sharding import is_sharded
from mta_framework.spec.training import TrainingSection
from mta_framework.training import checkpoints
from mta_framework.training.arguments import CHECKPOINTS, micro_batch_size, training_arguments
from mta_framework.training.distiller import Distiller
from mta_framework.training.selection import is_done, load_best, stopping
from mta_framework.training.sharded_trainer import ShardedTrainer
from mta_framework.training.trackers import tracked
from mta_framework.training.trainer import DistillationTrainer
from mta_framework.training.training_data import TrainingData
from mta_framework.types import Example
from mta_framework.types.log_entries import BestCheckpoint


@dataclass(frozen=True)
class TrainingLog:
    """Log and duration of a training.

    Args:
        history: Log entries of transformers.
        total_steps: Optimiser steps of the whole training, up to where it stopped early if it did.
        seconds: Duration in seconds, validation and checkpoints included, without steps that an interruption lost.
        step_time: Mean seconds per step by part, see ``Stopwatch``.
        best: Checkpoint whose student is exported; None: that of the last step is.
        warnings: Sentences on what looks wrong in it: idle alignment terms, responses of the student that collapsed.
    """

    history: list[dict[str, Any]]
    total_steps: int
    seconds: float
    step_time: dict[str, float] = field(default_factory=dict)
    best: BestCheckpoint | None = None
    warnings: list[str] = field(default_factory=list)


def sampler_for(examples: Sequence[Example], section: TrainingSection, seed: int) -> GroupedSampler:
    """Create the sampler that orders the examples of each epoch into global batches.

    Args:
        examples: Training set.
        section: Training section of the spec.
        seed: Seed of the order.

    Raises:
        InputError: The batch does not divide over processes and micro-batches, or there are too few examples.
    """
    state = processes()
    lengths = [len(example.input_ids) for example in examples]
    micro = micro_batch_size(section, state.num_processes)
    names = [example.teacher_name for example in examples]
    several = names if any(names) else None
    return GroupedSampler(lengths, section.batch_size, micro, state.num_processes, seed, several)


def total_steps(section: TrainingSection, sampler: GroupedSampler) -> int:
    """Optimiser steps of the whole training."""
    return section.max_steps or (section.epochs or 1) * sampler.steps_per_epoch


def train(
    distiller: Distiller,
    data: TrainingData,
    section: TrainingSection,
    seed: int,
    folder: Path,
    projection_learning_rate: float,
) -> TrainingLog:
    """Train, from the latest checkpoint in ``folder/checkpoints`` if there is one.

    The student ends as it was after the last step, or in its best checkpoint with ``load_best_model_at_end``.

    Args:
        distiller: Module to train.
        data: Examples, order, collator and batch policy.
        section: Training section of the spec.
        seed: Seed of the global random generators (dropout).
        folder: Folder of the run.
        projection_learning_rate: Peak learning rate of the alignment's projections.

    Raises:
        InputError: There are checkpoints, and none of them is intact.
        RunError: The loss or the gradient is NaN or infinite, or a plugin failed.
    """
    if section.gradient_checkpointing:
        checkpoint_activations(distiller.student)
    arguments = training_arguments(
        section,
        seed,
        folder,
        validates=bool(data.validation),
        higher_is_better=data.answers is not None and data.answers.higher_is_better,
        unused_parameters=distiller.base_loss.NEEDS_ALIGNMENT,
    )
    checkpoints.require_storable(distiller, data.policy)
    checkpoint = _starting_point(folder / CHECKPOINTS, total_steps(section, data.sampler), data.sampler.steps_per_epoch)
    with tracked(section.trackers, folder) as trackers:
        callbacks = [*stopping(section), *trackers]
        parts = distiller, arguments, data, projection_learning_rate, section.keep_checkpoints, callbacks
        if is_sharded(distiller):
            trainer: DistillationTrainer
            trainer = ShardedTrainer(*parts, sharded_checkpoints=section.checkpoints == "sharded")
        else:
            trainer = DistillationTrainer(*parts)
        with closing(trainer.progress), closing(data.engine) if data.engine else nullcontext():
            if checkpoint is not None and is_done(checkpoints.trainer_state(checkpoint)):
                # Only validation and export can be missing; transformers would take one more step.
                trainer.restore(checkpoint)
                trainer.validate_if_due()
                trainer.log_summary()
            else:
                trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    state = trainer.state
    best = load_best(distiller, state, section, folder / CHECKPOINTS)
    seconds, step_time = trainer.meter.seconds(), trainer.stopwatch.seconds_per_step()
    return TrainingLog(state.log_history, state.global_step, seconds, step_time, best, trainer.warnings())


def _starting_point(folder: Path, steps: int, steps_per_epoch: int) -> Path | None:
    """The checkpoint to continue from, or None; a checkpoint that was not finished is deleted."""
    checkpoint = checkpoints.latest(folder)
    if checkpoint is not None:
        checkpoints.require_same_plan(checkpoint, steps, steps_per_epoch)
    if processes().is_main_process:
        checkpoints.discard_partial(folder)
    processes().wait_for_everyone()
    return checkpoint


def checkpoint_activations(student: nn.Module) -> None:
    """Have the student recompute the activations of its blocks in the backward pass."""
    # transformers renamed the method; forward hooks need the kind of checkpointing that keeps the first pass's graph.
    enable = getattr(student, "activation_checkpointing_enable", None) or student.gradient_checkpointing_enable
    enable({"use_reentrant": False})  # type: ignore[operator]
