"""One loss and one gradient, however a global batch is cut into micro-batches and processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.slow
WORKER = Path(__file__).with_name("gradient_worker.py")


def launch(processes, *arguments):
    """Run the worker under ``processes`` gloo ranks."""
    launcher = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_machines",
        "1",
        "--mixed_precision",
        "no",
    ]
    launcher += [
        "--num_processes",
        str(processes),
        "--main_process_port",
        "0",
        "--dynamo_backend",
        "no",
        "--num_cpu_threads_per_process",
        "1",
    ]
    done = subprocess.run([*launcher, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Loss and gradients of the uncut batch."""
    return {}


@pytest.mark.parametrize(("processes", "micro_batch_size"), [(1, 4), (1, 1), (2, 4), (2, 2)])
@pytest.mark.parametrize("base_loss", ["kl", "sft"])
def test_cut_gives_the_loss_and_gradient_of_the_whole_batch(
    processes, micro_batch_size, base_loss, spec_dict, write_spec, tmp_path
):
    spec_dict["base_loss"] = {"name": base_loss}
    spec_dict["training"] = {**spec_dict["training"], "max_steps": 1, "batch_size": 8}
    path = write_spec({**spec_dict, "evaluation": None})
    outcomes = {}
    for name, ranks, micro in (("whole", 1, 8), ("cut", processes, micro_batch_size)):
        out = tmp_path / name
        launch(ranks, WORKER, path, out, micro)
        outcomes[name] = json.loads((out / "loss.json").read_text()), load_file(out / "gradients.safetensors")
    (whole, whole_gradients), (cut, cut_gradients) = outcomes["whole"], outcomes["cut"]
    assert cut == pytest.approx(whole, rel=1e-5)
    assert whole_gradients.keys() == cut_gradients.keys()
    for name, expected in whole_gradients.items():
        tolerance = 1e-5 * expected.abs().max().item() + 1e-8
        torch.testing.assert_close(cut_gradients[name], expected, rtol=1e-4, atol=tolerance, msg=name)
