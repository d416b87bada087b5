"""The list of a checkpoint's files tells a whole one from a damaged one."""

from __future__ import annotations

import pytest

from mta_framework.training.checkpoints import damage, intact_checkpoints, publish, write_manifest


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "weights").write_bytes(b"12345")
    (tmp_path / "state.json").write_bytes(b"{}")
    write_manifest(tmp_path)
    return tmp_path


def test_a_folder_as_it_was_listed_is_whole(folder):
    assert damage(folder) is None


@pytest.mark.parametrize(
    ("meddle", "message"),
    [
        (lambda folder: (folder / "state.json").unlink(), "state.json is missing"),
        (lambda folder: (folder / "student/weights").write_bytes(b"1"), "student/weights has 1 bytes instead of 5"),
        (lambda folder: (folder / "files.json").unlink(), "files.json is missing"),
        (lambda folder: (folder / "files.json").write_text("[1]"), "files.json cannot be read ("),
        (lambda folder: (folder / "files.json").write_text("{"), "files.json cannot be read ("),
    ],
)
def test_damage_is_told(folder, meddle, message):
    meddle(folder)
    assert damage(folder).startswith(message)


def test_publishing_keeps_the_last_whole_checkpoints_and_drops_damaged_later_ones(tmp_path):
    for step in (1, 2, 9):
        (tmp_path / "partial" / f"checkpoint-{step}").mkdir(parents=True)
        (tmp_path / "partial" / f"checkpoint-{step}" / "state.json").write_text("{}")
        publish(tmp_path, step, keep=5)
    (tmp_path / "checkpoint-9" / "state.json").unlink()
    (tmp_path / "partial" / "checkpoint-3").mkdir(parents=True)
    publish(tmp_path, 3, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-2", "checkpoint-3"]
    assert intact_checkpoints(tmp_path) == [tmp_path / "checkpoint-2", tmp_path / "checkpoint-3"]
