"""Fetch the data of the paper's runs from the Hugging Face hub and place them beside the specs.

    python examples/paper/prepare.py

They are the files that MiniLLM and DistiLLM publish (data sets MiniLLM/dolly, self-inst, Vicuna and sinst). As in their
code, the first 1,000 rows of Dolly's raw file are the validation set. Files that are there already are left alone.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Source:
    """A file of the hub, of which some rows are taken.

    Args:
        repository: Id of the data set.
        file: Path within it.
        total: Number of its rows.
        part: The rows that are taken.
        field: Field of a spec that can name another location of these rows.
    """

    repository: str
    file: str
    total: int
    part: slice
    field: str


WHOLE = slice(None)
DATA = {
    "dolly/train.jsonl": Source("MiniLLM/dolly", "raw.jsonl", 12_435, slice(1000, None), "data.train.path"),
    "dolly/dev.jsonl": Source("MiniLLM/dolly", "raw.jsonl", 12_435, slice(1000), "data.validation.path"),
    "dolly/test.jsonl": Source("MiniLLM/dolly", "valid.jsonl", 500, WHOLE, "evaluation.sets.dolly.path"),
    "self_inst/test.jsonl": Source("MiniLLM/self-inst", "valid.jsonl", 242, WHOLE, "evaluation.sets.self_inst.path"),
    "vicuna/test.jsonl": Source("MiniLLM/Vicuna", "valid.jsonl", 80, WHOLE, "evaluation.sets.vicuna.path"),
    "sni/test.jsonl": Source("MiniLLM/sinst", "11_/valid.jsonl", 1694, WHOLE, "evaluation.sets.sni.path"),
}
"""File below ``data/`` -> where its rows come from."""

_ALPACA = re.compile(
    r"### Instruction:\n(?P<instruction>.*?)(?:\n\n### Input:\n(?P<input>.*?))?\n\n### Response:\s*$", re.DOTALL
)
"""The prompt that some of the files have in place of its parts."""


def main(folder: Path = HERE) -> None:
    """Place all files in ``folder/data``.

    Raises:
        SystemExit: Files cannot be fetched, or are not as expected; the message names all of them, and what to do.
    """
    missing, reasons = [], []
    for name, source in DATA.items():
        path = folder / "data" / name
        if path.exists():
            print(f"{path}: already there, left as it is")
            continue
        try:
            entries = list(rows(source))
            write(path, entries)
            print(f"{path}: {len(entries):,} rows")
        except Exception as error:  # of the network, the hub, or rows of another form
            missing.append(f"{path}, from {source.repository}/{source.file}; or --set {source.field}=FILE")
            reasons.append(str(error).split("\n", 1)[0])
    if missing:
        raise SystemExit(
            "\n".join([*missing, f"{len(missing)} files could not be fetched:", *dict.fromkeys(reasons)])
            + "\nPut JSON Lines files with the fields instruction, input and output there, or name others by --set."
        )


def rows(source: Source) -> Iterator[dict[str, Any]]:
    """Download a file and yield the rows that are taken.

    Raises:
        ValueError: It has another number of rows than was expected, or rows of another form.
    """
    path = Path(huggingface_hub.hf_hub_download(source.repository, source.file, repo_type="dataset"))
    lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    if len(lines) != source.total:
        raise ValueError(f"{source.repository}/{source.file} has {len(lines):,} rows, not {source.total:,}.")
    for line in lines[source.part]:
        yield row(json.loads(line))


def row(given: dict[str, Any]) -> dict[str, Any]:
    """The fields of a row that the specs read; instruction and input are taken out of the prompt where it has none.

    Raises:
        ValueError: It has neither.
    """
    fields: dict[str, Any] = given
    if "instruction" not in given:
        match = _ALPACA.search(str(given.get("prompt", "")))
        if match is None:
            raise ValueError(f"a row has neither an instruction nor an Alpaca prompt (got {', '.join(given)})")
        fields = match.groupdict(default="")
    return {"instruction": fields["instruction"], "input": fields.get("input") or "", "output": given["output"]}


def write(path: Path, entries: list[dict[str, Any]]) -> None:
    """Write JSON Lines, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".part")
    aside.write_text("".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries), encoding="utf-8")
    os.replace(aside, path)


if __name__ == "__main__":
    main()
