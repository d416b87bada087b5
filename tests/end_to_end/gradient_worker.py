"""One training step of a spec; writes the logged losses and the gradients before clipping. Runs on every rank."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from unittest import mock

from safetensors.torch import load_file, save_file
from torch import Tensor

from mta_framework.distributed import processes
from mta_framework.models.sharding import whole
from mta_framework.registry import discover
from mta_framework.runs import pipeline
from mta_framework.runs.plugin_binding import bind
from mta_framework.training.trainer import DistillationTrainer


def one_step(spec: Path, out: Path, micro_batch_size: int) -> None:
    """Catch the gradients where the trainer looks at them."""
    original = DistillationTrainer.before_optimizer_step

    def before_optimizer_step(trainer: DistillationTrainer) -> None:
        original(trainer)
        parameters = trainer.distiller.named_parameters()
        gradients = {name: whole(it.grad) for name, it in parameters if it.grad is not None}
        if trainer.args.should_save:
            out.mkdir(exist_ok=True)
            save_file(gradients, out / "gradients.safetensors")

    settings = [f"name={out.name}", f"training.micro_batch_size={micro_batch_size}", "training.max_grad_norm=1e6"]
    unread = mock.patch.object(pipeline, "write_report")
    with mock.patch.object(DistillationTrainer, "before_optimizer_step", before_optimizer_step), unread:
        report = pipeline.run(bind(spec, discover(), settings))
    logged = next(entry for entry in report.log if "grad_norm" in entry)
    losses = {name: value for name, value in logged.items() if name not in ("epoch", "step", "learning_rate")}
    (out / "loss.json").write_text(json.dumps({**losses, "processes": processes().num_processes}))


def outcome(out: Path) -> tuple[dict[str, float], dict[str, Tensor]]:
    """The losses and gradients that ``one_step`` wrote."""
    losses = json.loads((out / "loss.json").read_text())
    del losses["processes"]
    return losses, load_file(out / "gradients.safetensors")


if __name__ == "__main__":
    one_step(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
