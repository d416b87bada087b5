"""The campaign of faults in its short form: every promise is tried, and held."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
@pytest.mark.longest
def test_the_short_campaign_holds_every_promise():
    # A new interpreter: the campaign forks, which a process with threads should not.
    command = [sys.executable, str(BENCHMARKS / "faults.py"), "--rounds", "2", "--seed", "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    rows = re.findall(r"^\| (.+) \| ([\d,]+) \| ([\d,]+) \|$", done.stdout, re.MULTILINE)
    assert {promise: (tried, held) for promise, tried, held in rows} == {
        "a killed run ends with the weights, log, responses and scores of a straight one": ("2", "2"),
        "a run that is killed at an operation on a file ends as a straight one": ("2", "2"),
        "a full disk ends a run with a sentence, and without a traceback": ("2", "2"),
        "with room again, it ends as a straight one": ("2", "2"),
        "damage to any file of a finished run is reported with its file, or changes nothing": ("2", "2"),
        "a mutated spec is sound, or refused with a sentence for each fault, in bounded time": ("200", "200"),
    }


def test_a_broken_promise_is_counted_and_printed(monkeypatch, capsys):
    monkeypatch.syspath_prepend(BENCHMARKS)
    from fault_workload import Ended
    from faults import Promise, sentence_missing

    promise = Promise("it holds")
    promise.count("one fault", None)
    promise.count("another", sentence_missing(Ended(1, "Traceback (most recent call last)", 1.0)))
    promise.count("a third", sentence_missing(Ended(-11, "", 1.0)))
    assert (promise.tried, len(promise.broken)) == (3, 2)
    assert capsys.readouterr().out.startswith("not held: another: a traceback")
    assert sentence_missing(Ended(2, "data.train: is missing", 1.0)) is None
    assert sentence_missing(Ended(1, "", 1.0)) == "no sentence"


def test_the_same_seed_gives_the_same_mutations(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    from mutated_specs import mutated_text

    document = {"name": "a", "data": {"train": {"path": "x"}}, "seeds": [1, 2]}
    texts = [[mutated_text(document, random.Random(seed)) for seed in range(50)] for _ in range(2)]
    assert texts[0] == texts[1]
    assert len(set(texts[0])) > 20
    assert document == {"name": "a", "data": {"train": {"path": "x"}}, "seeds": [1, 2]}
