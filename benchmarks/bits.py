"""Fingerprints of results, and what differs between two of them: whether a change of the code changed a bit.

    python benchmarks/bits.py record before.json
    python benchmarks/bits.py record after.json --only quickstart,kl
    python benchmarks/bits.py compare before.json after.json --only quickstart,kl

Everything goes through the command line and is read from files, and neither the keys in JSON nor the names of columns
count: so one script serves two versions of the package, told apart by ``--tree``. What counts: tensors by name, type,
shape and bytes; losses, scores and responses by their values in order; rows of caches by their values. Times do not.
An entry is written as soon as it is there; ``--only`` leaves the others in the file as they are. The sweep takes ten
minutes on two idle cores, everything else as long again. Bits hold on one machine with one version of torch: files of
two are not compared (exit code 2). Where an entry differs or only one file has it, the exit code is 1.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pyarrow as pa
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

THREADS = 1
SHOWN = 8
"""Differences of an entry that are told; the others are counted."""
TIMES = {
    "time",
    "times",
    "timings",
    "runtime",
    "seconds",
    "second",
    "minutes",
    "duration",
    "speed",
    "memory",
    "bytes",
    "flos",
}
"""Words of keys under which lies what no two runs have in common."""

Values = dict[str, Any]
"""What is compared: a name -> a digest, or a list of numbers as text."""


@dataclass(frozen=True)
class Workspace:
    """A copy of the quick start, in which commands run.

    Args:
        folder: Where it lies.
        tree: The repository whose package is run.
    """

    folder: Path
    tree: Path

    def python(self, *arguments: str) -> str:
        """What a command prints.

        Raises:
            SystemExit: It failed.
        """
        paths = [str(self.tree), str(self.tree / "plugins"), os.environ.get("PYTHONPATH", "")]
        fixed = {"OMP_NUM_THREADS": str(THREADS), "PYTHONHASHSEED": "0", "HF_HUB_OFFLINE": "1"}
        fixed |= {"TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=self.folder, env=os.environ | fixed, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr[-4000:]}")
        return done.stdout

    def mta(self, *arguments: str) -> None:
        """Run a command of the package."""
        self.python("-m", "mta_framework", *arguments)


def prepared(folder: Path, tree: Path) -> Workspace:
    """The quick start of a tree, with its data and two tokenizers.

    Raises:
        SystemExit: Another package than the tree's would be run.
    """
    source = tree / "examples" / "quickstart"
    for path in [source / "prepare.py", *source.glob("*.json")]:
        shutil.copy(path, folder)
    workspace = Workspace(folder, tree)
    found = workspace.python("-c", "import mta_framework; print(mta_framework.__file__)").strip()
    if not Path(found).is_relative_to(tree):
        raise SystemExit(f"{found} would be run, which is not in {tree}")
    workspace.python("prepare.py")
    write_tokenizer(folder)
    return workspace


def write_tokenizer(folder: Path) -> None:
    """``other-tokenizer``, of the same texts as the quick start's, but with other tokens."""
    rows = [json.loads(line) for line in (folder / "data" / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    prompt = runpy.run_path(str(folder / "prepare.py"))["PROMPT"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=["<unk>", "</s>"], show_progress=False)
    tokenizer.train_from_iterator([prompt.format(**row) for row in rows], trainer)
    (folder / "other-tokenizer").mkdir()
    tokenizer.save(str(folder / "other-tokenizer" / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>", "eos_token": "</s>"}
    (folder / "other-tokenizer" / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


SHORT = {
    "evaluation": None,
    "data.train.limit": 240,
    "data.validation.limit": 24,
    "training.epochs": None,
    "training.max_steps": 6,
    "training.log_steps": 1,
    "training.save_steps": 3,
    "training.trackers": [],
}
"""What the short runs change in the quick start's student, besides what follows."""
WRITING = {"training.generation": {"max_new_tokens": 16, "batch_tokens": 4800}}
ADAPTIVE = {"policy": "adaptive", "initial_threshold": 0.8, "capacity": 16}
RUNS: dict[str, dict[str, Any]] = {
    "kl": {"base_loss": {"name": "kl", "params": {"cross_entropy": 0.25}}},
    "fdd": {"base_loss": {"name": "fdd"}},
    "distillm": {"base_loss": {"name": "distillm", "params": {"batches": ADAPTIVE}}, **WRITING},
    "distillm2": {
        "base_loss": {"name": "distillm2", "params": {"anchor_steps": 2, "batches": {"every_steps": 3}}},
        "data.train.limit": 96,
        **WRITING,
    },
    "jsd": {
        "base_loss": {"name": "jsd", "params": {"batches": {"policy": "on_policy", "fraction": 0.6}}},
        "alignment.spans.name": "words",
        "alignment.importance.name": "uniform",
        "alignment.layers.params": {"words": 2, "phrases": 0},
        "alignment.dsa_reduction": "batch",
        "alignment.hid_reduction": "sum",
        **WRITING,
    },
    "uld": {"base_loss": {"name": "uld"}, "student.tokenizer": "other-tokenizer", "data.max_prompt_length": 200},
    "lora": {
        "student": {"teacher_layers": [1, 2, 4, 6], "lora": {"rank": 4, "dropout": 0.1}},
        "training.micro_batch_size": 4,
    },
}


def quickstart(workspace: Workspace) -> Values:
    """Data, teacher and student as in the example."""
    workspace.mta("run", "student.json")
    files = sorted(path for name in ("data", "tokenizer") for path in (workspace.folder / name).iterdir())
    runs = workspace.folder / "runs"
    return (
        {f"{path.parent.name}/{path.name}": digest(path.read_bytes()) for path in files}
        | prefixed("teacher", results(runs / "teacher"))
        | prefixed("student", results(runs / "student"))
        | caches(runs)
    )


def evaluation(workspace: Workspace) -> Values:
    """The quick start's student, evaluated by two metrics."""
    if not (workspace.folder / "runs" / "student" / "student").exists():
        workspace.mta("run", "student.json")
    metrics = ["--metric", "rouge_l", "--metric", "distinct_n"]
    workspace.mta("evaluate", "runs/student", "--data", "test=data/test.jsonl", *metrics, "-o", "evaluated")
    told = [number for number in numbers(read(workspace.folder / "evaluated" / "report.json")) if "." in number]
    return results(workspace.folder / "evaluated") | {"scores": told}


def sweep(workspace: Workspace) -> Values:
    """All runs of the quick start's sweep, and what they come to."""
    workspace.mta("sweep", "sweep.json", "--jobs", "2")
    workspace.mta("compare", "sweeps/terms", "-o", "compared")
    cells = sorted(path.parent for path in (workspace.folder / "sweeps" / "terms").glob("*/student"))
    values = {"compared": numbers(read(workspace.folder / "compared" / "comparison.json"))}
    for cell in cells:
        values |= prefixed(cell.name, results(cell))
    return values


def short(name: str) -> Callable[[Workspace], Values]:
    """A run of a few steps, with caches of its own."""

    def run(workspace: Workspace) -> Values:
        settings = SHORT | RUNS[name] | {"name": name, "output_dir": f"short-{name}"}
        changes = [f"--set={field}={json.dumps(value)}" for field, value in settings.items()]
        workspace.mta("run", "student.json", *changes)
        folder = workspace.folder / f"short-{name}"
        return results(folder / name) | caches(folder)

    return run


ENTRIES: dict[str, Callable[[Workspace], Values]] = {
    "quickstart": quickstart,
    "evaluate": evaluation,
    **{name: short(name) for name in RUNS},
    "sweep": sweep,
}


def prefixed(name: str, values: Values) -> Values:
    """The same values under longer names."""
    return {f"{name}: {key}": value for key, value in values.items()}


def results(folder: Path) -> Values:
    """What lies in the folder of a run or an evaluation, as far as it is there."""
    values: Values = {}
    for path in sorted((folder / "student").glob("*.safetensors")):
        values |= tensors(path)
    if (folder / "training.json").exists():
        values |= history(read(folder / "training.json"))
    for path in sorted(folder.rglob("*.jsonl")):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        values[path.relative_to(folder).as_posix()] = digest(repr(list(leaves(rows))).encode())
    if (folder / "geometry.json").exists():
        values["geometry"] = digest(repr(list(leaves(read(folder / "geometry.json")))).encode())
    return values


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


def history(document: Mapping[str, Any]) -> Values:
    """The numbers of each log entry, by the order of their keys; the log is the longest list."""
    log = max((value for value in document.values() if isinstance(value, list)), key=len)
    return {f"log {place}": numbers(dict(sorted(entry.items()))) for place, entry in enumerate(log)}


def caches(folder: Path) -> Values:
    """The rows of each cache, whatever its files are called."""
    values = {}
    for cache in sorted(folder.glob("*-cache")):
        tables = [pa.ipc.open_file(str(path)).read_all() for path in cache.rglob("*.arrow")]
        rows = sorted({repr(list(row.values())) for table in tables for row in table.to_pylist()})
        values[cache.name] = f"{len(rows)} rows {digest(chr(10).join(rows).encode())}"
    return values


def numbers(document: Any) -> list[str]:
    """All numbers but times, in order."""
    return [repr(leaf) for leaf in leaves(document) if isinstance(leaf, int | float)]


def leaves(value: Any) -> Iterator[Any]:
    """All texts, numbers and truth values but times, in order."""
    if isinstance(value, Mapping):
        kept = (inner for key, inner in value.items() if TIMES.isdisjoint(re.findall("[a-z]+", key.lower())))
        for inner in kept:
            yield from leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner)
    elif value is not None:
        yield value


def digest(content: bytes) -> str:
    """A short name for a content."""
    return hashlib.sha256(content).hexdigest()[:16]


def read(path: Path) -> Any:
    """A JSON document."""
    return json.loads(path.read_text(encoding="utf-8"))


def environment() -> dict[str, str]:
    """What bits depend on besides the code."""
    found = re.search("model name.*: (.*)", Path("/proc/cpuinfo").read_text()) if sys.platform == "linux" else None
    processor = found[1] if found else platform.processor() or platform.machine()
    return {"torch": version("torch"), "processor": processor, "threads": str(THREADS)}


def record(command: argparse.Namespace) -> int:
    """Run the entries one after the other; the file grows with each."""
    file, kept = command.file, command.only is not None and command.file.exists()
    recorded = read(file) if kept else {"environment": environment(), "entries": {}}
    if recorded["environment"] != environment():
        print(f"{file} is of another machine or version of torch: {recorded['environment']}", file=sys.stderr)
        return 2
    with place(command.keep) as folder:
        workspace = prepared(Path(folder).resolve(), command.tree.resolve())
        for name in [name for name in ENTRIES if name in (command.only or ENTRIES)]:
            start = time.perf_counter()
            values = ENTRIES[name](workspace)
            seconds = round(time.perf_counter() - start, 1)
            recorded["entries"][name] = {"seconds": seconds, "values": values}
            aside = file.with_name(f".{file.name}.part")
            aside.write_text(json.dumps(recorded, indent=1), encoding="utf-8")
            aside.replace(file)
            print(f"{name}: {len(values)} values, {seconds:.0f} s", flush=True)
    return 0


def place(keep: Path | None) -> AbstractContextManager[Path | str]:
    """The folder to work in; one that is kept must be new."""
    if keep is None:
        return tempfile.TemporaryDirectory()
    keep.mkdir(parents=True)
    return nullcontext(keep)


def compare(command: argparse.Namespace) -> int:
    """Tell what differs."""
    old, new = read(command.old), read(command.new)
    for path, recorded in ((command.old, old), (command.new, new)):
        print(f"{path}: {', '.join(f'{name} {value}' for name, value in recorded['environment'].items())}")
    if old["environment"] != new["environment"]:
        print("Not compared: bits hold on one machine, with one version of torch.", file=sys.stderr)
        return 2
    names = command.only or [name for name in ENTRIES if name in old["entries"] | new["entries"]]
    equal = [compared(name, old["entries"].get(name), new["entries"].get(name)) for name in names]
    return 0 if equal and all(equal) else 1


def compared(name: str, old: Values | None, new: Values | None) -> bool:
    """Tell of one entry; whether it is the same in both."""
    if old is None or new is None:
        print(f"{name}: not recorded in the {'first' if old is None else 'second'} file")
        return False
    found = list(differences(old["values"], new["values"]))
    print(f"{name}: {len(found)} of {len(old['values'] | new['values'])} values differ")
    print(*(f"  {line}" for line in shortened(found)), sep="\n", end="\n" if found else "")
    return not found


def differences(old: Values, new: Values) -> Iterator[str]:
    """One line for each name whose values differ."""
    for name in old | new:
        before, after = old.get(name), new.get(name)
        if before is None or after is None:
            yield f"{name}: only in the {'first' if after is None else 'second'} file"
        elif isinstance(before, list) and sorted(before) == sorted(after) and before != after:
            yield f"{name}: the same numbers in another order"
        elif before != after:
            yield f"{name}: {first_difference(before, after)}"


def first_difference(before: Sequence[str] | str, after: Sequence[str] | str) -> str:
    """Both values, or the first numbers that differ in two lists."""
    if isinstance(before, str):
        return f"{before} -> {after}"
    pairs = enumerate(zip_longest(before, after), start=1)
    return next(f"number {place}, {one} -> {other}" for place, (one, other) in pairs if one != other)


def shortened(lines: Sequence[str]) -> Iterable[str]:
    """The first lines, and how many more there are."""
    return [*lines[:SHOWN], *([f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else [])]


def entry_names(text: str) -> list[str]:
    """Names with commas between them."""
    names = text.split(",")
    if unknown := set(names) - set(ENTRIES):
        raise argparse.ArgumentTypeError(
            f"no such entry: {', '.join(sorted(unknown))} (there are {', '.join(ENTRIES)})"
        )
    return names


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    recording = commands.add_parser("record", help="run the entries, and keep their fingerprints")
    recording.set_defaults(run=record)
    recording.add_argument("file", type=Path)
    here = Path(__file__).resolve().parents[1]
    recording.add_argument(
        "--tree", type=Path, default=here, help="repository that is run; default: that of the script"
    )
    recording.add_argument("--keep", type=Path, metavar="FOLDER", help="keep all outputs, in a new folder")
    comparing = commands.add_parser("compare", help="tell what differs")
    comparing.set_defaults(run=compare)
    comparing.add_argument("old", type=Path)
    comparing.add_argument("new", type=Path)
    for command in (recording, comparing):
        command.add_argument("--only", type=entry_names, metavar="NAME,...", help=f"of {', '.join(ENTRIES)}")
    return parser.parse_args()


if __name__ == "__main__":
    command = arguments()
    sys.exit(command.run(command))
