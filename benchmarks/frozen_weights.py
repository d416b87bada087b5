"""Memory and loss of one training step of a student whose frozen weights have 32, 16, 8 or 4 bit.

Peaks are those of tensors, as the allocator counts them; a folder of safetensors is needed, since GGUF is expanded.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from memory import peak_bytes
from torch import nn

from mta_framework.data.batches import collate
from mta_framework.data.prompts import render_prompts
from mta_framework.data.records import read_records
from mta_framework.data.tokens import SampleTokenizer, encode
from mta_framework.models.loading import load_student
from mta_framework.models.quantization import quantized_modules
from mta_framework.models.tokenizers import load_student_tokenizer
from mta_framework.models.turn_end import settle_turn_end
from mta_framework.registry import discover
from mta_framework.spec.data import DatasetSection
from mta_framework.spec.student import StudentSection
from mta_framework.training.distiller import Distiller, contribution
from mta_framework.types import Batch, Progress

_MIB = 2**20
_LORA = {"rank": 8}
VARIANTS: dict[str, tuple[dict[str, Any], str]] = {
    "all weights trained, fp32": ({}, "float32"),
    "LoRA, fp32": ({"lora": _LORA}, "float32"),
    "LoRA, bf16": ({"lora": _LORA}, "bfloat16"),
    "LoRA on 8 bit, bf16": ({"lora": _LORA, "quantization": {"bits": 8}}, "bfloat16"),
    "LoRA on 4 bit, bf16": ({"lora": _LORA, "quantization": {"bits": 4}}, "bfloat16"),
    "the same, double": ({"lora": _LORA, "quantization": {"bits": 4, "use_double_quant": True}}, "bfloat16"),
}
"""Name of a row -> options of the section ``student``, and dtype of the forward pass and of frozen weights."""


@dataclass(frozen=True)
class Row:
    """What one variant takes: bytes of weights, peak bytes of a step beyond them, loss before it, seconds of a step."""

    weights: int
    peak: int
    loss: float
    seconds: float


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="Folder of the student, with its tokenizer.")
    parser.add_argument("--data", type=Path, required=True, help="JSON Lines file of rows.")
    parser.add_argument("--texts", type=int, default=4, help="Number of texts of the step.")
    parser.add_argument("--device", default="cpu", help="Device of the student.")
    command = parser.parse_args()
    tokenizer = load_student_tokenizer(StudentSection(path=str(command.model)))
    batch = texts(command.data, command.texts, tokenizer).to(command.device)
    print("| student | weights, MiB | peak of a step beyond them, MiB | loss, nats per token | seconds |")
    print("|---|---|---|---|---|")
    for name, (options, dtype) in VARIANTS.items():
        row = measured(StudentSection(path=str(command.model), **options), dtype, tokenizer, batch, command.device)
        print(
            f"| {name} | {row.weights / _MIB:.0f} | {row.peak / _MIB:.0f} | {row.loss:.3f} | {row.seconds:.1f} |",
            flush=True,
        )


def texts(data: Path, count: int, tokenizer: Any) -> Batch:
    """Collate the first texts of at most 256 tokens."""
    samples = render_prompts(read_records(DatasetSection(path=str(data), limit=count), "data"), "alpaca", tokenizer)
    side = SampleTokenizer(tokenizer, settle_turn_end(tokenizer, ()), 256)
    return collate(encode(samples, None, [side], 128).examples, tokenizer.pad_token_id, ())


def measured(section: StudentSection, dtype: str, tokenizer: Any, batch: Batch, device: str) -> Row:
    """Load a student and take two steps on the same texts: one to measure memory, one to measure time."""
    student = load_student(section, None, tokenizer, 0, dtype, device).to(device)
    distiller = Distiller(student, None, discover().create("base_losses", "sft"))
    optimizer = torch.optim.AdamW([p for p in student.parameters() if p.requires_grad], lr=1e-4, fused=True)
    losses: list[float] = []
    peak = peak_bytes(partial(_step, distiller, optimizer, batch, dtype, losses), device)
    start = time.perf_counter()
    _step(distiller, optimizer, batch, dtype, losses)
    return Row(_weight_bytes(student), peak, losses[0], time.perf_counter() - start)


def _step(
    distiller: Distiller, optimizer: torch.optim.Optimizer, batch: Batch, dtype: str, losses: list[float]
) -> None:
    device = batch.input_ids_BT.device.type
    with torch.autocast(device, dtype=torch.bfloat16, enabled=dtype == "bfloat16"):
        loss = contribution(distiller(batch, Progress(0, 1, 0.0)), batch.counts)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    losses.append(float(loss))


def _weight_bytes(student: nn.Module) -> int:
    plain = sum(parameter.numel() * parameter.element_size() for parameter in student.parameters())
    return plain + sum(_scale_bytes(module) for _, module in quantized_modules(student))


def _scale_bytes(module: Any) -> int:
    state = getattr(module.weight, "quant_state", None)
    scales: Sequence[torch.Tensor | None] = [getattr(module, "state", None) and module.state.SCB]
    if state is not None:
        scales = [state.absmax, state.state2.absmax if state.nested else None]
    return sum(scale.numel() * scale.element_size() for scale in scales if scale is not None)


if __name__ == "__main__":
    main()
