"""Progress bar of training."""

from __future__ import annotations

from typing import Any

from transformers.trainer_callback import ProgressCallback

from mta_framework.types.log_entries import CROSS_ENTROPY, EVAL, TEACHER_LOSS, is_reserved


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
        """Update the losses, and what validation measures; all else is only in the log."""
        for name, value in (logs or {}).items():
            if isinstance(value, float) and _is_shown(name.removeprefix(EVAL)):
                self._latest[name] = f"{value:.3f}"
        if state.is_world_process_zero and self.training_bar is not None:
            self.training_bar.set_postfix(self._latest)


def _is_shown(name: str) -> bool:
    return name in ("loss", CROSS_ENTROPY) or name.startswith(TEACHER_LOSS) or not is_reserved(name)
