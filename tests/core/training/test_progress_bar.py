"""The progress bar shows losses."""

from __future__ import annotations

from types import SimpleNamespace

from mta_framework.training.progress_bar import ProgressBar


def test_losses_are_shown_and_everything_else_is_only_logged():
    bar, shown = ProgressBar(), {}
    bar.training_bar = SimpleNamespace(set_postfix=shown.update, close=lambda: None)
    losses = {
        "loss": 1.0,
        "kl": 0.25,
        "loss_maths": 2.0,
        "eval_kl": 0.5,
        "eval_cross_entropy": 3.0,
        "eval_rouge_l": 4.0,
    }
    others = {"share_by_student": 0.5, "training_seconds": 9.0, "grad_norm": 1.0, "learning_rate": 1e-3, "epoch": 1.0}
    summary = {"train_runtime": 5.0, "total_flos": 0.0, "response_entropy": 1.0}
    bar.on_log(None, SimpleNamespace(is_world_process_zero=True), None, logs={**losses, **others, **summary, "step": 3})
    assert shown == {name: f"{value:.3f}" for name, value in losses.items()}
