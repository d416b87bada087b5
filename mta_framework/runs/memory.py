"""The peak memory of a run's training, for the plan, and what to do where there is too little."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch

from mta_framework.distributed import processes
from mta_framework.memory_estimate.estimate import MemoryEstimate, TrainedRun, estimate_memory
from mta_framework.memory_estimate.largest_batch import largest_micro_batch, longest_responses
from mta_framework.memory_estimate.traced_step import TEACHER_WEIGHTS
from mta_framework.runs.build import alignment, collator_of
from mta_framework.runs.cached_teacher import recorded_run
from mta_framework.runs.plugin_binding import BoundRun
from mta_framework.runs.preparation import RunInputs
from mta_framework.runs.validation_answers import max_new_tokens
from mta_framework.spec.training import TrainingSection
from mta_framework.teacher_cache.kinds import RecordKind
from mta_framework.training.arguments import micro_batch_size
from mta_framework.training.train import total_steps


def estimated_memory(bound: BoundRun, inputs: RunInputs) -> MemoryEstimate:
    """Estimate the peak memory of a process in training, on the largest micro-batch of the run.

    Args:
        bound: The run.
        inputs: What was prepared for it.

    Returns:
        The estimate. With several teachers it is that of the one with the highest, on its longest texts alone, with the
        weights of all.
    """
    views = inputs.views()
    estimates = [_estimated(view, views[name]) for name, view in bound.views().items()]
    highest = max(estimates, key=lambda estimate: (bool(estimate.problem), estimate.total))
    if highest.problem or len(estimates) == 1:
        return highest
    weights = sum(estimate.bytes_by_part.get(TEACHER_WEIGHTS, 0) for estimate in estimates)
    return replace(highest, bytes_by_part={**highest.bytes_by_part, TEACHER_WEIGHTS: weights})


def _estimated(bound: BoundRun, inputs: RunInputs) -> MemoryEstimate:
    state, spec, run_models = processes(), bound.spec, inputs.run_models
    micro = micro_batch_size(spec.training, state.num_processes)
    train, policy = inputs.data.train.examples, bound.base_loss.batch_policy()
    if bound.teacher_name:
        texts = sorted(train, key=lambda text: len(text.input_ids))[-micro:]
    else:
        texts = largest_micro_batch(train, inputs.sampler, micro, total_steps(spec.training, inputs.sampler))
    if policy is not None:
        texts = longest_responses(texts, policy, max_new_tokens(spec), spec.data.max_length)
    run = TrainedRun(
        spec=spec,
        student=run_models.student_summary,
        teacher=run_models.teacher_summary if bound.runs_teacher else None,
        base_loss=bound.base_loss,
        make_alignment=partial(alignment, bound, run_models, inputs.pairs),
        pairs=inputs.pairs,
        loss_layers=inputs.loss_layers,
        texts=texts,
        micro_batches=spec.training.batch_size // (micro * state.num_processes),
        collator=collator_of(bound, run_models),
        kinds=_kinds(bound, inputs) if policy is None else None,
    )
    # One of several processes on a CPU is on "cpu:0", which torch's meshes and new tensors do not take for the same.
    device = torch.device("cpu") if state.device.type == "cpu" else state.device
    return estimate_memory(run, device, state.num_processes)


def _kinds(bound: BoundRun, inputs: RunInputs) -> tuple[RecordKind, ...] | None:
    """The records by which the teacher answers; None where it is run."""
    if bound.spec.teacher is None or not bound.spec.teacher.keeps_records:
        return None
    with torch.device("meta"):
        aligner = alignment(bound, inputs.run_models, inputs.pairs)
    return recorded_run(bound, inputs, inputs.run_models, aligner, inputs.pairs).kinds()


def less_for_training(section: TrainingSection) -> str:
    """What to do where a training finds too little memory, in sentences."""
    size = micro_batch_size(section, processes().num_processes)
    smaller = [f"training.micro_batch_size (now {size}; a divisor of {section.batch_size})"] if size > 1 else []
    if section.generation is not None:
        smaller.append(f"training.generation.batch_tokens (now {section.generation.batch_tokens:,})")
    lower = f"Lower {' or '.join(smaller)}, then continue with --resume. " if smaller else ""
    return (
        f"Complete checkpoints are kept. {lower}mta run SPEC --dry-run shows what takes the memory; less is taken by a "
        "run of another name with training.precision bf16, training.gradient_checkpointing or student.lora."
    )


def less_for_evaluation(batch_tokens: int) -> str:
    """What to do where an evaluation finds too little memory, in sentences.

    Args:
        batch_tokens: Number of tokens that are held at a time.
    """
    return (
        f"Complete responses are kept. Lower evaluation.batch_tokens (now {batch_tokens:,}), then run the command "
        "again, mta run with --resume."
    )
