"""Small files of records are merged into larger ones: few maps, nothing lost, and readers go on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mta_framework.teacher_cache import store as store_module
from mta_framework.teacher_cache.store import RecordStore

from .records import Numbered, data, key, rows, shards

ROW = 300 + 44
"""Bytes of a record of the tests, with its key, offset and checksum."""


@pytest.fixture(autouse=True)
def small_sizes(monkeypatch):
    """Merged files have up to 10 records; four files of fewer than 5 may lie side by side."""
    monkeypatch.setattr(store_module, "_MERGED_BYTES", 10 * ROW)
    monkeypatch.setattr(store_module, "_MOST_SMALL", 4)


@pytest.fixture
def store(tmp_path):
    """A store with records 0 to 11 in six files."""
    store = RecordStore(tmp_path, Numbered())
    for index in range(0, 12, 2):
        store.add(rows(index, index + 2))
    return store


def reopened(folder):
    store = RecordStore(folder, Numbered())
    store.refresh()
    return store


def require_all(store, records):
    assert all(store.intact([key(index) for index in records]))
    assert [bytes(store.get(key(index))) for index in records] == [data(index) for index in records]


def flip(path, offset):
    content = bytearray(path.read_bytes())
    content[offset] ^= 0x10
    path.write_bytes(content)


def test_many_small_files_become_few_of_a_bounded_size_with_the_same_records(store, tmp_path):
    reader = reopened(tmp_path)
    store.merge_small()
    assert len(shards(tmp_path)) == 2
    assert max(path.stat().st_size for path in shards(tmp_path)) < 10 * ROW + 2000  # Arrow's header and footer
    for each in (store, reader, reopened(tmp_path)):
        require_all(each, range(12))
    reader.refresh()
    require_all(reader, range(12))


def test_few_files_and_large_ones_stay_as_they_are(tmp_path):
    store = RecordStore(tmp_path, Numbered())
    for first in range(0, 40, 10):
        store.add(rows(first, first + 10))
    for first in range(40, 44):
        store.add(rows(first, first + 1))
    before = {path: path.stat().st_mtime_ns for path in shards(tmp_path)}
    store.merge_small()
    assert {path: path.stat().st_mtime_ns for path in shards(tmp_path)} == before


def test_the_number_of_files_stays_bounded_however_many_are_added(tmp_path):
    store, most = RecordStore(tmp_path, Numbered()), 0
    for index in range(100):
        store.add(rows(index, index + 1))
        store.merge_small()
        most = max(most, len(shards(tmp_path)))
        assert len(store._maps) == len(shards(tmp_path))
    assert most <= 100 // 5 + 4 + 1  # large ones of at least half the size, and small ones
    require_all(reopened(tmp_path), range(100))


def test_of_records_with_the_same_key_the_one_in_use_is_kept(store, tmp_path):
    later = RecordStore(tmp_path, Numbered())  # which has not read what is there
    later.add([(key(0), b"later"), (key(12), b"new")])
    store.refresh()
    store.merge_small()
    content = b"".join(path.read_bytes() for path in shards(tmp_path))
    assert [content.count(key(index)) for index in range(13)] == [1] * 13
    assert bytes(reopened(tmp_path).get(key(0))) == data(0)
    assert bytes(reopened(tmp_path).get(key(12))) == b"new"


def test_files_with_the_same_records_are_merged_into_one_that_stays(tmp_path):
    RecordStore(tmp_path, Numbered()).add(rows(0, 2))
    (path,) = shards(tmp_path)  # named after its content
    for name in "abcd":
        path.with_name(f"{name}.arrow").write_bytes(path.read_bytes())
    store = reopened(tmp_path)
    store.merge_small()
    assert shards(tmp_path) == [path]
    require_all(store, range(2))
    require_all(reopened(tmp_path), range(2))


@pytest.mark.parametrize("removed", [None, 0, 1, 3])
def test_a_kill_at_any_moment_of_merging_loses_nothing(removed, store, tmp_path, monkeypatch):
    """Killed before the merged file has its name (None), or after so many small ones were removed."""
    unlink, replace, count = Path.unlink, os.replace, []

    def killed_unlink(path, missing_ok=False):
        if path.suffix == ".arrow":
            if len(count) == removed:
                raise KeyboardInterrupt
            count.append(path)
        unlink(path, missing_ok)

    def killed_replace(source, target):
        if removed is None and Path(target).suffix == ".arrow":
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", killed_unlink)
        patched.setattr(os, "replace", killed_replace)
        with pytest.raises(KeyboardInterrupt):
            store.merge_small()
    after = reopened(tmp_path)
    require_all(after, range(12))
    for index in range(12, 17):
        after.add(rows(index, index + 1))
    after.merge_small()
    assert len(shards(tmp_path)) <= 3
    require_all(reopened(tmp_path), range(17))


def test_a_damaged_file_is_left_out_of_the_merged_one_and_removed(store, tmp_path, caplog):
    path = next(path for path in shards(tmp_path) if key(4) in path.read_bytes())
    flip(path, path.read_bytes().index(data(4)))
    store.merge_small()
    assert path.name in caplog.text
    intact = [index for index in range(12) if index not in (4, 5)]
    for each in (store, reopened(tmp_path)):
        assert each.get(key(4)) is each.get(key(5)) is None
        require_all(each, intact)


def test_small_files_stay_where_there_is_no_room_to_merge_them(store, tmp_path, monkeypatch):
    before = shards(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    store.merge_small()
    assert shards(tmp_path) == before
    require_all(store, range(12))


def test_a_reader_whose_list_was_taken_before_the_merge_finds_the_records(store, tmp_path, monkeypatch):
    listed, shard_files = [], store_module.shard_files

    def list_then_merge(folder):
        listed.append(shard_files(folder))
        if len(listed) == 1:
            store.merge_small()
        return listed[-1]

    monkeypatch.setattr(store_module, "shard_files", list_then_merge)
    require_all(reopened(tmp_path), range(12))
    assert len(listed) == 2


def test_a_reader_that_verifies_after_the_merge_finds_the_records_in_the_merged_file(store, tmp_path):
    reader = reopened(tmp_path)
    store.merge_small()
    require_all(reader, range(12))
