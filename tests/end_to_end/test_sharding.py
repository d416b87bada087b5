"""A run that is sharded over two gloo ranks (FSDP2) is the run of one process: loss, gradient, export, checkpoints."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("trained_teacher", "no_page")]
WORKER = Path(__file__).with_name("gradient_worker.py")
PLUGIN = Path(__file__).with_name("slow_loss.py")

DIES_WHILE_WRITING = """
import os, signal, sys
from torch.distributed.checkpoint import HuggingFaceStorageWriter
from mta_framework.cli import main

write, calls = HuggingFaceStorageWriter.write_data, []

def write_and_die(writer, plan, planner):
    calls.append(plan)
    written = write(writer, plan, planner)
    if len(calls) == 2 and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    return written

HuggingFaceStorageWriter.write_data = write_and_die
main()
"""
"""``mta`` of which the second process is killed when it has written its share of the second checkpoint."""

GENERATES = {"max_new_tokens": 10, "batch_tokens": 400}
ADAPTIVE = {"policy": "adaptive", "initial_threshold": 1.0}
LORA = {"rank": 4}
CASES = {
    "kl": {"base_loss": {"name": "kl", "params": {"cross_entropy": 0.5}}},
    "kl, recomputed activations": {"training": {"gradient_checkpointing": True}},
    "fdd": {"base_loss": {"name": "fdd"}},
    "distillm on student responses": {
        "base_loss": {"name": "distillm", "params": {"batches": ADAPTIVE}},
        "training": {"generation": GENERATES},
    },
    "distillm2 on responses of both": {"base_loss": {"name": "distillm2"}, "training": {"generation": GENERATES}},
    "LoRA": {"student": {"lora": LORA}},
    "LoRA, bf16": {"student": {"lora": LORA}, "training": {"precision": "bf16"}},
    "none": {"base_loss": {"name": "none"}},
}
"""What each case changes in ``spec_dict``, which has kl and MTA."""


def one_step(warm_python, path, out, ranks):
    """Losses, gradients and export of one training step, of micro-batches of two texts."""
    processes = warm_python.start_ranks([[WORKER, path, out, 2]] * ranks)
    for process in processes:
        _, error = process.communicate()
        assert process.returncode == 0, error[-3000:]
    losses = json.loads((out / "loss.json").read_text())
    assert losses.pop("processes") == ranks
    return losses, load_file(out / "gradients.safetensors"), exported(path.parent / "runs" / out.name)


def exported(run):
    """Weights of the exported student."""
    return load_file(run / "student" / "model.safetensors")


def require_close(tensors, expected, tolerance):
    """Compare tensors by name: the norm of the difference, relative to that of the tensor.

    Single values may differ by more: where a gradient is all but zero, its rounding decides where AdamW steps.
    """
    assert tensors.keys() == expected.keys()
    for name, value in expected.items():
        difference = torch.linalg.vector_norm((tensors[name] - value).float()).item()
        assert difference <= tolerance * torch.linalg.vector_norm(value.float()).item() + 1e-8, name


@pytest.mark.parametrize("case", CASES)
def test_shards_give_loss_gradient_and_export_of_one_process(case, spec_dict, write_spec, tmp_path, warm_python):
    changes = CASES[case]
    training = {**spec_dict["training"], "max_steps": 1, **changes.get("training", {}), "sharding": "fsdp2"}
    student = {**spec_dict["student"], **changes.get("student", {})}
    path = write_spec({**spec_dict, **changes, "student": student, "training": training, "evaluation": None})
    losses, gradients, weights = one_step(warm_python, path, tmp_path / "alone", 1)
    assert "dsa" in losses
    shard_losses, shard_gradients, shard_weights = one_step(warm_python, path, tmp_path / "shards", 2)
    # In bf16 a product over half a batch is rounded at 2^-8 of its size, wherever it is computed.
    tolerance = 2**-8 if training.get("precision") == "bf16" else 1e-5
    assert shard_losses == pytest.approx(losses, rel=tolerance)
    require_close(shard_gradients, gradients, tolerance)
    # The export is rounded to bf16, after a step of AdamW whose direction follows the sign of the smallest gradients.
    require_close(shard_weights, weights, 8 * tolerance if tolerance > 1e-5 else tolerance)


@pytest.mark.parametrize("lora", [None, LORA])
def test_shards_by_a_teacher_cache_give_the_step_of_one_process_with_the_live_teacher(
    lora, spec_dict, write_spec, tmp_path, warm_python
):
    training = {**spec_dict["training"], "max_steps": 1, "sharding": "fsdp2"}
    spec = {**spec_dict, "student": {**spec_dict["student"], "lora": lora}, "training": training, "evaluation": None}
    live = one_step(warm_python, write_spec(spec), tmp_path / "live", 1)
    cached = write_spec({**spec, "teacher": {**spec["teacher"], "cache": {}}}, "cached.json")
    for name in ("filled", "read"):
        losses, gradients, weights = one_step(warm_python, cached, tmp_path / name, 2)
        assert losses == pytest.approx(live[0], rel=1e-5)
        require_close(gradients, live[1], 1e-5)
        require_close(weights, live[2], 1e-5)
    assert [*(tmp_path / "runs" / "teacher-cache").glob("*/records/*/*.arrow")]


def kill_at(checkpoint, processes, seconds=300):
    """Kill all processes as soon as there is a checkpoint."""
    end = time.monotonic() + seconds
    while not checkpoint.exists():
        assert all(process.poll() is None for process in processes), processes[0].communicate()[1][-3000:]
        assert time.monotonic() < end, f"{checkpoint} did not appear"
        time.sleep(0.02)
    for process in processes:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize("kind", ["full", "sharded"])
def test_killed_run_goes_on_with_another_number_of_processes(kind, spec_dict, write_spec, tmp_path, warm_python):
    training = {**spec_dict["training"], "max_steps": 9, "save_steps": 3, "sharding": "fsdp2", "checkpoints": kind}
    path = write_spec({**spec_dict, "base_loss": {"name": "slow"}, "training": training, "evaluation": None})
    command = ["-m", "mta_framework", "-p", PLUGIN, "run", path]
    warm_python.run([*command, "--set", "name=straight"], check=True)
    straight, resumed = tmp_path / "runs" / "straight", tmp_path / "runs" / "student"
    kill_at(resumed / "checkpoints" / "checkpoint-3", warm_python.start_ranks([command] * 2))
    assert (resumed / "checkpoints" / "checkpoint-3" / "shards").exists() == (kind == "sharded")
    kill_at(resumed / "checkpoints" / "checkpoint-6", [warm_python.start([*command, "--resume"])])
    # The last checkpoint is full in either case.
    warm_python.run_on_two_ranks([*command, "--resume", "--set", "training.checkpoints=full"])
    require_close(exported(resumed), exported(straight), 1e-4)
    logs = [json.loads((run / "training.json").read_text())["history"] for run in (resumed, straight)]
    losses = [[entry["slow"] for entry in log if "slow" in entry] for log in logs]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    require_close_checkpoints(*(run / "checkpoints" / "checkpoint-9" for run in (resumed, straight)))


def require_close_checkpoints(checkpoint, expected):
    """Compare weights and state of the optimiser of two full checkpoints."""
    for name in ("student/student.safetensors", "projections.safetensors"):
        require_close(*(load_file(folder / name) for folder in (checkpoint, expected)), 1e-4)
    states = [torch.load(folder / "optimizer.pt", weights_only=True) for folder in (checkpoint, expected)]
    assert states[0]["param_groups"] == states[1]["param_groups"]
    assert states[0]["state"].keys() == states[1]["state"].keys()
    for index, state in states[1]["state"].items():
        require_close(states[0]["state"][index], state, 1e-3)


def test_a_checkpoint_of_which_a_process_was_killed_is_not_used(spec_dict, write_spec, tmp_path, warm_python):
    training = {**spec_dict["training"], "max_steps": 2, "save_steps": 1, "sharding": "fsdp2", "checkpoints": "sharded"}
    student = {**spec_dict["student"], "lora": LORA}
    path = write_spec({**spec_dict, "student": student, "training": training, "evaluation": None})
    warm_python.run(["-m", "mta_framework", "run", path, "--set", "name=straight"], check=True)
    ranks = warm_python.start_ranks([["-c", DIES_WHILE_WRITING, "run", path]] * 2)
    outputs = [rank.communicate(timeout=300) for rank in ranks]
    assert ranks[1].returncode == -signal.SIGKILL
    assert ranks[0].returncode > 0, outputs[0][1][-3000:]
    straight, resumed = tmp_path / "runs" / "straight", tmp_path / "runs" / "student"
    folder = resumed / "checkpoints"
    assert [path.name for path in folder.glob("checkpoint-*")] == ["checkpoint-1"]
    names = {f"shards/shard-0000{index}-model-00001-of-00001.safetensors" for index in (1, 2)}
    assert names < json.loads((folder / "checkpoint-1" / "files.json").read_text()).keys()
    warm_python.run_on_two_ranks(["-m", "mta_framework", "run", path, "--resume"])
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint-1", "checkpoint-2"]
    require_close(exported(resumed), exported(straight), 1e-4)
