"""A step of every loss and alignment plugin, sharded over two gloo ranks: the terms and gradients of whole models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mta_framework.registry import discover

PROGRAM = """
import json, sys
import torch
sys.path.insert(0, sys.argv[1])
from device_cases import BASE_LOSSES, FAMILIES, alignment_of, batch_of, cases, distiller_of, model, registry
from mta_framework.distributed import mesh, processes, shutdown
from mta_framework.models.sharding import whole
from mta_framework.models.teacher_states import Teacher
from mta_framework.training.distiller import contribution
from mta_framework.training.sharded_trainer import shard_distiller
from mta_framework.types import Progress

torch.set_num_threads(1)
processes()
answers = {}

def made(case):
    torch.manual_seed(1)
    teacher = model()
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.add_(torch.randn_like(parameter) / 2)
    teacher = Teacher.of(teacher.eval().requires_grad_(False))
    return distiller_of(case, model(), teacher, alignment_of(case)), teacher

def step(distiller, case):
    batch = batch_of(case)
    terms = distiller(batch, Progress(3, 10, 0.3))
    loss = contribution(terms, dict(batch.counts))
    loss.backward()
    distiller.reshard_teacher()
    gradients = {name: whole(it.grad) for name, it in distiller.named_parameters() if it.grad is not None}
    return {term.name: term.sum.item() for term in terms}, gradients

def difference(gradient, expected):
    return ((gradient - expected).norm() / (expected.norm() + 1e-6)).item()

for family in FAMILIES:
    for name in registry().names(family):
        for case in cases(family, name):
            if case.options:
                continue
            terms, gradients = step(made(case)[0], case)
            shards, teacher = made(case)
            shard_distiller(shards, teacher, mesh())
            shard_terms, shard_gradients = step(shards, case)
            assert shard_gradients.keys() == gradients.keys(), case
            largest = max(difference(shard_gradients[name], it) for name, it in gradients.items())
            answers[str(case), family] = [terms, shard_terms, largest]
print(json.dumps([[*case, *answer] for case, answer in answers.items()]))
shutdown()
"""
FAMILIES = ("base_losses", "alignment_terms", "importance_estimators")


@pytest.mark.slow
def test_every_plugin_takes_the_step_of_whole_models(warm_python):
    benchmarks = Path(__file__).parents[3] / "benchmarks"
    tried = set()
    for process in warm_python.start_ranks([["-c", PROGRAM, benchmarks]] * 2):
        out, error = process.communicate(timeout=600)
        assert process.returncode == 0, error[-3000:]
        for case, family, terms, shard_terms, gradient in json.loads(out.splitlines()[-1]):
            assert shard_terms == pytest.approx(terms, rel=1e-5, abs=1e-6), case
            assert gradient < 1e-5, case
            tried.add((family, case.split(" ")[0]))
    registry = discover()
    assert tried == {(family, name) for family in FAMILIES for name in registry.names(family)}
