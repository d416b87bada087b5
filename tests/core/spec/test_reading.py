from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mta_framework.spec.model_files import model_fault
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


def test_a_sweep_given_as_a_run_is_one_fault_that_names_the_command_for_it(write_spec: Write) -> None:
    path = write_spec(axes=[], baseline="KL")
    assert list(map(str, read_spec(path).faults)) == [
        f"{path}: is a sweep (got axes); expected the spec of one run. Use mta sweep for it."
    ]


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
    *listed, last = read_spec(path).faults
    assert [fault.where for fault in listed] == [f"evaluation.seeds.{index}" for index in range(100)]
    assert str(last).startswith(f"{path}: has more faults than the 100 that are listed")
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    "fields",
    [
        {f"traning{index}": 1 for index in range(3000)},
        {"x" * 1_000_000: 1},
        {"training": {"epochs": 1, "x" * 1_000_000: 1}},
        {"training": {"epochs": 1, "precision": "x" * 1_000_000}},
        {"evaluation": {"sets": {f"set{index}": {"pth": "a"} for index in range(3000)}}},
    ],
    ids=["unknown fields", "long name", "long name within", "long value", "faulty sections"],
)
def test_names_and_values_without_end_are_compared_to_known_ones_and_shown_within_bounds(
    write_spec: Write, fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = []

    def get_close_matches(name: str, *rest: Any, **options: Any) -> list[str]:
        compared.append(len(name))
        return []

    monkeypatch.setattr("difflib.get_close_matches", get_close_matches)
    faults = read_spec(write_spec(**fields)).faults
    assert len(compared) <= 300
    assert max(compared, default=0) <= 200
    assert 1 <= len(faults) <= 202
    assert max(len(str(fault)) for fault in faults) < 1000


def test_a_misspelt_name_gets_its_suggestion_in_a_crowd(write_spec: Write) -> None:
    faults = read_spec(write_spec(**{f"traning{index}": 1 for index in range(200)})).faults
    assert "Did you mean 'training'?" in str(faults[0])


@pytest.mark.parametrize("kind", ["pipe", "device", "socket"])
def test_a_spec_that_is_no_regular_file_is_a_fault_and_not_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "spec.json"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        socket.socket(socket.AF_UNIX).bind(str(path))
    (fault,) = read_spec(path).faults
    assert "it is a pipe, a socket or a device" in fault.problem


def test_a_file_too_large_for_a_spec_is_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    with path.open("wb") as file:
        file.truncate(2**40)  # a file with a hole: it takes no space
    (fault,) = read_spec(path).faults
    assert "it has more than 16,777,216 bytes" in fault.problem


@pytest.mark.parametrize("text", ['{"name": "a\\ud800"}', '{"\\udfff": 1}', '{"a": [{"b": "\\ud83d \\ude00"}]}'])
def test_half_a_character_is_a_fault_of_the_file_and_whole_ones_are_text(tmp_path: Path, text: str) -> None:
    path = tmp_path / "spec.json"
    path.write_text(text)
    (fault,) = read_spec(path).faults
    assert "is half a character" in fault.problem
    path.write_text(text.replace("\\ud800", "\\ud83d\\ude00"))
    if "ud83d\\ude00" in path.read_text():
        assert not any("half" in fault.problem for fault in read_spec(path).faults)


def test_a_setting_that_is_not_utf8_is_a_fault(write_spec: Write) -> None:
    (fault,) = read_spec(write_spec(), ["output_dir=runs\udcff"]).faults
    assert "is not valid UTF-8" in fault.problem


def test_a_name_that_is_too_long_is_reported_the_limit(write_spec: Write) -> None:
    (fault,) = read_spec(write_spec(name="x" * 101)).faults
    assert "at most 100 characters" in fault.expected


def test_a_model_that_cannot_be_read_is_a_fault_among_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, gguf = tmp_path / "model", tmp_path / "model.gguf"
    folder.mkdir()
    for file in (folder / "config.json", folder / "model.safetensors", gguf):
        file.write_bytes(b"{}")

    def refuse(path: Path, *_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    for path, problem in ((gguf, "cannot be read"), (folder, "has a config.json that cannot be read")):
        fault = model_fault(path, "teacher.path")
        assert str(fault).startswith(f"teacher.path: {problem}: ")
        assert "ermission denied" in str(fault)
