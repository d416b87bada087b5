"""What binding an evaluation by itself says of a command line whose inputs are missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mta_framework import InputError
from mta_framework.registry import Registry, discover
from mta_framework.runs.folder import RunFolder
from mta_framework.runs.manifest import export_faults
from mta_framework.runs.plugin_binding import bind, bind_evaluation
from mta_framework.spec.evaluate_request import EvaluateRequest, read_request
from mta_framework.storage import inner_files, write_manifest


@pytest.fixture(scope="module")
def registry() -> Registry:
    return discover()


@pytest.fixture
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run that is trained, with a manifest, whose set lies beside it."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "kl"
    (folder / "student").mkdir(parents=True)
    (folder / "student" / "config.json").write_text('{"model_type": "llama"}')
    (folder / "student" / "model.safetensors").write_bytes(b"weights")
    write_manifest(folder, inner_files(folder))
    run = {"name": "kl", "student": {"hub": "gpt2"}, "evaluation": {"sets": {"dolly": {"path": "../../dolly.jsonl"}}}}
    (folder / "spec.json").write_text(json.dumps(run))
    (tmp_path / "dolly.jsonl").write_text('{"instruction": "a", "output": "b"}\n')
    return folder


def faults(registry: Registry, target: str, **options: Any) -> list[str]:
    with pytest.raises(InputError) as refusal:
        bind_evaluation(read_request(EvaluateRequest(target, **options)), registry)
    return [str(fault) for fault in refusal.value.faults]


@pytest.mark.usefixtures("run_folder")
def test_a_data_set_without_its_name_is_the_only_fault(registry: Registry) -> None:
    assert faults(registry, "runs/kl", data=["data/test.jsonl"]) == [
        "--data data/test.jsonl: is not a data set (got 'data/test.jsonl'); expected NAME=FILE, each NAME once, "
        "e.g. test=test.jsonl. Write it in this form."
    ]


@pytest.mark.usefixtures("run_folder")
def test_a_sound_run_is_bound(registry: Registry) -> None:
    assert list(bind_evaluation(read_request(EvaluateRequest("runs/kl")), registry).spec.evaluation.sets) == ["dolly"]


def test_a_missing_set_is_said_to_come_from_the_run_or_from_the_command_line(
    run_folder: Path, registry: Registry, tmp_path: Path
) -> None:
    run_folder.rename(tmp_path / "moved")
    (from_run,) = faults(registry, "moved")
    assert from_run.startswith("evaluation.sets.dolly.path: does not exist (got ")
    assert from_run.endswith(
        " The spec.json of the run gives it: put the file back, or give the set by --data NAME=FILE."
    )
    for options in ({"data": ["dolly=no.jsonl"]}, {"overrides": ["evaluation.sets.dolly.path=no.jsonl"]}):
        (given,) = faults(registry, "moved", **options)
        assert given.endswith(" Check the path; it is relative to the working directory.")


def test_a_student_without_its_weights_has_the_remedy_that_a_resume_gives(run_folder: Path, registry: Registry) -> None:
    (run_folder / "student" / "model.safetensors").unlink()
    expected = [str(fault) for fault in export_faults(RunFolder(run_folder))]
    assert len(expected) == 1
    assert "model.safetensors: is missing" in expected[0]
    assert faults(registry, "runs/kl") == expected


def test_so_has_one_that_is_the_teacher_of_another_run_by_its_path(run_folder: Path, registry: Registry) -> None:
    (run_folder / "student" / "model.safetensors").unlink()
    spec = {
        "name": "next",
        "teacher": {"path": "runs/kl/student"},
        "student": {"hub": "gpt2"},
        "data": {"train": {"path": "dolly.jsonl"}},
        "base_loss": {"name": "kl"},
        "training": {"epochs": 1},
    }
    path = run_folder.parents[1] / "next.json"
    path.write_text(json.dumps(spec))
    with pytest.raises(InputError) as refusal:
        bind(path, registry)
    assert list(refusal.value.faults) == list(export_faults(RunFolder(run_folder)))


def test_a_model_that_no_run_exported_is_judged_by_its_files(run_folder: Path, registry: Registry) -> None:
    (run_folder / "student" / "model.safetensors").unlink()
    (run_folder / "files.json").unlink()
    (fault,) = faults(registry, "runs/kl")
    assert fault.startswith("model.path: has no weights (got ")
