"""Room on the disk: looked at before anything is made, and shown in the plan."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from mta_framework.cli.plan import _cache_lines
from mta_framework.errors import RunError
from mta_framework.teacher_cache.cache_plan import CachePlan, free_bytes, require_room
from mta_framework.teacher_cache.kinds import RecordKind
from mta_framework.types import RecordSlot

MIB = 2**20
FINAL = RecordKind(RecordSlot("final_states"), "float32", 8)


@pytest.fixture
def disk(monkeypatch, tmp_path):
    """A disk with 10 MiB of free space, which holds the folder of the test."""
    asked = []

    def usage(path):
        asked.append(Path(path))
        return namedtuple("Usage", "total used free")(100 * MIB, 90 * MIB, 10 * MIB)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    return asked


def test_the_disk_is_that_of_the_nearest_folder_that_exists(disk, tmp_path, monkeypatch):
    assert free_bytes(tmp_path / "cache" / "teacher-0123") == free_bytes(tmp_path) == 10 * MIB
    monkeypatch.chdir(tmp_path)
    assert free_bytes(Path("runs/teacher-cache")) == 10 * MIB
    assert disk == [tmp_path] * 3


@pytest.mark.usefixtures("disk")
def test_what_does_not_fit_is_refused_with_both_sizes(tmp_path):
    require_room(tmp_path / "cache", 10 * MIB)
    with pytest.raises(RunError) as refused:
        require_room(tmp_path / "cache", 10 * MIB + 1)
    assert str(refused.value) == (
        f"teacher cache: {tmp_path / 'cache'} needs 11 MiB more, and 10 MiB are free on its disk. Make room, or set "
        "teacher.cache.path to another disk."
    )


def planned(missing, has_head=True, free=10 * MIB):
    return CachePlan(
        Path("cache"), 5, 3 if missing else 0, 40, ((FINAL, 8 * MIB, missing),), 3 * MIB, has_head, free, 1.0, ()
    )


def test_the_plan_says_what_is_free_where_anything_is_missing():
    lacking = list(_cache_lines("teacher", planned(8 * MIB, False)))
    assert "10.0 MiB are free on that disk." in list(_cache_lines("teacher", planned(8 * MIB)))
    assert "10.0 MiB are free on that disk, which is too little." in lacking
    assert not [line for line in _cache_lines("teacher", planned(0)) if "free" in line]
    assert "10.0 MiB are free on that disk." in list(_cache_lines("teacher", planned(0, False)))


def test_the_head_is_to_be_made_until_it_is_there():
    assert planned(8 * MIB).missing_bytes == 8 * MIB
    assert planned(8 * MIB, has_head=False).missing_bytes == 11 * MIB
    assert planned(8 * MIB).num_bytes == 11 * MIB
