"""Records on disk: complete or absent, read without being loaded, and never used once they are damaged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest

from mta_framework.errors import RunError
from mta_framework.teacher_cache.store import RecordStore

from .records import Numbered, data, key, rows, shards

WORKER = Path(__file__).with_name("store_worker.py")


@pytest.fixture
def store(tmp_path):
    """A store with records 0, 1 and 2 in a first file, and 3 in a second."""
    store = RecordStore(tmp_path, Numbered())
    store.add(rows(0, 3))
    store.add(rows(3, 4))
    return store


def reopened(folder):
    store = RecordStore(folder, Numbered())
    store.refresh()
    return store


def shard_with(folder, index):
    return next(path for path in shards(folder) if key(index) in path.read_bytes())


def flip(path, offset):
    content = bytearray(path.read_bytes())
    content[offset] ^= 0x10
    path.write_bytes(content)


def worker(mode, folder, name="a"):
    return subprocess.Popen([sys.executable, WORKER, mode, folder, name], stdout=subprocess.PIPE, text=True)


def test_records_are_read_as_they_were_added_by_this_object_and_by_another(store, tmp_path):
    for reader in (store, reopened(tmp_path)):
        assert len(reader) == 4
        assert [bytes(reader.get(key(index))) for index in range(4)] == [data(index) for index in range(4)]
        assert key(4) not in reader
        assert reader.get(key(4)) is None
        assert reader.intact([key(4), key(0), key(0)]) == [False, True, True]
        assert reader.get(key(0)).readonly


def test_empty_data_is_a_record_and_no_rows_are_no_file(tmp_path):
    store = RecordStore(tmp_path, Numbered())
    store.add([])
    assert not list(tmp_path.iterdir())
    store.add([(key(0), b"")])
    assert bytes(reopened(tmp_path).get(key(0))) == b""


def test_a_view_stays_valid_when_its_file_has_gone(store, tmp_path):
    view = store.get(key(1))
    for path in shards(tmp_path):
        path.unlink()
    assert bytes(view) == data(1)
    assert bytes(store.get(key(2))) == data(2)


def test_of_records_with_the_same_key_the_first_is_used(store, tmp_path):
    other = RecordStore(tmp_path, Numbered())  # which has not read what is there
    os.utime(shard_with(tmp_path, 0), ns=(0, 0))
    other.add([(key(0), b"later"), (key(9), b"new")])
    assert bytes(reopened(tmp_path).get(key(0))) == data(0)
    assert bytes(reopened(tmp_path).get(key(9))) == b"new"
    before = shards(tmp_path)
    store.refresh()
    store.add([(key(0), b"later"), (key(9), b"new")])
    assert shards(tmp_path) == before


def test_the_files_of_another_kind_are_not_seen(store, tmp_path):
    other = RecordStore(tmp_path, Numbered("numbered-fedcba9876543210"))
    other.refresh()
    assert len(other) == 0
    assert other.num_bytes == 0
    assert store.num_bytes == sum(path.stat().st_size for path in shards(tmp_path))


def test_the_kind_is_described_beside_the_records_and_again_where_that_is_damaged(store, tmp_path):
    path = store.folder / "kind.json"
    assert json.loads(path.read_text()) == {"kind": "numbered", "layer": 3}
    for index, damage in enumerate([lambda: path.write_text('{"kind": '), path.unlink]):
        damage()
        store.add(rows(7 + index, 8 + index))
        assert json.loads(path.read_text()) == {"kind": "numbered", "layer": 3}
        damage()
        reopened(tmp_path)
        assert json.loads(path.read_text()) == {"kind": "numbered", "layer": 3}


def test_reading_creates_nothing_and_marks_the_time_of_last_use(store, tmp_path):
    os.utime(store.folder / "kind.json", (1000, 1000))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    reader = reopened(tmp_path)
    reader.get(key(0))
    reader.intact([key(1)])
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert time.time() - (store.folder / "kind.json").stat().st_mtime < 60
    empty = RecordStore(tmp_path / "absent", Numbered())
    empty.refresh()
    assert (empty.num_bytes, len(empty), (tmp_path / "absent").exists()) == (0, 0, False)


@pytest.mark.parametrize("region", ["data", "checksum"])
def test_a_flipped_byte_of_a_record_is_found_and_its_file_is_removed_by_name(store, tmp_path, caplog, region):
    path = shard_with(tmp_path, 1)
    content = path.read_bytes()
    checksums = pa.ipc.open_file(pa.py_buffer(content)).get_batch(0).column("crc").buffers()[1].to_pybytes()
    flip(path, content.index(data(1)) + 7 if region == "data" else content.index(checksums[:12]) + 5)
    reader = reopened(tmp_path)
    assert bytes(reader.get(key(0))) == data(0)
    assert reader.get(key(1)) is None
    assert [record.getMessage() for record in caplog.records] == [
        f"teacher cache: {path} is damaged, and its records are computed anew (a record does not fit its checksum)"
    ]
    assert not path.exists()
    assert [key(index) in reader for index in range(4)] == [False, False, False, True]
    assert bytes(reader.get(key(3))) == data(3)
    reader.add(rows(0, 3))
    assert bytes(reopened(tmp_path).get(key(1))) == data(1)
    assert bytes(reader.get(key(1))) == data(1)


def test_a_record_whose_key_is_damaged_is_absent(store, tmp_path):
    path = shard_with(tmp_path, 1)
    flip(path, path.read_bytes().index(key(1)))
    reader = reopened(tmp_path)
    assert reader.intact([key(0), key(1), key(2)]) == [True, False, True]
    assert reader.get(key(1)) is None
    reader.add(rows(1, 2))
    assert bytes(reopened(tmp_path).get(key(1))) == data(1)


def test_no_flipped_byte_of_a_file_changes_what_is_read(tmp_path):
    """Offsets in every part of the file: schema, keys, bounds, data, checksums, footer and the marks at both ends."""
    RecordStore(tmp_path, Numbered()).add(rows(0, 3, size=20))
    [path] = shards(tmp_path)
    content = path.read_bytes()
    absent = 0
    for offset in range(0, len(content), 3):
        flip(path, offset)
        reader = reopened(tmp_path)
        records = [reader.get(key(index)) for index in range(3)]
        assert all(record in (None, data(index, 20)) for index, record in enumerate(records)), offset
        absent += None in records
        path.write_bytes(content)
    assert absent > len(content) / 9


def test_a_truncated_file_is_damaged_at_any_length(tmp_path, caplog):
    RecordStore(tmp_path, Numbered()).add(rows(0, 3))
    [path] = shards(tmp_path)
    content = path.read_bytes()
    for length in range(0, len(content), 23):
        path.write_bytes(content[:length])
        reader = reopened(tmp_path)
        assert len(reader) == 0
        assert not path.exists()
        assert f"{path} is damaged" in caplog.records[-1].getMessage()


def test_other_arrow_files_are_damage(tmp_path, store):
    path = shards(tmp_path)[0]
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, pa.schema({"key": pa.binary(32)})) as writer:
        writer.write_table(pa.table({"key": pa.array([key(0)], pa.binary(32))}))
    assert len(reopened(tmp_path)) < 4
    assert not path.exists()


def test_records_in_a_second_file_are_used_where_the_first_is_damaged(store, tmp_path):
    RecordStore(tmp_path, Numbered()).add([*rows(1, 2), *rows(8, 9)])
    first = shard_with(tmp_path, 0)
    flip(first, first.read_bytes().index(data(1)))
    os.utime(first, ns=(0, 0))
    reader = reopened(tmp_path)
    assert bytes(reader.get(key(1))) == data(1)
    assert reader.get(key(0)) is None


def test_the_start_of_a_run_finds_what_was_damaged_since_it_was_mapped(store, tmp_path):
    path = shard_with(tmp_path, 1)
    os.truncate(path, 100)
    assert store.intact([key(index) for index in range(4)]) == [False, False, False, True]
    assert not path.exists()
    shard_with(tmp_path, 3).unlink()
    assert store.intact([key(3)]) == [False]


def test_what_cannot_be_computed_anew_is_left_out_and_stays(tmp_path, caplog):
    RecordStore(tmp_path, Numbered()).add(rows(0, 3))
    (path,) = shards(tmp_path)
    content = bytearray(path.read_bytes())
    content[content.index(rows(1, 2)[0][1])] ^= 1
    path.write_bytes(content)
    store = RecordStore(tmp_path, Numbered(), is_remade=False)
    store.refresh()
    assert store.get(rows(1, 2)[0][0]) is None
    assert path.exists()
    assert "is damaged, and its records are left out" in caplog.text


def test_a_damaged_file_that_cannot_be_removed_is_left_out_and_reported_once(store, tmp_path, monkeypatch, caplog):
    path = shard_with(tmp_path, 3)
    flip(path, path.read_bytes().index(data(3)))

    def refuse(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", refuse)
    monkeypatch.setattr(os, "utime", refuse)
    reader = reopened(tmp_path)
    for _ in range(3):
        reader.refresh()
        assert reader.get(key(3)) is None
        assert reader.intact([key(3), key(0)]) == [False, True]
    assert len(caplog.records) == 1
    assert path.exists()


def test_a_folder_that_cannot_be_written_to_is_reported_in_a_sentence(tmp_path):
    (tmp_path / "records").write_text("a file")
    with pytest.raises(RunError, match=r"cannot write to .*numbered-\w+ \(.*\); make room, or set teacher.cache"):
        RecordStore(tmp_path, Numbered()).add(rows(0, 1))


def test_a_full_disk_is_reported_and_leaves_no_part_of_a_file(tmp_path, store):
    before = sorted(tmp_path.rglob("*"))
    process = worker("full", tmp_path)
    message, _ = process.communicate(timeout=60)
    assert "teacher cache: cannot write to" in message
    assert "File too large" in message
    assert sorted(tmp_path.rglob("*")) == before
    store.add(rows(4, 10))
    assert len(reopened(tmp_path)) == 10


def test_files_left_by_a_killed_process_are_never_read_and_removed_in_time(tmp_path):
    process = worker("forever", tmp_path)
    written = -1
    while written < 2:
        written = int(process.stdout.readline())
    process.kill()
    process.wait()
    reader = reopened(tmp_path)
    assert len(reader) >= 3
    assert all(reader.intact([key(index) for index in range(len(reader))]))
    fresh, old = reader.folder / ".fresh.part", reader.folder / ".old.part"
    for leftover in (fresh, old):
        leftover.write_bytes(b"half")
    os.utime(old, (0, 0))
    reader.add(rows(100, 101))
    assert fresh.exists()
    assert not old.exists()


def test_two_processes_add_the_same_texts_at_once(tmp_path):
    processes = [worker("beside", tmp_path, name) for name in "ab"]
    reader = RecordStore(tmp_path, Numbered())
    while any(process.poll() is None for process in processes):
        reader.refresh()
        assert all(reader.intact([key(index) for index in range(100) if key(index) in reader]))
    assert [process.returncode for process in processes] == [0, 0]
    reader.refresh()
    assert [bytes(reader.get(key(index))) for index in range(100)] == [data(index) for index in range(100)]


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the memory of the process from /proc")
def test_a_large_file_is_mapped_and_not_loaded(tmp_path):
    size = 1_000_000
    RecordStore(tmp_path, Numbered()).add(rows(0, 100, size))

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = resident()
    reader = reopened(tmp_path)
    assert bytes(reader.get(key(50))[:32]) == data(50, 32)
    assert resident() - before < 10 * size
    assert all(reader.intact([key(index) for index in range(100)]))
    assert resident() - before < 10 * size
