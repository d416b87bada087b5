"""What a run promises about faults, tried on many: kills, full disks, damaged files and mutated specs.

    python benchmarks/faults.py --rounds 100 --seed 1
    python benchmarks/faults.py --rounds 20 --only kills,disks --kinds cached

Prints each promise with how often it was tried and held, and every fault under which it was not; the exit status is 1
if there is one. The same seed tries the same faults; when exactly a kill meets a process depends on the machine. A
round of kills, operations, disks or damage is one run of a few seconds, of four kinds in turn: KL with MTA, the same by
a teacher cache, DistiLLM with a replay buffer, DistiLLM-2 with cached pairs. A round of specs is a hundred of them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from fault_injection import AtOperation, kill, limit_files, refuse
from fault_workload import KINDS, Ended, Workload
from mutated_specs import mutated_text

from mta_framework.errors import InputError
from mta_framework.registry import discover
from mta_framework.runs import pipeline  # noqa: F401 - imported once, before processes are forked
from mta_framework.runs.plugin_binding import bind

SPECS_PER_ROUND = 100
LONGEST = 10.0
"""Seconds that reading a spec may take, on a machine with other work."""

DAMAGED = (
    "checkpoints/**/*",
    "student/*",
    "*.json",
    "predictions/**/*",
    "report.*",
    "../span-cache/**/*.arrow",
    "../response-cache/**/*.arrow",
    "../teacher-cache/**/*",
)
"""Files of an output folder that are damaged, relative to the run; each pattern as often as the others."""


@dataclass
class Promise:
    """A promise, how often it was tried, and the faults under which it was not held."""

    text: str
    tried: int = 0
    broken: list[str] = field(default_factory=list)

    def count(self, fault: str, problem: str | None) -> None:
        """Count one try; ``problem`` says why it was not held."""
        self.tried += 1
        if problem:
            self.broken.append(f"{fault}: {problem}")
            print(f"not held: {self.broken[-1]}", flush=True)


def sentence_missing(ended: Ended) -> str | None:
    """Why an exit is none of those that a command may have; None where it is one of them."""
    if ended.code not in (0, 1, 2):
        return f"exit status {ended.code}: {ended.text[-300:]}"
    if "Traceback" in ended.text:
        return f"a traceback: {ended.text[-600:]}"
    return "no sentence" if ended.code and not ended.text.strip() else None


def resumed(work: Workload, kind: str, name: str) -> str | None:
    """Resume a run to its end, and say what of it is not as in the undisturbed one."""
    ended = work.run(kind, name).wait()
    if ended.code:
        return f"cannot be resumed ({ended.code}): {ended.text[-600:]}"
    return work.difference(kind, name)


def kills(work: Workload, draw: random.Random, rounds: int) -> Iterator[Promise]:
    """Kill runs at random moments, up to three times each, and resume them."""
    promise = Promise("a killed run ends with the weights, log, responses and scores of a straight one")
    for index, kind in enumerate(work.drawn_kinds(draw, rounds)):
        name, moments = f"killed-{index}", [draw.random() for _ in range(draw.randint(1, 3))]
        for moment in moments:
            process = work.run(kind, name)
            process.kill(moment * work.straight[kind][1])
            process.wait()
        promise.count(f"{kind} killed at {', '.join(f'{moment:.2f}' for moment in moments)}", resumed(work, kind, name))
        work.clear(kind, name)
    yield promise


def operations(work: Workload, draw: random.Random, rounds: int) -> Iterator[Promise]:
    """Kill runs right before an operation on a file, each operation once if there are enough rounds."""
    promise = Promise("a run that is killed at an operation on a file ends as a straight one")
    chosen, counts = work.drawn_kinds(draw, rounds), {}
    for kind in dict.fromkeys(chosen):
        counted = work.folder / f"{kind}.count"
        if (ended := work.run(kind, "counted", AtOperation(kill, None, counted)).wait()).code:
            raise SystemExit(f"{kind} does not run without a fault:\n{ended.text[-3000:]}")
        counts[kind] = int(counted.read_text())
        work.clear(kind, "counted")
    indices = {kind: _spread(draw, counts[kind], chosen.count(kind)) for kind in counts}
    for round_index, kind in enumerate(chosen):
        name, index = f"operation-{round_index}", indices[kind].pop()
        work.run(kind, name, AtOperation(kill, index)).wait()
        promise.count(f"{kind} killed at operation {index} of {counts[kind]}", resumed(work, kind, name))
        work.clear(kind, name)
    yield promise


def _spread(draw: random.Random, count: int, rounds: int) -> list[int]:
    """So many indices below ``count``, as far apart as they can be, in a random order."""
    indices = [int((index + draw.random()) * count / rounds) for index in range(rounds)]
    draw.shuffle(indices)
    return indices


def disks(work: Workload, draw: random.Random, rounds: int) -> Iterator[Promise]:
    """Let the disk be full from a random operation on, or files end early, and resume with room."""
    ending = Promise("a full disk ends a run with a sentence, and without a traceback")
    kept = Promise("with room again, it ends as a straight one")
    for index, kind in enumerate(work.drawn_kinds(draw, rounds)):
        name = f"disk-{index}"
        if index % 2:
            at = draw.randrange(400)
            fault, prepare = f"{kind}, full from operation {at} on", AtOperation(refuse, at, lasting=True)
        else:
            size = draw.randrange(100, 300_000)
            fault, prepare = f"{kind}, files of at most {size} bytes", limit_files(size)
        ending.count(fault, sentence_missing(work.run(kind, name, prepare).wait()))
        kept.count(fault, resumed(work, kind, name))
        work.clear(kind, name)
    yield ending
    yield kept


def damage(work: Workload, draw: random.Random, rounds: int) -> Iterator[Promise]:
    """Flip a bit or cut off the end of a file of a finished run, and resume it from its checkpoints or from its end."""
    promise = Promise("damage to any file of a finished run is reported with its file, or changes nothing")
    for index, kind in enumerate(work.drawn_kinds(draw, rounds)):
        name = f"damaged-{index}"
        shutil.copytree(work.output(kind, "straight"), work.output(kind, name))
        run = work.output(kind, name) / "run"
        kinds_of_files = [sorted(path for path in run.glob(pattern) if _has_content(path)) for pattern in DAMAGED]
        file = draw.choice(draw.choice([files for files in kinds_of_files if files]))
        fault = f"{kind}, {_damage(file, draw)} of {os.path.relpath(file, run)}"
        if "checkpoints" in file.parts or (file.parent.name != "student" and draw.random() < 0.5):
            shutil.rmtree(run / "student")
        ended = work.run(kind, name).wait()
        problem = sentence_missing(ended)
        if not problem and ended.code == 0:
            problem = work.difference(kind, name)
        elif not problem and file.name not in ended.text:
            problem = f"is reported without the file: {ended.text[-300:]}"
        promise.count(fault, problem)
        work.clear(kind, name)
    yield promise


def _has_content(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _damage(file: Path, draw: random.Random) -> str:
    content = bytearray(file.read_bytes())
    if draw.random() < 0.5:
        bit = draw.randrange(8 * len(content))
        content[bit // 8] ^= 1 << bit % 8
        what = f"bit {bit}"
    else:
        del content[draw.randrange(len(content)) :]
        what = f"all behind byte {len(content)}"
    file.write_bytes(content)
    return what


def specs(work: Workload, draw: random.Random, rounds: int) -> Iterator[Promise]:
    """Mutate sound specs and read them as ``mta check`` does; every hundredth one is planned by the command itself."""
    promise = Promise("a mutated spec is sound, or refused with a sentence for each fault, in bounded time")
    registry = discover(())
    sound = [work.document(kind) for kind in work.straight]
    for index in range(rounds * SPECS_PER_ROUND):
        path = work.folder / "mutated.json"
        text = mutated_text(draw.choice(sound), draw)
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        began, problem = time.monotonic(), None
        try:
            bind(path, registry)
        except InputError as error:
            problem = None if error.faults and all(map(str, error.faults)) else "no sentence"
        except BaseException:
            problem = traceback.format_exc()[-600:]
        if not problem and index % SPECS_PER_ROUND == 0:
            problem = sentence_missing(work.planned(path))
        if (seconds := time.monotonic() - began) > 6 * LONGEST or (index % SPECS_PER_ROUND and seconds > LONGEST):
            problem = problem or f"took {seconds:.0f} s"
        promise.count(f"spec {json.dumps(text)[:300]}", problem)
    yield promise


CAMPAIGNS: dict[str, Callable[[Workload, random.Random, int], Iterator[Promise]]] = {
    "kills": kills,
    "operations": operations,
    "disks": disks,
    "damage": damage,
    "specs": specs,
}


def main() -> None:
    """Run the campaign and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100, help="rounds of each kind of fault [default: 100]")
    parser.add_argument("--seed", type=int, default=0, help="seed of the faults [default: 0]")
    parser.add_argument("--only", default=",".join(CAMPAIGNS), help="kinds of fault [default: all]")
    parser.add_argument("--kinds", default=",".join(KINDS), help="kinds of run [default: all]")
    options = parser.parse_args()
    chosen, runs = options.only.split(","), options.kinds.split(",")
    for option, names, known in (("--only", chosen, CAMPAIGNS), ("--kinds", runs, KINDS)):
        if unknown := set(names) - set(known):
            parser.error(f"{option}: nothing is called {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    promises: list[Promise] = []
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        work = Workload(Path(folder), runs)
        work.prepare()
        for name in chosen:
            promises += CAMPAIGNS[name](work, random.Random(f"{options.seed} {name}"), options.rounds)
    print("| promise | tried | held |\n|---|---|---|")
    for promise in promises:
        print(f"| {promise.text} | {promise.tried:,} | {promise.tried - len(promise.broken):,} |")
    sys.exit(any(promise.broken for promise in promises))


if __name__ == "__main__":
    main()
