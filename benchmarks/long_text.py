"""Memory and time of DSA on one long text, forward and backward, compared with holding all pairs of spans at once.

    python benchmarks/long_text.py                # 16,384 tokens, 6,000 spans, widths 576 and 2048, on the CPU
    python benchmarks/long_text.py --no-dense     # without the comparison, which needs some GiB

Each implementation runs in a process of its own. Memory is the growth of resident memory to its peak, as the operating
system counts it; the hidden states of both models are in memory before.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor
from torch.nn import functional

from mta_framework.alignment.importance import normalise, span_vectors, span_weights
from mta_framework.alignment.objective import Alignment, WeightedTerm
from mta_framework.data.batches import collate
from mta_framework.interfaces import ImportanceEstimator
from mta_framework.registry import discover
from mta_framework.types import Batch, Example, Head, LayerPair, ModelShape, States

MIB = 2**20
WORDS = "words"


@dataclass(frozen=True)
class Shape:
    """Size of the text, widths of the two models, and importance estimator."""

    tokens: int
    spans: int
    student: int
    teacher: int
    importance: str


@dataclass(frozen=True)
class Outcome:
    """Result of one implementation: term, gradient with respect to the student's states, growth in bytes, seconds."""

    value: float
    gradient: np.ndarray[Any, Any]
    peak: int
    seconds: float


def ours(student: States, teacher: States, batch: Batch, weigh: ImportanceEstimator) -> Tensor:
    """Compute DSA of one key layer as training does."""
    shapes = [ModelShape(1, states.final_BTD.shape[-1]) for states in (student, teacher)]
    dsa = discover().create("alignment_terms", "dsa")
    alignment = Alignment([LayerPair(1, 1, WORDS)], weigh, [WeightedTerm(dsa, 1.0)], *shapes)
    (term,) = alignment(student, teacher, batch)
    return term.sum


def dense(student: States, teacher: States, batch: Batch, weigh: ImportanceEstimator) -> Tensor:
    """Compute DSA by its definition, with all pairs at once and autograd."""
    index = batch.spans[WORDS]
    weights = [normalise(weigh.weigh(states, 1, batch.attention_mask_BT), index) for states in (student, teacher)]
    vectors = [span_vectors(*both, index) for both in zip((student.layers[1], teacher.layers[1]), weights, strict=True)]
    angles = [(unit := functional.normalize(vector_SD, dim=-1)) @ unit.T for vector_SD in vectors]
    weight_S = span_weights(weights[1], index)
    pair_SS = torch.outer(weight_S, weight_S).fill_diagonal_(0)
    return (pair_SS * (angles[0] - angles[1]).square()).sum() / pair_SS.sum()


def made_up(shape: Shape) -> tuple[States, States, Batch]:
    """Make random hidden states, and one text with spans of one to five tokens."""
    generator = torch.Generator().manual_seed(0)
    states = []
    for width in (shape.student, shape.teacher):
        hidden_BTD = torch.randn(1, shape.tokens, width, generator=generator)
        states.append(States(hidden_BTD, {1: hidden_BTD}, Head(torch.zeros(1, width))))
    draw = np.random.default_rng(0)
    candidates = [(start, start + size) for size in range(1, 6) for start in range(shape.tokens - size)]
    chosen = sorted(candidates[index] for index in draw.choice(len(candidates), shape.spans, replace=False))
    example = Example(np.ones(shape.tokens, dtype=np.int32), 1, {WORDS: np.array(chosen, dtype=np.int32)})
    states[0].layers[1].requires_grad_()
    return states[0], states[1], collate([example], 0, [WORDS])


def measured(way: Callable[..., Tensor], shape: Shape) -> Outcome:
    """Measure forward and backward pass in this process, whose memory must not have been larger before."""
    weigh: ImportanceEstimator = discover().create("importance_estimators", shape.importance)
    student, teacher, batch = made_up(shape)
    ours(*made_up(Shape(64, 8, 4, 4, shape.importance)), weigh).backward()  # loads libraries
    held, start = psutil.Process().memory_info().rss, time.perf_counter()
    total = way(student, teacher, batch, weigh)
    total.backward()
    seconds = time.perf_counter() - start
    gradient = student.layers[1].grad
    assert gradient is not None
    return Outcome(total.item(), gradient.numpy(), peak() - held, seconds)


def peak() -> int:
    """Peak of this process's resident memory so far, in bytes."""
    if sys.platform == "linux":  # where getrusage starts from the peak of the parent process
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS: bytes


def in_new_process(way: Callable[..., Tensor], shape: Shape) -> Outcome:
    """Run ``measured`` in a new process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measured, (way, shape))


def main() -> None:
    """Measure and print."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=16_384)
    parser.add_argument("--spans", type=int, default=6_000)
    parser.add_argument("--widths", type=int, nargs=2, default=(576, 2048), metavar=("STUDENT", "TEACHER"))
    parser.add_argument("--importance", default="attention", help="importance estimator")
    parser.add_argument("--no-dense", action="store_true", help="leave the comparison out")
    chosen = parser.parse_args()
    shape = Shape(chosen.tokens, chosen.spans, *chosen.widths, chosen.importance)
    print(f"{shape.spans:,} spans in {shape.tokens:,} tokens, widths {shape.student} and {shape.teacher}")
    mine = in_new_process(ours, shape)
    print(f"ours:         peak {mine.peak / MIB:,.0f} MiB, {mine.seconds:.1f} s")
    if not chosen.no_dense:
        reference = in_new_process(dense, shape)
        print(f"all at once:  peak {reference.peak / MIB:,.0f} MiB, {reference.seconds:.1f} s")
        slope = np.linalg.norm(mine.gradient - reference.gradient) / np.linalg.norm(reference.gradient)
        print(f"value differs by {abs(mine.value / reference.value - 1):.1e}, gradient by {slope:.1e} of its size")


if __name__ == "__main__":
    main()
