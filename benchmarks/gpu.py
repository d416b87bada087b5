"""Everything that a GPU can show of the framework, by one command in under ten minutes.

    python benchmarks/gpu.py --output measured                          # on one GPU
    python benchmarks/gpu.py --output rehearsed --tiny                  # on a CPU: the same parts in seconds

No data, no models and no network are needed: texts are synthetic, weights are random, in the shapes of known models.
Each part runs in a process of its own within a limit of time, most useful parts first; what fails is named in the
results, and the next part begins. Written after every part: ``gpu.json`` with everything, and ``gpu.md`` with the same
as tables.

The parts: the machine; runs of ``mta`` from end to end, one of them killed and resumed; the lines at which the host
waits for the GPU in a step of every base loss, alignment term and importance estimator; time and peak memory of a step
of every base loss with and without MTA; precisions; the profile of a step; runs with a live and a cached teacher;
generation; alignment terms; gradient checkpointing and LoRA; a teacher of seven billion parameters. Times are medians
after a pass over the same batches, of a synchronised device; a step is both forward passes, the loss, the backward pass
and AdamW.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from gpu_parts import PARTS
from gpu_runs import cached_teacher, runs
from gpu_settings import FULL, TINY
from isolated_parts import Outcome, Part, Row, run_parts
from transformers.utils.logging import disable_progress_bar

from mta_framework.tables.markdown import escape, markdown_table
from mta_framework.tables.table import Table

RUNS, CACHE = Part("runs", runs, 130), Part("cached-teacher", cached_teacher, 80)
ALL_PARTS = (PARTS[0], RUNS, *PARTS[1:5], CACHE, *PARTS[5:])


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [part.name for part in ALL_PARTS]
    parser.add_argument("--output", type=Path, required=True, help="folder of gpu.json and gpu.md")
    parser.add_argument("--minutes", type=float, default=9.0, help="longest time of all parts together")
    parser.add_argument("--parts", type=lambda text: text.split(","), default=names, help=f"of {', '.join(names)}")
    parser.add_argument("--tiny", action="store_true", help="tiny models on the CPU, to rehearse")
    parser.add_argument("--commit", help="commit that is measured; default: that of the working tree")
    return parser.parse_args()


def commit_of(folder: Path) -> str:
    """Commit of a working tree; unknown outside of one."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty"]
    described = subprocess.run(command, capture_output=True, text=True, check=False)
    return described.stdout.strip() or "unknown"


def write(folder: Path, commit: str, seconds: float, outcomes: Sequence[Outcome]) -> None:
    """Write both files."""
    content = {"commit": commit, "seconds": round(seconds, 1), "parts": [asdict(outcome) for outcome in outcomes]}
    (folder / "gpu.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (folder / "gpu.md").write_text("\n".join(page(commit, outcomes)) + "\n", encoding="utf-8")


def page(commit: str, outcomes: Sequence[Outcome]) -> Iterator[str]:
    """The results as Markdown, one table under each heading."""
    yield from (f"`python benchmarks/gpu.py`, commit {commit}.", "")
    states = [{"part": o.name, "state": o.state, "s": round(o.seconds), "faults": len(o.faults)} for o in outcomes]
    yield from (table_of(states), "")
    for outcome in outcomes:
        for title, rows in outcome.tables.items():
            yield from (f"### {title}", "", table_of(rows), "")
        if outcome.faults:
            yield from (f"### Faults of {outcome.name}", "", *(f"- {escape(fault)}" for fault in outcome.faults), "")


def table_of(rows: Sequence[Row]) -> str:
    """Rows as a table; a column that a row lacks is empty there."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    return markdown_table(Table(columns, [[_text(row.get(column, "")) for column in columns] for row in rows]))


def _text(value: object) -> str:
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def main() -> None:
    """Measure, print progress and write the results."""
    command = arguments()
    settings = TINY if command.tiny else FULL
    commit = command.commit or commit_of(Path(__file__).parent)
    command.output.mkdir(parents=True, exist_ok=True)
    parts = [part for part in ALL_PARTS if part.name in command.parts]
    if command.tiny:  # a CPU may be busy with other things
        parts = [replace(part, seconds=60 * command.minutes) for part in parts]
    outcomes = [Outcome(part.name) for part in parts]
    disable_progress_bar()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for index, outcome in enumerate(run_parts(parts, (settings, Path(folder)), 60 * command.minutes)):
            outcomes[index] = outcome
            write(command.output, commit, time.monotonic() - start, outcomes)
            print(
                f"{outcome.name}: {outcome.state}, {outcome.seconds:.0f} s", *outcome.faults, sep="\n    ", flush=True
            )


if __name__ == "__main__":
    main()
