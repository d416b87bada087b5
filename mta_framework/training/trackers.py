"""Experiment trackers, through transformers' callbacks: one tracked run for each training run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from transformers import TrainerCallback
from transformers.integrations.integration_utils import TensorBoardCallback

from mta_framework.distributed import processes


@contextmanager
def tracked(trackers: Sequence[str], folder: Path) -> Iterator[list[TrainerCallback]]:
    """Provide the callbacks of trackers while a run is trained; transformers adds those of ``report_to`` itself.

    Args:
        trackers: ``training.trackers`` of the spec.
        folder: Folder of the run; TensorBoard's files are written to it.
    """
    if not processes().is_main_process:
        yield []
        return
    callbacks: list[TrainerCallback] = []
    if "tensorboard" in trackers:
        from torch.utils.tensorboard import SummaryWriter

        callbacks.append(TensorBoardCallback(SummaryWriter(str(folder / "tensorboard"))))
    with _separate_wandb_run() if "wandb" in trackers else nullcontext():
        yield callbacks


@contextmanager
def _separate_wandb_run() -> Iterator[None]:
    """Finish the run, which transformers leaves open: a student's log would continue its teacher's."""
    import wandb

    opened_before = wandb.run is not None
    yield
    if not opened_before:
        wandb.finish()
