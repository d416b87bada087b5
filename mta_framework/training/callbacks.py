"""What the trainer's loop calls back: the guard before each optimiser step, and the progress bar."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback
from transformers.trainer_callback import ProgressCallback

if TYPE_CHECKING:
    from mta_framework.training.trainer import DistillationTrainer


class StepGuard(TrainerCallback):
    """Sets the sampler's epoch, catches up on validation, looks for NaN before weights are touched, and ends steps."""

    def __init__(self, trainer: DistillationTrainer):
        self._trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Validate where a policy waits for it, or where a run was killed between an epoch's last step and that."""
        self._trainer.catch_up()

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The state's epoch is a fraction; a run that resumes within an epoch draws that epoch's order."""
        self._trainer.set_epoch(int(state.epoch or 0))

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """All micro-batches of the step are through their backward pass."""
        self._trainer.close_step()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Logging, validation and checkpoints come after it."""
        self._trainer.stopwatch.end_step()


class ProgressBar(ProgressCallback):
    """A bar with the latest losses behind it, instead of a line of raw numbers per log entry."""

    def __init__(self) -> None:
        super().__init__()
        self._latest: dict[str, str] = {}

    def close(self) -> None:
        """End the lines of bars that are open, so that what is said next begins one."""
        for bar in (self.prediction_bar, self.training_bar):
            if bar is not None:
                bar.close()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the bar."""
        super().on_train_begin(args, state, control, **kwargs)
        if self.training_bar is not None:
            self.training_bar.set_description("Training")

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Show the losses; rates and norms are in the log."""
        hidden = {"grad_norm", "learning_rate", "epoch", "total_flos"}
        for name, value in (logs or {}).items():
            if isinstance(value, float) and name not in hidden and not name.startswith("train_"):
                self._latest[name] = f"{value:.3f}"
        if state.is_world_process_zero and self.training_bar is not None:
            self.training_bar.set_postfix(self._latest)
