"""One training step of a spec; writes the logged losses and the gradients before clipping. Runs on every rank."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from safetensors.torch import save_file

from mta_framework import pipeline
from mta_framework.binding import bind
from mta_framework.registry import discover
from mta_framework.training.trainer import DistillationTrainer


def main(spec: str, out: str, micro_batch_size: str) -> None:
    """Catch the gradients where the trainer looks at them."""
    original = DistillationTrainer.close_step
    folder = Path(out)

    def close_step(self: DistillationTrainer) -> None:
        original(self)
        if self.args.should_save:
            folder.mkdir(exist_ok=True)
            gradients = {
                name: value.grad for name, value in self.distiller.named_parameters() if value.grad is not None
            }
            save_file(gradients, folder / "gradients.safetensors")

    DistillationTrainer.close_step = close_step  # type: ignore[method-assign]
    settings = [f"name={folder.name}", f"training.micro_batch_size={micro_batch_size}", "training.max_grad_norm=1e6"]
    report = pipeline.run(bind(Path(spec), discover(), settings))
    logged = next(entry for entry in report.log if "hid" in entry)
    (folder / "loss.json").write_text(json.dumps({name: logged[name] for name in ("loss", "dsa", "hid", "grad_norm")}))


main(*sys.argv[1:])
