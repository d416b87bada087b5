"""Which folders a teacher cache may not have, besides those of the specs in ``specs/bad``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mta_framework.spec.cache_locations import cache_location_faults
from mta_framework.spec.reading import read_spec


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """The folder of a teacher without weights in a cache; it has no records so far."""
    folder = tmp_path / "cache" / "teacher-0123"
    folder.mkdir(parents=True)
    (folder / "teacher.json").write_text("{}")
    return folder


@pytest.fixture
def faults_of(write_spec: Callable[..., Path], tmp_path: Path) -> Callable[..., list[str]]:
    """Gives the faults for a path of the teacher and one of its cache."""

    def faults(path: Path, cache: Path | None, **fields: Any) -> list[str]:
        section = {"path": str(path), "cache": {"path": None if cache is None else str(cache)}}
        reading = read_spec(write_spec(teacher=section, **fields))
        return [str(fault).replace(str(tmp_path), "TMP") for fault in cache_location_faults(reading)]

    return faults


def test_a_folder_that_is_pruned_with_the_teacher_is_refused(saved, faults_of, tmp_path):
    """The commands of a cache take such a folder for one teacher, and would list and delete it as a whole."""
    (fault,) = faults_of(tmp_path / "model", saved)
    problem = "holds teacher.json or records, as the folder of one teacher in a cache does"
    assert fault.startswith(f"teacher.cache.path: {problem} (got TMP/cache/teacher-0123);")
    (saved / "teacher.json").rename(saved / "server.json")
    (saved / "records").mkdir()
    assert len(faults_of(tmp_path / "model", saved)) == 1


@pytest.mark.parametrize("inner", [".", "cache", "a/b/../c"])
def test_no_model_has_the_cache_in_its_folder_even_behind_a_link(inner, faults_of, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "model")
    (fault,) = faults_of(tmp_path / "link", tmp_path / "model" / inner)
    assert "is in the folder of teacher.path" in fault
    (fault,) = faults_of(tmp_path / "elsewhere", tmp_path / "link" / inner, student={"path": str(tmp_path / "model")})
    assert "is in the folder of student.path" in fault


def test_the_folder_beside_models_is_one_for_a_cache(faults_of, tmp_path):
    (tmp_path / "model").mkdir()
    assert faults_of(tmp_path / "model", tmp_path) == []
    assert faults_of(tmp_path / "model", tmp_path / "model-cache") == []


def test_a_file_is_no_folder_and_has_none_inside(faults_of, tmp_path):
    (tmp_path / "file").write_text("")
    (fault,) = faults_of(tmp_path / "model", tmp_path / "file" / "cache")
    assert "is inside TMP/file, which is not a folder (got TMP/file/cache)" in fault


def test_a_run_folder_is_none_even_where_the_cache_has_its_default(faults_of, tmp_path):
    for cache in ("runs/run", "runs/run/student", "runs/other/../run/x"):
        (fault,) = faults_of(tmp_path / "model", tmp_path / cache)
        assert "is in the run folder" in fault
    assert faults_of(tmp_path / "model", tmp_path / "runs") == []
    assert len(faults_of(tmp_path / "model", None, name="teacher-cache")) == 1


def test_a_path_that_no_record_is_read_from_has_no_effect(saved, faults_of, tmp_path):
    assert faults_of(saved, tmp_path / "another") == []  # where the records of this teacher may be
    (saved / "records").mkdir()
    (fault,) = faults_of(saved, tmp_path / "another")
    assert fault == (
        "teacher.cache.path: has no effect, since the records of TMP/cache/teacher-0123 are read (got TMP/another); "
        "expected null, or TMP/cache, which that folder is in. Choose one of these."
    )
    assert faults_of(saved, saved.parent) == faults_of(saved, None) == []
