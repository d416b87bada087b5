"""What the command line of an evaluation becomes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mta_framework import InputError
from mta_framework.spec.evaluate_request import EvaluateRequest, read_request
from mta_framework.spec.evaluation_spec import EvaluationSpec

RUN: dict[str, Any] = {
    "name": "kl",
    "student": {"hub": "gpt2"},
    "data": {"template": "chat", "template_options": {"date_string": "today"}},
    "training": {"precision": "bf16"},
    "evaluation": {
        "sets": {"dolly": {"path": "/data/dolly.jsonl"}},
        "models": ["student", "teacher"],
        "seeds": [1, 2],
        "temperature": 1.0,
    },
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run_folder(folder: Path) -> Path:
    """A run whose training is done."""
    path = folder / "runs" / "kl"
    (path / "student").mkdir(parents=True)
    (path / "spec.json").write_text(json.dumps(RUN))
    return path


def spec_of(target: str, **options: Any) -> EvaluationSpec:
    reading = read_request(EvaluateRequest(target, **options))
    assert reading.faults == ()
    assert reading.spec is not None
    return reading.spec


def faults_of(target: str, **options: Any) -> list[str]:
    reading = read_request(EvaluateRequest(target, **options))
    assert reading.spec is None
    return [str(fault) for fault in reading.faults]


def test_a_run_gives_its_student_and_the_settings_of_its_evaluation(run_folder: Path, folder: Path) -> None:
    spec = spec_of("runs/kl")
    assert (spec.name, spec.folder) == ("kl", str(folder / "evaluations" / "kl"))
    assert (spec.model.path, spec.model.dtype, spec.template) == (str(run_folder / "student"), "bfloat16", "chat")
    assert {name: part.path for name, part in spec.evaluation.sets.items()} == {"dolly": "/data/dolly.jsonl"}
    assert (spec.evaluation.seeds, spec.evaluation.temperature, spec.evaluation.top_p) == ([1, 2], 1.0, 1.0)


@pytest.mark.parametrize(("data", "key"), [({}, "teacher"), ({"teacher_field": "subject"}, "subject")])
def test_the_key_that_names_teachers_is_that_of_the_run(run_folder: Path, data: dict[str, str], key: str) -> None:
    (run_folder / "spec.json").write_text(json.dumps({**RUN, "data": {**RUN["data"], **data}}))
    assert spec_of("runs/kl").teacher_field == key


@pytest.mark.usefixtures("run_folder")
def test_options_come_before_the_settings_of_the_run_and_overrides_before_options(folder: Path) -> None:
    spec = spec_of(
        "runs/kl",
        data=["one=a.jsonl", "two=../b.jsonl"],
        seeds="7,8",
        metrics=["rouge_l", "exact_match"],
        template="alpaca",
        dtype="float16",
        output="results/hard set",
        overrides=["evaluation.temperature=0.5", "evaluation.seeds=[9]"],
    )
    sets = {name: part.path for name, part in spec.evaluation.sets.items()}
    assert sets == {"one": str(folder / "a.jsonl"), "two": str(folder.parent / "b.jsonl")}
    assert [metric.name for metric in spec.evaluation.metrics] == ["rouge_l", "exact_match"]
    assert (spec.evaluation.seeds, spec.evaluation.temperature) == ([9], 0.5)
    assert (spec.template, spec.model.dtype) == ("alpaca", "float16")
    assert (spec.name, spec.folder) == ("hard-set", str(folder / "results" / "hard set"))


@pytest.mark.parametrize(
    ("target", "kind", "name"),
    [
        ("gpt2", "hub", "gpt2"),
        ("org/Model-1.5B", "hub", "Model-1.5B"),
        ("models/tiny/", "path", "tiny"),
        ("models/a b.Q4.gguf", "path", "a-b.Q4"),
        ("models/missing", "path", "missing"),
        ("/no/such/model", "path", "model"),
    ],
)
def test_a_model_is_a_path_or_an_id_on_the_hub(folder: Path, target: str, kind: str, name: str) -> None:
    (folder / "models" / "tiny").mkdir(parents=True)
    (folder / "models" / "a b.Q4.gguf").touch()
    spec = spec_of(target, data=["test=t.jsonl"])
    given = str((folder / target).resolve()) if kind == "path" else target
    assert getattr(spec.model, kind) == given
    assert spec.name == name


def test_a_model_needs_data() -> None:
    (fault,) = faults_of("gpt2")
    assert fault.startswith("--data: must be given unless the target is a run with an evaluation; ")


@pytest.mark.usefixtures("run_folder")
def test_a_run_without_evaluation_needs_data_too(folder: Path) -> None:
    (folder / "runs" / "kl" / "spec.json").write_text(json.dumps({**RUN, "evaluation": None}))
    assert faults_of("runs/kl")[0].startswith("--data: must be given")
    assert spec_of("runs/kl", data=["t=t.jsonl"]).evaluation.seeds == [10, 20, 30, 40, 50]


def test_all_faults_come_at_once_each_called_as_it_was_typed() -> None:
    faults = faults_of(
        "gpt2",
        data=["no-file", "t=a.jsonl", "t=b.jsonl", "a b=c.jsonl"],
        seeds="1,x",
        template="vicuna",
        overrides=["evaluation.temprature=1", "model.dtype=float8"],
    )
    assert sorted(fault.split(" (got")[0] for fault in faults) == [
        "--data a b: has an invalid name",
        "--data no-file: is not a data set",
        "--data t=b.jsonl: repeats 't'",
        "--seeds: has the wrong type",
        "--set evaluation.temprature: is not a field",
        "--set model.dtype: is not one of the choices",
        "template: is not one of the choices",
    ]


def test_folders_of_another_kind_are_refused(run_folder: Path) -> None:
    (run_folder / "student").rmdir()
    with pytest.raises(InputError, match=r"TARGET: is a run without a trained student"):
        read_request(EvaluateRequest("runs/kl"))
    (run_folder / "spec.json").write_text('{"model": {}}')
    with pytest.raises(InputError, match=r"TARGET: is not the folder of a run"):
        read_request(EvaluateRequest("runs/kl"))
    (run_folder / "spec.json").write_text('{"student"')
    with pytest.raises(InputError, match=r"spec.json:1:11: is not JSON"):
        read_request(EvaluateRequest("runs/kl"))


def test_a_run_spec_that_was_edited_by_hand_is_checked_as_any_other(run_folder: Path) -> None:
    edited = {**RUN, "data": 3, "training": {"precision": [16]}, "evaluation": {**RUN["evaluation"], "seeds": "all"}}
    (run_folder / "spec.json").write_text(json.dumps(edited))
    assert [fault.split(" (got")[0] for fault in faults_of("runs/kl")] == ["evaluation.seeds: has the wrong type"]


@pytest.mark.usefixtures("run_folder")
def test_template_options_are_those_of_the_run_or_set() -> None:
    assert spec_of("runs/kl").template_options == {"date_string": "today"}
    spec = spec_of("runs/kl", overrides=["template_options.enable_thinking=false"])
    assert spec.template_options == {"date_string": "today", "enable_thinking": False}
    assert spec_of("gpt2", data=["test=a.jsonl"]).template_options == {}
    (fault,) = faults_of("gpt2", data=["test=a.jsonl"], overrides=["template_options.tokenize=true"])
    assert "template_options.tokenize" in fault
    assert "must not be given: it comes from rows, tokenizer or framework (got true)" in fault
