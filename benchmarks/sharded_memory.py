"""Measure what a process holds of a sharded run: bytes of its own tensors after two steps of KL with MTA.

    python benchmarks/sharded_memory.py --json one.json
    accelerate launch --multi_gpu --num_processes 2 benchmarks/sharded_memory.py --json two.json

Weights and texts are random, and no accelerator is needed: bytes are counted tensor by tensor. The largest share of any
process is reported.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

import torch
from accelerate.utils import gather_object
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import LlamaConfig, LlamaForCausalLM

from mta_framework.alignment.objective import Alignment, WeightedTerm
from mta_framework.data.batches import collate
from mta_framework.distributed import mesh, processes, shutdown
from mta_framework.models.teacher_states import Teacher
from mta_framework.registry import discover
from mta_framework.testing import random_example
from mta_framework.training.distiller import Distiller, contribution
from mta_framework.training.sharded_trainer import shard_distiller
from mta_framework.types import LayerPair, ModelShape, Progress

VOCABULARY = 512
STUDENT, TEACHER = ModelShape(4, 64), ModelShape(8, 128)


def model(shape: ModelShape) -> LlamaForCausalLM:
    """A Llama of random weights, whose head is not tied to its embeddings."""
    torch.manual_seed(0)
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    size = {"hidden_size": shape.hidden_size, "intermediate_size": 4 * shape.hidden_size}
    return LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, num_hidden_layers=shape.num_layers, **size, **heads))


def measure() -> dict[str, int]:
    """Bytes that this process holds of each part."""
    registry = discover()
    teacher = Teacher.of(model(TEACHER).eval().requires_grad_(False))
    terms = [WeightedTerm(registry.create("alignment_terms", name, {}), 1.0) for name in ("dsa", "hid")]
    pairs = (LayerPair(2, 4, "words"), LayerPair(4, 8, "words"))
    importance = registry.create("importance_estimators", "attention", {})
    alignment = Alignment(pairs, importance, terms, STUDENT, TEACHER)
    distiller = Distiller(model(STUDENT), teacher, registry.create("base_losses", "kl", {}), alignment, pairs)
    if processes().num_processes > 1:
        shard_distiller(distiller, teacher, mesh())
    optimiser = torch.optim.AdamW(distiller.parameters())
    words = [(start, start + 2) for start in range(1, 28, 2)]
    batch = collate([random_example(30, 6, seed=seed, spans={"words": words}) for seed in range(2)], 0, ("words",))
    for step in range(2):
        optimiser.zero_grad()
        loss = contribution(distiller(batch, Progress(step, 2, step / 2)), dict(batch.counts))
        gathered = [it for it in distiller.parameters() if not isinstance(it, DTensor)]
        loss.backward()
        distiller.reshard_teacher()
        optimiser.step()
    parameters = list(distiller.parameters())
    return {
        "student and projections": held(parameters),
        "gradients": held(it.grad for it in parameters if it.grad is not None),
        "AdamW": held(value for state in optimiser.state.values() for value in state.values()),
        "teacher": held(teacher.model.parameters()),
        "whole from forward to backward pass": held(gathered),
    }


def held(tensors: Iterable[Tensor]) -> int:
    """Bytes of this process's part of some tensors."""
    return sum((it.to_local() if isinstance(it, DTensor) else it).nbytes for it in tensors)


def main() -> None:
    """Measure on all processes and print the largest share of each part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="File for the bytes.")
    command = parser.parse_args()
    torch.set_num_threads(1)
    shares = gather_object([measure()])
    largest = {part: max(share[part] for share in shares) for part in shares[0]}
    if processes().is_main_process:
        for part, size in largest.items():
            print(f"{part:36} {size:12,}")
        if command.json is not None:
            command.json.write_text(json.dumps(largest) + "\n", encoding="utf-8")
    shutdown()


if __name__ == "__main__":
    main()
