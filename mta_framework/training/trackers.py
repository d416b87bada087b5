"""Where the log goes besides the run folder: transformers' own callbacks, each run of a chain for itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from transformers import TrainerCallback
from transformers.integrations.integration_utils import TensorBoardCallback

from mta_framework.distributed import processes


@contextmanager
def tracked(trackers: Sequence[str], folder: Path) -> Iterator[list[TrainerCallback]]:
    """What the trainer calls, besides what it adds for ``report_to``, while a run is trained.

    Args:
        trackers: As in the spec.
        folder: Of the run; TensorBoard's files go there.
    """
    if not processes().is_main_process:
        yield []
        return
    callbacks: list[TrainerCallback] = []
    if "tensorboard" in trackers:
        from torch.utils.tensorboard import SummaryWriter

        callbacks.append(TensorBoardCallback(SummaryWriter(str(folder / "tensorboard"))))
    with _own_run() if "wandb" in trackers else nullcontext():
        yield callbacks


@contextmanager
def _own_run() -> Iterator[None]:
    """transformers leaves the run of Weights & Biases open: a teacher's log would be gone on with by its student's."""
    import wandb

    opened_before = wandb.run is not None
    yield
    if not opened_before:
        wandb.finish()
