"""The list of a checkpoint's files tells a whole one from a damaged one."""

from __future__ import annotations

import hashlib
import json
import os
from types import SimpleNamespace

import pytest
import torch
from transformers import TrainerState

from mta_framework.errors import InputError, RunError
from mta_framework.storage import inner_files, write_manifest
from mta_framework.training import checkpoints
from mta_framework.training.checkpoints import (
    complete_checkpoints,
    damage,
    explain_unreadable,
    latest,
    publish,
    require_same_plan,
)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "weights").write_bytes(b"12345")
    (tmp_path / "state.json").write_bytes(b"{}")
    write_manifest(tmp_path, inner_files(tmp_path))
    return tmp_path


def write_partial(folder, step, **files):
    partial = folder / "partial" / f"checkpoint-{step}"
    partial.mkdir(parents=True, exist_ok=True)
    for name, content in {"state": "{}", **files}.items():
        (partial / f"{name}.json").write_text(content)


def test_a_folder_as_it_was_listed_is_whole(folder):
    assert damage(folder) is None
    entry = {"bytes": 5, "sha256": hashlib.sha256(b"12345").hexdigest()}
    assert json.loads((folder / "files.json").read_text())["student/weights"] == entry


@pytest.mark.parametrize(
    ("meddle", "message"),
    [
        (lambda folder: (folder / "state.json").unlink(), "state.json is missing"),
        (lambda folder: (folder / "student/weights").write_bytes(b"1"), "student/weights has 1 bytes instead of 5"),
        (
            lambda folder: (folder / "student/weights").write_bytes(b"12344"),
            "student/weights has another content than was written",
        ),
        (lambda folder: (folder / "files.json").unlink(), "files.json is missing"),
        (lambda folder: (folder / "files.json").write_text("[1]"), "files.json cannot be read ("),
        (lambda folder: (folder / "files.json").write_text("{"), "files.json cannot be read ("),
        (lambda folder: (folder / "files.json").write_text('{"state.json": 2}'), "files.json cannot be read ("),
    ],
)
def test_damage_is_reported(folder, meddle, message):
    meddle(folder)
    assert damage(folder).startswith(message)


def test_one_flipped_bit_is_damage_in_every_file_and_at_every_byte(folder):
    for name in ("student/weights", "state.json"):
        content = (folder / name).read_bytes()
        for index in range(len(content)):
            flipped = bytearray(content)
            flipped[index] ^= 1
            (folder / name).write_bytes(flipped)
            assert damage(folder) == f"{name} has another content than was written"
        (folder / name).write_bytes(content)
    assert damage(folder) is None


def publish_steps(folder, steps, keep, best_step):
    for step in steps:
        write_partial(folder, step, trainer_state=json.dumps({"best_global_step": best_step}))
        publish(folder, step, keep, best_step)


def test_publishing_keeps_the_best_checkpoint_besides_the_latest_ones(tmp_path):
    publish_steps(tmp_path, (2, 4, 6, 8), keep=2, best_step=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-2", "checkpoint-6", "checkpoint-8"]


@pytest.mark.parametrize("best", [4, None])
def test_a_checkpoint_needs_none_but_itself_and_the_best_one(best, tmp_path):
    publish_steps(tmp_path, (2, 4), 2, best)
    (tmp_path / "checkpoint-2" / "state.json").unlink()
    assert latest(tmp_path) == tmp_path / "checkpoint-4"


def test_a_checkpoint_is_not_continued_without_the_best_one_that_it_names(tmp_path):
    publish_steps(tmp_path, (2, 4), 2, best_step=2)
    (tmp_path / "checkpoint-2" / "state.json").unlink()
    with pytest.raises(InputError, match="of its best checkpoint checkpoint-2"):
        latest(tmp_path)


def test_publishing_keeps_the_last_whole_checkpoints_and_drops_damaged_and_later_ones(tmp_path, caplog):
    for step in (1, 2, 9):
        write_partial(tmp_path, step)
        publish(tmp_path, step, keep=5)
    (tmp_path / "checkpoint-9" / "state.json").unlink()
    write_partial(tmp_path, 3)
    publish(tmp_path, 3, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-2", "checkpoint-3"]
    assert complete_checkpoints(tmp_path) == [tmp_path / "checkpoint-2", tmp_path / "checkpoint-3"]
    assert "checkpoint-9 is damaged (state.json is missing) and is deleted" in caplog.text


def test_what_an_earlier_attempt_left_of_a_checkpoint_does_not_make_the_next_one_look_damaged(tmp_path):
    write_partial(tmp_path, 4, files="{}", stale="[]")
    write_partial(tmp_path, 4)
    publish(tmp_path, 4, keep=1)
    assert damage(tmp_path / "checkpoint-4") is None
    assert latest(tmp_path) == tmp_path / "checkpoint-4"


def test_a_checkpoint_reaches_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    events, fsync, rename = [], os.fsync, type(tmp_path).rename

    def synced(descriptor):
        events.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    def renamed(path, target):
        events.append("renamed")
        return rename(path, target)

    monkeypatch.setattr(checkpoints.bring_to_disk.__globals__["os"], "fsync", synced)
    monkeypatch.setattr(type(tmp_path), "rename", renamed)
    write_partial(tmp_path, 4)
    publish(tmp_path, 4, keep=1)
    partial = tmp_path / "partial" / "checkpoint-4"
    before = events[: events.index("renamed")]
    assert {str(partial), str(partial / "state.json"), str(partial / "files.json")} <= set(before)
    assert events[-1] == str(tmp_path)


def write_state(folder, **state):
    path = folder / "checkpoint-20"
    path.mkdir()
    TrainerState(**{"global_step": 20, "max_steps": 800, "epoch": 10.0, **state}).save_to_json(
        str(path / "trainer_state.json")
    )
    return path


def test_a_checkpoint_of_the_same_plan_is_continued(tmp_path):
    require_same_plan(write_state(tmp_path), 800, 2)


@pytest.mark.parametrize(
    ("state", "plan", "message"),
    [
        ({}, (1600, 4), "max_steps 800 instead of 1600, epoch 10 instead of 5"),
        ({"global_step": 21, "epoch": 10.5}, (800, 2), "global_step 21 instead of 20"),
    ],
)
def test_a_checkpoint_of_another_plan_is_refused_with_what_differs(tmp_path, state, plan, message):
    with pytest.raises(InputError) as caught:
        require_same_plan(write_state(tmp_path, **state), *plan)
    (fault,) = caught.value.faults
    assert fault.problem == f"is of a training with other steps (got {message})"


def test_a_checkpoint_that_cannot_be_read_is_not_told_to_be_deleted(folder):
    said = rf"^{folder}: cannot be read \(KeyError: 'a', in .*\)\. Look first at the disk"
    with pytest.raises(RunError, match=said), explain_unreadable(folder):
        raise KeyError("a")
    with pytest.raises(torch.OutOfMemoryError), explain_unreadable(folder):
        raise torch.OutOfMemoryError("CUDA out of memory.")


@pytest.mark.parametrize("state", [torch.ones(2), {"value": float("nan")}, {1, 2}])
def test_a_state_that_no_checkpoint_can_hold_is_refused_before_the_first_step(state):
    loss = SimpleNamespace(NAME="mine", state=lambda: state)
    message = r"^base loss 'mine': state\(\) must return what JSON can hold: .* \(got (TypeError|ValueError): "
    with pytest.raises(RunError, match=message):
        checkpoints.require_storable(SimpleNamespace(base_loss=loss), None)
    policy = SimpleNamespace(state=lambda: state)
    loss.state = lambda: {"steps": 3}
    checkpoints.require_storable(SimpleNamespace(base_loss=loss), None)
    with pytest.raises(RunError, match=r"^batch policy SimpleNamespace of base loss 'mine': state\(\) must return"):
        checkpoints.require_storable(SimpleNamespace(base_loss=loss), policy)
