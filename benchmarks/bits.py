"""Fingerprints of results, and what differs between two of them: whether a change of the code changed a bit.

    python benchmarks/bits.py record before.json
    python benchmarks/bits.py record after.json --only quickstart,kl
    python benchmarks/bits.py compare before.json after.json --only quickstart,kl

Everything goes through the command line and is read from files, so that one script serves all versions of the package;
``--tree`` names the one. Tensors count by name, type, shape and bytes; losses, scores, responses and rows of caches by
their values, whatever keys and columns are called; times do not. The file grows with each entry; ``--only`` leaves the
others in it alone. The sweep takes ten minutes on two idle cores, all else as long again. Bits hold on one machine
with one version of torch: nothing is compared across two (exit code 2). Where an entry differs, the exit code is 1.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pyarrow as pa

THREADS = 1
SHOWN = 8
"""Most differences that are printed of an entry; all are counted."""
TIMES = {"time", "times", "timings", "runtime", "seconds", "second", "duration", "speed", "memory", "bytes", "flos"}
"""Words in keys under which lies what no two runs have in common."""

Values = dict[str, Any]
"""What is compared: a name -> a digest, or a list of numbers as text."""

SHORT: dict[str, Any] = {"evaluation": None, "data.train.limit": 240, "data.validation.limit": 24}
SHORT |= {"training.epochs": None, "training.max_steps": 6, "training.log_steps": 1, "training.save_steps": 3}
"""What the short runs change in the quick start's student, besides what follows."""
WRITING = {"training.generation": {"max_new_tokens": 16, "batch_tokens": 4800}}
ADAPTIVE = {"batches": {"policy": "adaptive", "initial_threshold": 0.8, "capacity": 16}}
ON_POLICY = {"batches": {"policy": "on_policy", "fraction": 0.6}}
PAIRS = {"batches": {"every_steps": 3}, "anchor_steps": 2}
WORDS = {
    "alignment.spans.name": "words",
    "alignment.importance.name": "uniform",
    "alignment.layers.params": {"words": 2, "phrases": 0},
    "alignment.terms.0.params.reduction": "batch",
    "alignment.terms.1.params.reduction": "sum",
}
LORA = {"teacher_layers": [1, 2, 4, 6], "lora": {"rank": 4, "dropout": 0.1}}
RUNS: dict[str, dict[str, Any]] = {
    "kl": {"base_loss.params": {"cross_entropy": 0.25}},
    "fdd": {"base_loss.name": "fdd"},
    "distillm": {"base_loss": {"name": "distillm", "params": ADAPTIVE}, **WRITING},
    "distillm2": {"base_loss": {"name": "distillm2", "params": PAIRS}, **WRITING},
    "jsd": {"base_loss": {"name": "jsd", "params": ON_POLICY}, **WRITING, **WORDS},
    "uld": {"base_loss.name": "uld", "student.tokenizer": "other-tokenizer", "data.max_prompt_length": 200},
    "lora": {"student": LORA, "training.micro_batch_size": 4},
}


def python(folder: Path, *arguments: str) -> str:
    """What Python prints that runs in a folder; ends this process where it fails."""
    done = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{arguments}, in {folder}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done.stdout


def prepare(folder: Path, tree: Path) -> None:
    """Copy the quick start of a tree and write its data and two tokenizers; what runs from now on is of the tree."""
    paths = [str(tree), str(tree / "plugins"), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ |= {"OMP_NUM_THREADS": str(THREADS), "PYTHONHASHSEED": "0", "PYTHONPATH": os.pathsep.join(paths)}
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    source = tree / "examples" / "quickstart"
    for path in [source / "prepare.py", *source.glob("*.json")]:
        shutil.copy(path, folder)
    module_file = python(folder, "-c", "import mta_framework; print(mta_framework.__file__)").strip()
    if not Path(module_file).is_relative_to(tree):
        raise SystemExit(f"{module_file} would be run, which is not in {tree}")
    few = "prepare.train_tokenizer(prepare.make_rows()['test'])"
    python(folder, "-c", f"import prepare; prepare.main(); {few}.save_pretrained('other-tokenizer')")


def mta(folder: Path, *arguments: str) -> None:
    """Run a command of the package in a folder."""
    python(folder, "-m", "mta_framework", *arguments)


def quickstart(folder: Path) -> Values:
    """Data, teacher and student as in the example; then the student is evaluated by two metrics."""
    mta(folder, "run", "student.json")
    metrics = ["--metric", "rouge_l", "--metric", "distinct_n"]
    mta(folder, "evaluate", "runs/student", "--data", "test=data/test.jsonl", *metrics, "-o", "evaluated")
    files = [*sorted((folder / "data").iterdir()), folder / "tokenizer" / "tokenizer.json"]
    values: Values = {path.name: digest(path.read_bytes()) for path in files}
    for name in ("runs/teacher", "runs/student", "evaluated"):
        values |= results(folder / name)
    scores = [text for text in numeric_leaves(read(folder / "evaluated" / "report.json")) if "." in text]
    return values | caches(folder / "runs") | {"scores": scores}


def short(name: str, folder: Path) -> Values:
    """A run of a few steps, with caches of its own."""
    settings = SHORT | RUNS[name] | {"name": name, "output_dir": f"short-{name}"}
    mta(folder, "run", "student.json", *(f"--set={key}={json.dumps(value)}" for key, value in settings.items()))
    runs = folder / f"short-{name}"
    return results(runs / name) | caches(runs)


def sweep(folder: Path) -> Values:
    """All runs of the quick start's sweep, and what they come to."""
    mta(folder, "sweep", "sweep.json", "--jobs", "2")
    mta(folder, "compare", "sweeps/terms", "-o", "compared")
    values: Values = {"compared": numeric_leaves(read(folder / "compared" / "comparison.json"))}
    for student in sorted((folder / "sweeps" / "terms").glob("*/student")):
        values |= results(student.parent)
    return values


ENTRIES: dict[str, Callable[[Path], Values]] = {
    "quickstart": quickstart,
    **{name: partial(short, name) for name in RUNS},
    "sweep": sweep,
}


def results(folder: Path) -> Values:
    """What lies in the folder of a run or an evaluation, as far as it is there."""
    values: Values = {}
    for path in sorted((folder / "student").glob("*.safetensors")):
        values |= tensors(path)
    if (folder / "training.json").exists():
        log = max((value for value in read(folder / "training.json").values() if isinstance(value, list)), key=len)
        values |= {f"log {index}": numeric_leaves(dict(sorted(entry.items()))) for index, entry in enumerate(log)}
    for path in [*sorted(folder.rglob("*.jsonl")), *folder.glob("geometry.json")]:
        values[path.relative_to(folder).as_posix()] = digest(repr(list(leaves(read(path)))).encode())
    return {f"{folder.name}: {name}": value for name, value in values.items()}


def tensors(path: Path) -> Values:
    """Every tensor of a safetensors file, read without torch."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header.pop("__metadata__", None)
    values = {}
    for name, entry in sorted(header.items()):
        first, last = (start + offset for offset in entry["data_offsets"])
        values[f"tensor {name}"] = digest(f"{entry['dtype']} {entry['shape']} ".encode() + content[first:last])
    return values


def caches(folder: Path) -> Values:
    """The rows of each cache, whatever its files are called."""
    values = {}
    for cache in sorted(folder.glob("*-cache")):
        tables = [pa.ipc.open_file(str(path)).read_all() for path in cache.rglob("*.arrow")]
        rows = sorted({repr(list(row.values())) for table in tables for row in table.to_pylist()})
        values[cache.name] = f"{len(rows)} rows {digest(repr(rows).encode())}"
    return values


def numeric_leaves(document: Any) -> list[str]:
    """All numbers but times, in order."""
    return [repr(leaf) for leaf in leaves(document) if isinstance(leaf, int | float)]


def leaves(value: Any) -> Iterator[Any]:
    """All texts, numbers and truth values but times, in order."""
    if isinstance(value, Mapping):
        value = [inner for key, inner in value.items() if TIMES.isdisjoint(re.findall("[a-z]+", key.lower()))]
    if isinstance(value, list):
        for inner in value:
            yield from leaves(inner)
    elif value is not None:
        yield value


def digest(content: bytes) -> str:
    """A short name for a content."""
    return hashlib.sha256(content).hexdigest()[:16]


def read(path: Path) -> Any:
    """A JSON document, or the list of those in a JSON Lines file."""
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("\n") if line] if path.suffix == ".jsonl" else json.loads(text)


def environment() -> dict[str, str]:
    """What bits depend on besides the code."""
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8") if sys.platform == "linux" else ""
    processor = re.search("model name.*: (.*)", cpuinfo)
    name = processor[1] if processor else platform.processor() or platform.machine()
    return {"torch": version("torch"), "processor": name, "threads": str(THREADS)}


def record(command: argparse.Namespace) -> int:
    """Run the entries one after the other; where one fails, its outputs stay for a look."""
    file, kept = command.file, command.only and command.file.exists()
    recorded = read(file) if kept else {"environment": environment(), "entries": {}}
    if recorded["environment"] != environment():
        print(f"{file} is of another machine or version of torch: {recorded['environment']}", file=sys.stderr)
        return 2
    folder = (command.keep or Path(tempfile.mkdtemp())).resolve()
    folder.mkdir(parents=True, exist_ok=command.keep is None)
    prepare(folder, command.tree.resolve())
    for name in command.only or ENTRIES:
        start = time.perf_counter()
        values = ENTRIES[name](folder)
        seconds = round(time.perf_counter() - start, 1)
        recorded["entries"][name] = {"seconds": seconds, "values": values}
        aside = file.with_name(f".{file.name}.part")
        aside.write_text(json.dumps(recorded, indent=1), encoding="utf-8")
        aside.replace(file)
        print(f"{name}: {len(values)} values, {seconds:.0f} s", flush=True)
    if command.keep is None:
        shutil.rmtree(folder)
    return 0


def compare(command: argparse.Namespace) -> int:
    """Tell what differs."""
    old, new = read(command.old), read(command.new)
    for path, recorded in ((command.old, old), (command.new, new)):
        print(f"{path}: {', '.join(f'{name} {value}' for name, value in recorded['environment'].items())}")
    if old["environment"] != new["environment"]:
        print("Not compared: bits hold on one machine, with one version of torch.", file=sys.stderr)
        return 2
    names = command.only or [name for name in ENTRIES if name in old["entries"] | new["entries"]]
    equal = [not print_differences(name, *(recorded["entries"].get(name) for recorded in (old, new))) for name in names]
    return 0 if equal and all(equal) else 1


def print_differences(name: str, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> list[str]:
    """Prints the differences of an entry and returns them."""
    missing = [f"not in the {'first' if old is None else 'second'} file"]
    lines = missing if old is None or new is None else list(differences(old["values"], new["values"]))
    print(f"{name}: {len(lines)} differences", *lines[:SHOWN], sep="\n  ")
    return lines


def differences(old: Values, new: Values) -> Iterator[str]:
    """One line for each name whose values differ; of two lists, the first numbers that do."""
    for name in old | new:
        before, after = old.get(name), new.get(name)
        if before is None or after is None:
            yield f"{name}: only in the {'first' if after is None else 'second'} file"
        elif isinstance(before, list) and before != after:
            apart = [pair for pair in zip_longest(before, after) if pair[0] != pair[1]]
            moved = ", but only in their order" if sorted(before) == sorted(after) else ""
            yield f"{name}: {len(apart)} of {len(before)} numbers{moved}, first {apart[0][0]} -> {apart[0][1]}"
        elif before != after:
            yield f"{name}: {before} -> {after}"


def entry_names(text: str) -> list[str]:
    """Names with commas between them, in the order of the entries."""
    if unknown := set(text.split(",")) - set(ENTRIES):
        raise argparse.ArgumentTypeError(f"no such entry: {', '.join(sorted(unknown))}")
    return [name for name in ENTRIES if name in text.split(",")]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    recording = commands.add_parser("record", help="run the entries and keep their fingerprints")
    recording.add_argument("file", type=Path)
    here = Path(__file__).resolve().parents[1]
    recording.add_argument("--tree", type=Path, default=here, help="repository that is run; default: the script's own")
    recording.add_argument("--keep", type=Path, metavar="FOLDER", help="keep all outputs, in a new folder")
    comparing = commands.add_parser("compare", help="tell what differs")
    comparing.add_argument("old", type=Path)
    comparing.add_argument("new", type=Path)
    for command, work in ((recording, record), (comparing, compare)):
        command.add_argument("--only", type=entry_names, metavar="NAME,...", help=f"of {', '.join(ENTRIES)}")
        command.set_defaults(work=work)
    return parser.parse_args()


if __name__ == "__main__":
    command = arguments()
    sys.exit(command.work(command))
