"""Sharded checkpoints: what two gloo ranks write, one process and two read bit by bit."""

from __future__ import annotations

import json

import pytest

PROGRAM = """
import json, sys, tempfile
import torch
from pathlib import Path
from peft import LoraConfig, get_peft_model
from torch.distributed.tensor import DTensor
from transformers import LlamaConfig, LlamaForCausalLM
from mta_framework import RunError
from mta_framework.distributed import mesh, processes, shutdown
from mta_framework.models.sharding import whole
from mta_framework.registry import discover
from mta_framework.training.checkpoint_shards import load_optimizer_shards, load_weight_shards, save_shards
from mta_framework.training.distiller import Distiller
from mta_framework.training.sharded_trainer import shard_distiller

shape = dict(hidden_size=16, intermediate_size=33, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2)
command, folder, ranks = sys.argv[1], Path(sys.argv[2]), processes()

def made(kind, seed=0, **changes):
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=51, tie_word_embeddings=kind == "tied", **{**shape, **changes}))
    if kind == "adapted":
        model = get_peft_model(model, LoraConfig(r=1, target_modules="all-linear", init_lora_weights=False))
    distiller = Distiller(model, None, discover().create("base_losses", "sft", {}))
    if ranks.num_processes > 1:
        shard_distiller(distiller, None, mesh())
    trained = [it for it in distiller.parameters() if it.requires_grad]
    return distiller, torch.optim.AdamW([{"params": trained[1:]}, {"params": trained[:1]}], lr=0.1)

def step(distiller, optimizer):
    for index, parameter in enumerate(group for part in optimizer.param_groups for group in part["params"]):
        parameter.grad = torch.full_like(parameter, index + 1.0)
    optimizer.step()

def values(distiller, optimizer):
    tensors = {}
    for name, parameter in distiller.named_parameters():
        if parameter.requires_grad:
            tensors[name] = whole(parameter.detach()).clone()
            tensors |= {f"{name}.{entry}": whole(it).clone() for entry, it in optimizer.state[parameter].items()}
    return tensors

def same(tensors, others):
    return tensors.keys() == others.keys() and all(torch.equal(it, others[name]) for name, it in tensors.items())

def message(act):
    try:
        act()
    except RunError as error:
        return str(error)

answers = {}
for kind in ("untied", "tied", "adapted"):
    parts = made(kind)
    step(*parts)
    expected = values(*parts)
    if command == "save":
        save_shards(*parts, folder / kind)
    fresh = made(kind, seed=1)
    load_weight_shards(fresh[0], folder / kind)
    load_optimizer_shards(*fresh, folder / kind)
    answers[kind] = same(values(*fresh), expected)
    step(*parts), step(*fresh)
    answers[f"{kind}, a step later"] = same(values(*fresh), values(*parts))
wider = made("untied", intermediate_size=34)[0]
answers["another student"] = message(lambda: load_weight_shards(wider, folder / "untied"))
if command == "save":
    apart = folder / f"machine {ranks.process_index}"
    answers["another file system"] = message(lambda: save_shards(*parts, apart))
print(json.dumps(answers))
shutdown()
"""


def answers_of(process):
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, error[-3000:]
    return json.loads(out.splitlines()[-1])


@pytest.mark.slow
def test_shares_of_two_processes_are_read_back_by_two_and_by_one(tmp_path, warm_python):
    pair = warm_python.start_ranks([["-c", PROGRAM, "save", tmp_path]] * 2)
    answers = [answers_of(process) for process in pair]
    answers.append(answers_of(warm_python.start(["-c", PROGRAM, "load", tmp_path])))
    for of_process in answers:
        refusal = of_process.pop("another student")
        assert refusal.startswith(
            f"{tmp_path}/untied/shards: is of another student (differs in 3 weights: weights.student"
        )
        apart = of_process.pop("another file system", None)
        assert apart is None or "shards: does not have the same files on all processes. Set output_dir to" in apart
        assert all(of_process.values()), of_process
    sizes = [path.stat().st_size for path in (tmp_path / "untied" / "shards").iterdir()]
    assert len(sizes) == 2
    assert sizes[0] == pytest.approx(sizes[1], rel=0.1)
