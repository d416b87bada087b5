"""Pushing to the hub, against a stand-in: what is sent, what is refused first, and failures that lose nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import constants

from mta_framework.storage import inner_files, write_manifest


class Hub:
    """Stands in for ``HfApi``: keeps what it is asked, and fails on demand."""

    def __init__(self):
        self.created, self.uploaded, self.failure = [], [], None

    def create_repo(self, name, *, private, exist_ok):
        if self.failure == "create":
            raise OSError("401 Client Error.\nInvalid token \x1b[31m")
        self.created.append((name, private, exist_ok))
        return SimpleNamespace(repo_id=name if "/" in name else f"me/{name}")

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        if self.failure == "upload":
            raise ConnectionError("the line is cut")
        self.uploaded.append((repo_id, sorted(path.name for path in folder_path.iterdir()), commit_message))
        return SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1")


@pytest.fixture
def hub(monkeypatch):
    hub = Hub()
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "secret")
    monkeypatch.setattr(constants, "is_offline_mode", lambda: False)
    return hub


def finish(folder):
    (folder / "student").mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "README.md"):
        (folder / "student" / name).write_text("{}")
    (folder / "report.json").write_text("{}")
    exported = inner_files(folder / "student")
    write_manifest(folder, {f"student/{name}": path for name, path in exported.items()})
    return folder


@pytest.mark.parametrize(("options", "private"), [((), True), (("--public",), False)])
def test_a_finished_run_is_uploaded_with_its_card_to_a_private_repository(mta, hub, tmp_path, options, private):
    result = mta("push", finish(tmp_path / "runs" / "small"), "small", *options)
    assert result.stdout == "Pushed: https://hub/me/small/commit/1\n"
    assert hub.created == [("small", private, True)]
    files = ["README.md", "config.json", "model.safetensors"]
    assert hub.uploaded == [("me/small", files, "Upload small, distilled with mta-framework")]


def test_a_damaged_student_is_not_pushed(mta, hub, tmp_path):
    run = finish(tmp_path / "runs" / "small")
    (run / "student" / "model.safetensors").write_text("{]")
    result = mta("push", run, "small")
    assert result.exit_code == 2
    assert "model.safetensors: has another content than was written; expected the file as the run" in result.stderr
    assert (hub.created, hub.uploaded) == ([], [])


def test_an_unfinished_run_is_not_pushed(mta, hub, tmp_path):
    result = mta("push", tmp_path, "small")
    assert result.exit_code == 2
    assert "RUN: holds no finished run" in result.stderr
    assert hub.created == []


@pytest.mark.parametrize(
    ("name", "missing", "message"),
    [
        ("a/b/c", None, "is not the name of a repository (got 'a/b/c')"),
        (
            "small",
            "network",
            "cannot be reached: HF_HUB_OFFLINE is set; expected access to the hub. Unset it, or push later",
        ),
        ("small", "token", "cannot be written to without a token; expected a token with write access. Log in by"),
    ],
)
def test_what_cannot_be_pushed_is_refused_before_the_run_begins(
    mta,
    hub,
    spec_file,
    pipeline,
    monkeypatch,
    name,
    missing,
    message,
):
    if missing == "network":
        monkeypatch.setattr(constants, "is_offline_mode", lambda: True)
    if missing == "token":
        monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    result = mta("run", spec_file, "--push-to-hub", name)
    assert result.exit_code == 2
    assert f"--push-to-hub: {message}" in result.stderr
    assert pipeline.arguments == hub.created == []


def test_a_repository_that_the_hub_refuses_stops_the_run_before_it_begins(mta, hub, spec_file, pipeline):
    hub.failure = "create"
    result = mta("run", spec_file, "--push-to-hub", "you/small")
    assert result.exit_code == 2
    assert "--push-to-hub: cannot be opened on the hub (got 'you/small': 401 Client Error.)" in result.stderr
    assert "secret" not in result.output
    assert pipeline.arguments == []


def test_a_run_is_pushed_when_it_is_finished(mta, hub, spec_file, pipeline):
    finish(spec_file.parent / "runs" / "plain")
    result = mta("run", spec_file, "--push-to-hub", "small")
    assert result.stdout.endswith("Pushed: https://hub/me/small/commit/1\n")
    assert (len(pipeline.arguments), len(hub.uploaded)) == (1, 1)
    assert hub.created == [("small", True, True)]


def test_a_failed_upload_says_that_the_run_is_complete_and_how_to_push_it(mta, hub, spec_file, pipeline):
    folder = finish(spec_file.parent / "runs" / "plain")
    hub.failure = "upload"
    result = mta("run", spec_file, "--push-to-hub", "small")
    assert result.exit_code == 1
    assert "Report: " in result.stdout
    assert (
        "me/small: the upload failed (the line is cut). The run is complete and nothing of it is lost." in result.stderr
    )
    assert f"mta push {folder} me/small" in result.stderr
    assert "The run failed" not in result.stderr


def test_no_field_of_a_spec_pushes(mta, hub, spec_file):
    for field in ("push_to_hub", "hub_model_id"):
        spec = json.loads(spec_file.read_text())
        spec["training"][field] = "me/small"
        spec_file.write_text(json.dumps(spec))
        result = mta("check", spec_file)
        assert result.exit_code == 2
        assert f"training.{field}: is not a field" in result.stderr


def test_a_dry_run_has_nothing_to_push(mta, spec_file):
    result = mta("run", spec_file, "--dry-run", "--push-to-hub", "small")
    assert result.exit_code == 2
    assert "--push-to-hub has no effect with --dry-run." in result.stderr


def test_the_command_finds_what_it_needs_of_the_hub_in_a_process_of_its_own(tmp_path):
    folder = finish(tmp_path / "runs" / "small")
    command = [sys.executable, "-m", "mta_framework", "push", folder, "small"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    assert done.returncode == 2
    assert "cannot be reached: HF_HUB_OFFLINE is set" in done.stderr
