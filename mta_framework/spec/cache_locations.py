"""Checks that a teacher cache has a folder of its own, by the paths of a spec alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mta_framework.errors import Fault
from mta_framework.spec.locations import folder_problem
from mta_framework.spec.model_files import RECORDS, SAVED_TEACHER, is_kept_teacher, kept_records
from mta_framework.spec.reading import RawSpec
from mta_framework.spec.run import RunSpec


def cache_location_faults(reading: RawSpec[RunSpec]) -> Iterator[Fault]:
    """Yield a fault for every teacher cache whose folder belongs to something else, or is not read.

    Deleting, moving or uploading the folder of a model or a run would take such a cache with it, and `mta cache prune`
    would delete the folder of a teacher together with the caches inside it.

    Args:
        reading: The spec as a whole, with all of its teachers.
    """
    draft = reading.draft
    if draft is None:
        return
    for name in draft.teacher_names:
        view, key_path = draft.with_teacher(name), ("teachers", name) if name else ("teacher",)
        if view.teacher is None or not view.teacher.keeps_records or not reading.sound(*key_path, "cache", "path"):
            continue
        given = None if view.teacher.cache is None else view.teacher.cache.path
        where = reading.where((*key_path, "cache", "path"))
        problem = None if given is None else _problem(reading, view.teacher_cache)
        if problem is None and _is_within(view.teacher_cache, draft.folder) and _is_named(reading):
            problem = "is in the run folder"
        if problem is not None:
            hint = "Choose another folder, and move the records that this one has there."
            hint = hint if given is not None else "Choose another name for the run, or give a path."
            yield Fault(where, f"{problem} (got {view.teacher_cache})", "a folder that only teacher caches use", hint)
        elif given is not None and (kept := _kept_elsewhere(view)) is not None and reading.sound(*key_path, "path"):
            problem = f"has no effect, since the records of {kept} are read (got {given})"
            yield Fault(where, problem, f"null, or {kept.parent}, which that folder is in", "Choose one of these.")


def _problem(reading: RawSpec[RunSpec], folder: Path) -> str | None:
    if problem := folder_problem(folder):
        return problem
    if is_kept_teacher(folder):
        return f"holds {SAVED_TEACHER} or {RECORDS}, as the folder of one teacher in a cache does"
    assert reading.draft is not None
    paths = {name: section.path for name, section in reading.draft.teacher_sections.items()}
    paths["student"] = reading.draft.student.path
    for name, path in paths.items():
        if path is not None and reading.sound(*name.split("."), "path") and _is_within(folder, path):
            return f"is in the folder of {name}.path"
    return None


def _is_within(folder: Path, outer: Path | str) -> bool:
    """Whether a folder, existing or not, is another one or inside it, links followed."""
    inner, above = folder.resolve(), Path(outer).resolve()
    return inner == above or above in inner.parents


def _is_named(reading: RawSpec[RunSpec]) -> bool:
    return reading.sound("output_dir") and reading.sound("name")


def _kept_elsewhere(view: RunSpec) -> Path | None:
    """The folder of a teacher without weights whose records are read, where it is not in the cache."""
    assert view.teacher is not None
    if view.teacher.path is None or view.teacher.server is not None:
        return None
    kept = kept_records(Path(view.teacher.path))
    return None if kept is None or kept.resolve().parent == view.teacher_cache.resolve() else kept
