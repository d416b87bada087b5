"""The peak memory of a training: its models without values, its largest micro-batch, and one step of it, traced."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import Trainer

from mta_framework.alignment.objective import Alignment
from mta_framework.data.batches import Collator
from mta_framework.errors import error_message
from mta_framework.interfaces import BaseLoss
from mta_framework.memory_estimate.live_bytes import LiveBytes, Peak
from mta_framework.memory_estimate.simulated_mesh import simulated_mesh
from mta_framework.memory_estimate.simulated_models import simulated_student, simulated_teacher
from mta_framework.memory_estimate.traced_step import (
    GRADIENTS,
    PARTS,
    STUDENT_WEIGHTS,
    TEACHER_STATES,
    TEACHER_WEIGHTS,
    trace_step,
)
from mta_framework.models.decoder import head_of
from mta_framework.models.model_summary import ModelSummary
from mta_framework.models.state_reader import final_layers_of
from mta_framework.models.teacher_states import Teacher
from mta_framework.spec.run import RunSpec
from mta_framework.spec.training import DTYPE_OF_PRECISION
from mta_framework.teacher_cache.kinds import RecordKind
from mta_framework.teacher_cache.reader import RecordReader
from mta_framework.timers import time_limit
from mta_framework.training.arguments import training_arguments
from mta_framework.training.distiller import Distiller
from mta_framework.training.sharded_trainer import shard_distiller
from mta_framework.training.train import checkpoint_activations
from mta_framework.types import Batch, Example, LayerPair

_LONGEST = 300.0
"""Seconds after which the estimate is given up."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes of a process at the moment of training at which it holds most.

    Args:
        phase: What is going on at that moment, e.g. ``backward pass``.
        bytes_by_part: Part -> bytes at that moment, without parts that hold nothing then.
        texts: Number of texts of the largest micro-batch.
        tokens: Number of tokens of its longest text.
        problem: Why there is no estimate, as a sentence; empty where there is one.
    """

    phase: str = ""
    bytes_by_part: Mapping[str, int] = field(default_factory=dict)
    texts: int = 0
    tokens: int = 0
    problem: str = ""

    @property
    def total(self) -> int:
        """Bytes of all parts."""
        return sum(self.bytes_by_part.values())


@dataclass(frozen=True)
class TrainedRun:
    """What decides the memory of a training.

    Args:
        spec: The spec.
        student: Summary of the student.
        teacher: Summary of the teacher; None without one.
        base_loss: Base loss of the run.
        make_alignment: Makes the alignment, or None.
        pairs: Key layers of the alignment; empty without it.
        loss_layers: Pairs of student layer and teacher layer that the base loss reads.
        texts: The largest micro-batch.
        micro_batches: Number of micro-batches of a step of one process.
        collator: Makes a batch of ``texts``.
        kinds: Kinds of records by which the teacher answers; None where it is run.
    """

    spec: RunSpec
    student: ModelSummary
    teacher: ModelSummary | None
    base_loss: BaseLoss
    make_alignment: Callable[[], Alignment | None]
    pairs: Sequence[LayerPair]
    loss_layers: Sequence[tuple[int, int]]
    texts: Sequence[Example]
    micro_batches: int
    collator: Collator
    kinds: Sequence[RecordKind] | None = None


def estimate_memory(run: TrainedRun, device: torch.device, num_processes: int) -> MemoryEstimate:
    """Estimate the peak memory of a process in training, by tracing a step on tensors without values.

    Args:
        run: What is trained.
        device: Device of the process.
        num_processes: Number of processes.

    Returns:
        The estimate; with a ``problem`` where the step cannot be traced, e.g. since a plugin reads values.
    """
    tokens = max(len(example.input_ids) for example in run.texts)
    try:
        with time_limit(_LONGEST):
            peak = _traced(run, device, num_processes)
    except Exception as error:  # foreign plugins and architectures may do whatever they like
        return MemoryEstimate(texts=len(run.texts), tokens=tokens, problem=error_message(error))
    known = {part: peak.bytes_by_part[part] for part in PARTS if peak.bytes_by_part.get(part)}
    return MemoryEstimate(peak.phase, known, len(run.texts), tokens)


def _traced(run: TrainedRun, device: torch.device, num_processes: int) -> Peak:
    section, live = run.spec.training, LiveBytes(device)
    sharded = section.sharding is not None and num_processes > 1
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    batch = _batch(run, fake, device)
    with live.phase("", TEACHER_STATES):
        for tensor in (batch.teacher_records or {}).values():
            live.hold(tensor)
    with torch.random.fork_rng(devices=[]), fake, device:
        teacher = None if run.teacher is None else _teacher(run, live)
        with live, live.phase("", STUDENT_WEIGHTS):
            student = simulated_student(run.student, run.spec.student)
            aligner = run.make_alignment()
    distiller = Distiller(student, teacher, copy.deepcopy(run.base_loss), aligner, run.pairs, run.loss_layers)
    if section.gradient_checkpointing:
        checkpoint_activations(student)
    with simulated_mesh(device.type, num_processes) if sharded else nullcontext() as mesh, live.following_resizes():
        if mesh is not None:
            with fake, live, live.phase("", STUDENT_WEIGHTS):
                shard_distiller(distiller, teacher if run.kinds is None else None, mesh)
        optimizers = _optimizers(run, distiller)
        trained = [parameter for parameter in distiller.parameters() if parameter.requires_grad]
        with fake, live:
            # DDP copies gradients to buckets, in which processes sum them up.
            with live.phase("", GRADIENTS):
                buckets = [torch.empty_like(one) for one in trained if num_processes > 1 and not sharded]
            trace_step(live, distiller, optimizers, batch, run.micro_batches, _dtype(run))
            del buckets
    return live.peak


def _batch(run: TrainedRun, fake: FakeTensorMode, device: torch.device) -> Batch:
    """The batch; its indices have values, what was kept of the teacher has none."""
    if run.kinds is None:
        return run.collator(run.texts).to(device)
    stores: dict[RecordKind, Any] = {kind: _EmptyRecords(kind, run.texts) for kind in run.kinds}
    batch = run.collator.with_teacher_records(RecordReader(stores))(run.texts).to(device)
    assert batch.teacher_records is not None
    records = {
        slot: fake.from_tensor(tensor) if tensor.is_floating_point() else tensor
        for slot, tensor in batch.teacher_records.items()
    }
    return replace(batch, teacher_records=records)


class _EmptyRecords:
    """Stands in for a store that has a record of every text."""

    def __init__(self, kind: RecordKind, texts: Sequence[Example]):
        self._sizes = {kind.key(text): kind.num_rows(text) * kind.row_bytes for text in texts}

    def get(self, key: bytes) -> memoryview:
        return memoryview(bytes(self._sizes[key]))


def _teacher(run: TrainedRun, live: LiveBytes) -> Teacher:
    """The teacher, of which only the head and the modules before it are loaded where it answers by records."""
    assert run.teacher is not None
    assert run.spec.teacher is not None
    if run.kinds is None:
        with live, live.phase("", TEACHER_WEIGHTS):
            return Teacher.of(simulated_teacher(run.teacher, run.spec.teacher))
    model = simulated_teacher(run.teacher, run.spec.teacher)
    head, final_layers = head_of(model), final_layers_of(model)
    kept = [head.weight_VD, head.bias_V]
    for module in (final_layers.norm, final_layers.projection):
        kept += list(module.parameters()) if isinstance(module, nn.Module) else []
    with live, live.phase("", TEACHER_WEIGHTS):
        for tensor in kept:
            if tensor is not None:
                live.hold(tensor)
    return Teacher(lambda: None, lambda: (head, final_layers))


def _optimizers(run: TrainedRun, distiller: Distiller) -> list[torch.optim.Optimizer]:
    """The optimiser of the run, without its distinction of learning rates; a second one for embeddings in 8 bit."""
    arguments = training_arguments(
        run.spec.training, run.spec.seed, Path(), validates=True, higher_is_better=False, unused_parameters=False
    )
    make, settings = Trainer.get_optimizer_cls_and_kwargs(arguments)
    embeddings = [module.weight for module in distiller.modules() if isinstance(module, nn.Embedding)]
    exact = [weight for weight in embeddings if weight.requires_grad and settings.get("optim_bits") == 8]
    chosen = {id(weight) for weight in exact}
    others = [one for one in distiller.parameters() if one.requires_grad and id(one) not in chosen]
    groups = [(others, settings), (exact, {**settings, "optim_bits": 32})]
    return [make(parameters, **options) for parameters, options in groups if parameters]


def _dtype(run: TrainedRun) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, DTYPE_OF_PRECISION[run.spec.training.precision])
    return dtype
