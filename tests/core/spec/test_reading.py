from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mta_framework.spec.reading import read_spec
from mta_framework.spec.schema_text import phrase
from mta_framework.spec.validation_faults import faults_of

Write = Callable[..., Path]


def test_relative_paths_become_absolute_from_the_folder_of_the_spec(write_spec: Write, tmp_path: Path) -> None:
    spec = read_spec(write_spec(teacher={"path": "../models/teacher.gguf"}, data={"train": {"path": "a.jsonl"}})).spec
    assert spec is not None
    assert spec.teacher is not None
    assert spec.teacher.path == str(tmp_path.parent / "models" / "teacher.gguf")
    assert spec.data.train.path == str(tmp_path / "a.jsonl")
    assert spec.output_dir == str(tmp_path / "runs")


def test_a_missing_file_gives_one_fault_and_no_draft(tmp_path: Path) -> None:
    reading = read_spec(tmp_path / "none.json")
    assert (reading.spec, reading.draft, len(reading.faults)) == (None, None, 1)


def test_the_draft_keeps_all_that_is_sound(write_spec: Write) -> None:
    reading = read_spec(write_spec(seed="x", training={"epochs": 7, "batch_size": 0}, student={"hub": 3}))
    assert reading.spec is None
    assert reading.draft is not None
    assert (reading.draft.seed, reading.draft.training.epochs, reading.draft.training.batch_size) == (42, 7, 16)
    assert reading.sound("training", "epochs")
    assert not reading.sound("training", "batch_size")
    assert not reading.sound("student", "hub")


def test_a_draft_is_made_of_an_empty_object(tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    path.write_text("{}")
    reading = read_spec(path)
    assert reading.draft is not None
    assert [fault.where for fault in reading.faults] == ["name", "student", "data", "base_loss", "training"]


def test_a_contradiction_that_rests_on_a_faulty_field_is_not_reported(write_spec: Write) -> None:
    reading = read_spec(write_spec(training={"epochs": 0, "batch_size": 16, "micro_batch_size": "5"}))
    assert [fault.where for fault in reading.faults] == ["training.epochs", "training.micro_batch_size"]


def test_a_contradiction_beside_an_unrelated_fault_is_reported(write_spec: Write) -> None:
    reading = read_spec(write_spec(seed="x", training={"epochs": 1, "batch_size": 16, "micro_batch_size": 5}))
    assert [fault.where for fault in reading.faults] == ["seed", "training.micro_batch_size"]


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid")
    either: int | str | None = None
    share: float = Field(0.5, gt=0, le=1)
    names: list[str] = Field(["a"], min_length=1)


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("either", "an integer or a string or null"),
        ("share", "a number > 0 and <= 1"),
        ("names", "a non-empty list, each entry a string"),
    ],
)
def test_what_is_allowed_is_said_in_words(field: str, words: str) -> None:
    schema = Options.model_json_schema()
    assert phrase(schema, schema["properties"][field]) == words


def test_a_union_gives_one_fault_that_names_all_alternatives() -> None:
    with pytest.raises(ValidationError) as refusal:
        Options.model_validate({"either": 1.5}, strict=True)
    faults = faults_of(
        refusal.value, Options.model_json_schema(), lambda key_path: ".".join(map(str, key_path)), "option"
    )
    assert [str(fault) for fault in faults] == [
        "either: has the wrong type (got 1.5); expected an integer or a string or null. Correct the value."
    ]


@pytest.mark.parametrize("brackets", ["[" * 900 + "]" * 900, "[" * 200_000], ids=["parsable", "beyond the stack"])
def test_brackets_without_end_are_a_fault(write_spec: Write, brackets: str) -> None:
    path = write_spec()
    path.write_text(f'{{"name": {brackets}')
    (fault,) = read_spec(path).faults
    path.write_text(f'{{"name": {brackets}}}')
    (closed,) = read_spec(path).faults
    assert "JSON" in fault.problem
    assert "more than 50 levels" in closed.problem


@pytest.mark.parametrize(
    ("path", "reason"),
    [("x" * 6000, "file name too long"), ("~nobody-of-this-name/x", "could not determine home directory")],
    ids=["too long", "unknown home"],
)
def test_a_path_that_cannot_be_one_is_a_fault(write_spec: Write, path: str, reason: str) -> None:
    (fault,) = read_spec(write_spec(data={"train": {"path": path}})).faults
    assert fault.where == "data.train.path"
    assert fault.problem.startswith(f"is not a usable path ({reason}) (got ")


def test_a_spec_that_links_to_itself_is_a_fault(tmp_path: Path) -> None:
    loop = tmp_path / "loop.json"
    loop.symlink_to(loop)
    (fault,) = read_spec(loop).faults
    assert fault.where == str(loop)


def test_thousands_of_faults_take_no_time(write_spec: Write) -> None:
    path = write_spec(evaluation={"sets": {"a": {"path": "a.jsonl"}}, "seeds": ["x"] * 5000})
    start = time.process_time()
    assert len(read_spec(path).faults) == 5000
    assert time.process_time() - start < 5


def test_a_name_that_is_too_long_is_reported_the_limit(write_spec: Write) -> None:
    (fault,) = read_spec(write_spec(name="x" * 101)).faults
    assert "at most 100 characters" in fault.expected
