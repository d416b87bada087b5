"""A run that goes on with another content of a plugin file says so."""

from __future__ import annotations

import pytest

from mta_framework.runs.folder import RunFolder
from mta_framework.runs.plugin_files import changed_plugin_files, note_plugin_files

FIRST, MENDED = {"/plugins/six.py": "a", "/plugins/same.py": "s"}, {"/plugins/six.py": "b", "/plugins/same.py": "s"}


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path)


def stopped_after_a_checkpoint(folder):
    (folder.path / "checkpoints" / "checkpoint-3").mkdir(parents=True, exist_ok=True)


def test_a_file_that_changed_after_a_checkpoint_is_named(folder, caplog):
    note_plugin_files(folder, FIRST)
    stopped_after_a_checkpoint(folder)
    note_plugin_files(folder, MENDED)
    said = ["Steps were computed by different contents of six.py, changed before the run went on."]
    assert caplog.messages == [*changed_plugin_files(folder)] == said
    note_plugin_files(folder, FIRST)  # taken back: some steps are of the other content all the same
    assert [*changed_plugin_files(folder)] == said


def test_a_file_that_came_after_a_checkpoint_is_named(folder):
    note_plugin_files(folder, {})
    stopped_after_a_checkpoint(folder)
    note_plugin_files(folder, {"/plugins/new.py": "a"})
    note_plugin_files(folder, {})
    assert [*changed_plugin_files(folder)] == [
        "Steps were computed by different contents of new.py, changed before the run went on."
    ]


def test_a_change_before_the_first_checkpoint_is_none(folder, caplog):
    note_plugin_files(folder, FIRST)
    note_plugin_files(folder, MENDED)
    stopped_after_a_checkpoint(folder)
    note_plugin_files(folder, MENDED)
    assert [*changed_plugin_files(folder)] == caplog.messages == []


def test_runs_without_plugin_files_leave_none(folder):
    note_plugin_files(folder, {})
    assert [*changed_plugin_files(folder)] == []
    assert [*folder.path.iterdir()] == []
