"""Whatever stands in a spec, reading it never raises, and every fault is in the house's form."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mta_framework.spec.reading import read_spec

FULL: dict[str, Any] = {
    "name": "run",
    "seed": 1,
    "output_dir": "runs",
    "teacher": {"hub": "teacher", "revision": "main", "dtype": "auto"},
    "student": {"config": {"model_type": "llama"}, "tokenizer": "tok", "lora": {"rank": 4, "target_modules": ["q"]}},
    "data": {"train": {"hub": "rows", "split": "train"}, "validation": {"path": "valid.jsonl", "limit": 3}},
    "base_loss": {"name": "kl", "params": {"temperature": 2}},
    "alignment": {"spans": {"name": "words"}, "terms": [{"name": "dsa", "weight": 1}]},
    "training": {"epochs": 1, "batch_size": 16, "micro_batch_size": 8, "trackers": ["wandb", "mlflow"]},
    "evaluation": {
        "sets": {"a": {"path": "a.jsonl"}, "b": {"path": "b.jsonl"}},
        "seeds": [1, 2],
        "metrics": [{"name": "rouge_l"}, {"name": "x"}],
    },
}


def key_paths(value: Any, at: tuple = ()) -> list[tuple]:
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [key_path for key, entry in entries for key_path in [(*at, key), *key_paths(entry, (*at, key))]]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
mutations = st.lists(st.tuples(st.sampled_from(key_paths(FULL)), st.none() | st.just("added") | values), max_size=4)


def mutated(changes: list[tuple[tuple, Any]]) -> dict[str, Any]:
    document = copy.deepcopy(FULL)
    for (*way, last), value in changes:
        holder: Any = document
        try:
            for key in way:
                holder = holder[key]
            if value == "added":
                holder[f"{last}x"] = value
            else:
                holder[last] = value
        except (KeyError, IndexError, TypeError):
            continue
    return document


@pytest.fixture(scope="module")
def spec_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mutations") / "spec.json"


@settings(max_examples=150, deadline=None, derandomize=True)
@given(mutations)
def test_a_mutated_spec_is_sound_or_has_faults_and_always_a_draft(spec_file: Path, changes: list) -> None:
    spec_file.write_text(json.dumps(mutated(changes)))
    reading = read_spec(spec_file)
    assert (reading.spec is None) == bool(reading.faults)
    assert reading.draft is not None
    for fault in reading.faults:
        assert fault.where
        assert "(got" in fault.problem or fault.problem in ("is missing", "is incomplete")
        assert fault.expected
        assert fault.hint.endswith((".", "?"))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from(key_paths(FULL)), values), max_size=3))
def test_overrides_never_raise(spec_file: Path, changes: list) -> None:
    spec_file.write_text(json.dumps(FULL))
    overrides = [f"{'.'.join(map(str, key_path))}={json.dumps(value)}" for key_path, value in changes]
    reading = read_spec(spec_file, overrides)
    assert (reading.spec is None) == bool(reading.faults)


def test_the_unmutated_spec_is_sound(spec_file: Path) -> None:
    spec_file.write_text(json.dumps(FULL))
    assert read_spec(spec_file).faults == ()
