"""Progress bar of training."""

from __future__ import annotations

from typing import Any

from transformers.trainer_callback import ProgressCallback

from mta_framework.types.log_entries import RESPONSE_HEALTH


class ProgressBar(ProgressCallback):
    """Shows the latest losses behind the bar, instead of printing a line per log entry."""

    def __init__(self) -> None:
        super().__init__()
        self._latest: dict[str, str] = {}

    def close(self) -> None:
        """Close open bars, so that the next output starts on a new line."""
        for bar in (self.prediction_bar, self.training_bar):
            if bar is not None:
                bar.close()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the bar."""
        super().on_train_begin(args, state, control, **kwargs)
        if self.training_bar is not None:
            self.training_bar.set_description("Training")

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Update the losses; learning rate and gradient norm are only in the log."""
        hidden = {"grad_norm", "learning_rate", "epoch", "total_flos", *RESPONSE_HEALTH}
        for name, value in (logs or {}).items():
            if isinstance(value, float) and name not in hidden and not name.startswith("train_"):
                self._latest[name] = f"{value:.3f}"
        if state.is_world_process_zero and self.training_bar is not None:
            self.training_bar.set_postfix(self._latest)
