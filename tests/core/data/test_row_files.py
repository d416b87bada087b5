"""Data files: every form gives the same rows, every fault has its row, and no file fills the memory."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import datasets
import pyarrow.parquet
import pytest

from mta_framework import InputError
from mta_framework.data.records import read_records
from mta_framework.data.row_files import MAX_ROW_BYTES, file_rows
from mta_framework.spec.data import DatasetSection

ROWS = [{"prompt": f"{index} é\n\u2028", "completion": ["a", f"{'b' * index}"]} for index in range(40)]
"""``completion`` is a list throughout, as one column of a table has one type."""


def read(path, limit=None):
    return read_records(DatasetSection(path=str(path), limit=limit), "data.train")


def faults_of(path):
    with pytest.raises(InputError) as refusal:
        read(path)
    return [str(fault) for fault in refusal.value.faults]


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parquet(path):
    datasets.Dataset.from_list(ROWS).to_parquet(path)


FORMS = {
    "lines": lambda path: path.write_bytes(lines(ROWS)),
    "lines.gz": lambda path: path.write_bytes(gzip.compress(lines(ROWS))),
    "array": lambda path: path.write_text(json.dumps(ROWS)),
    "array, indented": lambda path: path.write_text(
        "\ufeff \n" + json.dumps(ROWS, indent=2, ensure_ascii=False) + "\n\n"
    ),
    "array.gz": lambda path: path.write_bytes(gzip.compress(json.dumps(ROWS).encode())),
    "parquet": parquet,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("limit", [None, 7])
def test_every_form_gives_the_same_rows_whatever_the_name_of_the_file(tmp_path, monkeypatch, form, limit):
    monkeypatch.setattr("mta_framework.data.row_files._CHUNK", 64)
    path = tmp_path / "rows[1]*.txt"
    FORMS[form](path)
    records = read(path, limit)
    assert [(record.prompt, list(record.references)) for record in records] == [
        (row["prompt"], row["completion"]) for row in ROWS[:limit]
    ]


@pytest.mark.parametrize(
    ("text", "location", "problem"),
    [
        (
            '[{"prompt": "a", "completion": "b"}, {"prompt": 5, "completion": ""}]',
            "row 2",
            "prompt has the wrong type",
        ),
        ('[{"prompt": "a", "completion": "b"}, 5]', "row 2", "must be an object (got 5)"),
        ('[{"prompt": "a", "completion": "b"}, {"prompt": "a"', "row 2", "not JSON, or cut off"),
        ('[{"prompt": "a", "completion": "b"}', "row 1", "cut off, behind this row (got '')"),
        ('[{"prompt": "a", "completion": "b"} {}]', "row 1", "behind this row (got '{}]')"),
        ('[{"prompt": "a", "completion": "b"}] more', "row 1", "behind this row (got 'more')"),
        ('[{"prompt": "a", "completion": "b"},]', "row 2", "not JSON, or cut off"),
        ("[" * 100_000, "row 1", "not JSON"),
        ("[]", "there are no rows", ""),
    ],
)
def test_a_fault_in_an_array_is_named_by_file_and_row(tmp_path, text, location, problem):
    path = tmp_path / "rows.json"
    path.write_text(text)
    fault = faults_of(path)[-1]
    assert location in fault
    assert problem in fault
    assert str(path) in fault


ROW = {"prompt": "a", "completion": "b"}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "text",
    [
        json.dumps(ROW, indent=2),
        "\ufeff\n" + json.dumps({"version": 1, "data": [ROW, ROW]}, indent=2) + "\n",
        "\n".join(json.dumps(ROW, indent=2) for _ in range(50)),
        '{"prompt": "a",\n "completion": "b"}\n',
        '{"prompt": "a",\n "prompt": "b", "completion": "b"}\n',
        "{\n" + '"prompt": "a",\n' * 100,
    ],
    ids=["one", "a table", "many", "two lines", "a key twice", "cut off"],
)
def test_objects_over_several_lines_are_one_fault_that_says_what_the_file_is(tmp_path, text, packed):
    path = tmp_path / "rows.json"
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    assert faults_of(path) == [
        f"data.train: begins with a JSON object over several lines (got {path}); expected one JSON object per line, or "
        "a JSON array of objects. Write every row in one line (jq -c does), or put all rows into one array."
    ]


@pytest.mark.parametrize("first", ['{"prompt": "a"', '{"prompt": "a"} {', "{5}", "{'prompt': 'a'}"])
def test_a_first_line_that_is_no_json_is_a_fault_of_its_line(tmp_path, first):
    path = tmp_path / "rows.jsonl"
    path.write_text(first + "\n" + json.dumps(ROW) + "\n")
    (fault,) = faults_of(path)
    assert f"data.train: {path}:1: the line is not" in fault


def test_a_key_that_stands_twice_is_a_fault_and_the_other_rows_are_read(tmp_path):
    good, bad = '{"prompt": "a", "completion": "b"}', '{"prompt": "a", "completion": "b", "prompt": "c"}'
    nested = '{"messages": [{"role": "user", "role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}'
    for name, text in {"lines": f"{good}\n{bad}\n{good}\n5\n", "array": f"[{good}, {bad}, {good}, 5]"}.items():
        path = tmp_path / name
        path.write_text(text)
        first, second = faults_of(path)
        assert "the key 'prompt' stands twice in one object; each key once per object" in first.replace("expected ", "")
        assert ("rows.jsonl:2" if name == "lines" else "row 2") in first.replace("lines:", "rows.jsonl:")
        assert "must be an object (got 5)" in second
    path.write_text(nested)
    assert "the key 'role' stands twice" in faults_of(path)[0]


def test_keys_that_are_not_used_are_counted_where_they_hold_something(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [
        {"instruction": "a", "output": "b", "context": "c", "id": 0},
        {"instruction": "a", "input": "x", "output": "b"},
    ]
    rows += [{"instruction": "a", "output": "b", "context": "", "id": None}]
    path.write_bytes(lines(rows))
    assert read(path).unused == {"context": 1, "id": 1}
    conversation = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    path.write_bytes(lines([{"messages": conversation, "tools": [{"name": "t"}], "source": "web"}]))
    assert read(path).unused == {"source": 1}


@pytest.mark.parametrize(
    "damage", [lambda content: content[:-20], lambda content: content[:30] + b"\0\0" + content[32:]]
)
@pytest.mark.parametrize("form", ["lines.gz", "array.gz"])
def test_a_damaged_file_is_a_fault(tmp_path, form, damage):
    path = tmp_path / "rows"
    FORMS[form](path)
    path.write_bytes(damage(path.read_bytes()))
    assert f"cannot read {path}" in faults_of(path)[-1]


def test_a_parquet_file_without_its_end_is_a_fault(tmp_path):
    path = tmp_path / "rows"
    parquet(path)
    path.write_bytes(path.read_bytes()[:-20])
    assert f"cannot read {path}" in faults_of(path)[-1]


def test_a_parquet_file_without_rows_is_sound_and_has_none(tmp_path, capfd):
    path = tmp_path / "rows"
    schema = pyarrow.schema({"prompt": pyarrow.string(), "completion": pyarrow.string()})
    pyarrow.parquet.write_table(schema.empty_table(), path)
    assert faults_of(path) == [f"data.train: there are no rows in {path}; expected at least one row. Check the source."]
    assert capfd.readouterr() == ("", ""), "no library has a say"


def test_columns_of_parquet_that_are_not_used_may_have_any_type(tmp_path):
    path = tmp_path / "rows"
    table = pyarrow.Table.from_pylist([ROW, ROW])
    for kind in (pyarrow.map_(pyarrow.string(), pyarrow.string()), pyarrow.list_view(pyarrow.int8())):
        table = table.append_column(str(kind), pyarrow.nulls(2, kind))
    pyarrow.parquet.write_table(table, path)
    assert [record.prompt for record in read(path)] == ["a", "a"]


def test_a_map_of_parquet_is_an_object_with_the_nulls_of_its_row(tmp_path):
    path = tmp_path / "rows"
    arguments = pyarrow.map_(pyarrow.string(), pyarrow.struct({"hours": pyarrow.int8(), "days": pyarrow.int8()}))
    table = pyarrow.table({"arguments": pyarrow.array([[("next", {"hours": 1}), ("last", None)]], arguments)})
    pyarrow.parquet.write_table(table, path)
    assert [row for _, row in file_rows(path, "data.train")] == [{"arguments": {"next": {"hours": 1}, "last": None}}]


def test_a_column_of_parquet_that_stands_twice_is_a_fault(tmp_path):
    path = tmp_path / "rows"
    columns = [pyarrow.array([text]) for text in "abc"]
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays(columns, ["prompt", "completion", "completion"]), path)
    assert faults_of(path) == [
        f"data.train: cannot read {path} (the column 'completion' stands twice); expected sound Parquet. Repair it."
    ]


@pytest.mark.parametrize("name", ["a::b", "hf:", "file:"])
def test_a_path_of_parquet_is_never_an_address(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path = Path(name, "rows.parquet")
    path.parent.mkdir()
    parquet(tmp_path / "rows")
    path.write_bytes(Path("rows").read_bytes())
    assert len(read(path)) == len(ROWS)


def test_parquet_is_read_piece_by_piece(tmp_path):
    path = tmp_path / "rows"
    rows = [{"prompt": os.urandom(5_000).hex(), "completion": str(index)} for index in range(1000)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=100, compression="none")
    tracemalloc.start()
    for index, (location, row) in enumerate(file_rows(path, "data.train")):
        assert (location, row) == (f"{path} row {index + 1}", rows[index])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < path.stat().st_size / 3


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "socket"])
def test_what_is_no_regular_file_is_refused_and_not_waited_for(tmp_path, kind):
    path = tmp_path / "rows.jsonl"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        import socket

        socket.socket(socket.AF_UNIX).bind(str(path))
    with pytest.raises(InputError, match=r"data\.train: is not a regular file"):
        list(file_rows(path, "data.train"))


@pytest.mark.parametrize("form", ["lines", "lines.gz", "array"])
def test_a_row_of_200_mb_is_refused_by_its_size_in_bounded_memory(tmp_path, form):
    path = tmp_path / "rows"
    start, end, comma = (b"[", b"]", b",\n") if form == "array" else (b"", b"", b"\n")
    with gzip.open(path, "wb", compresslevel=1) if form.endswith("gz") else path.open("wb") as file:
        good = b'{"prompt": "a", "completion": "b"}'
        file.write(start + good + comma + b'{"prompt": "')
        for _ in range(200):
            file.write(b"x" * 2**20)
        file.write(b'", "completion": "b"}' + comma + b"5" + end + b"\n")
    code = (
        "import resource, sys\nfrom pathlib import Path\nfrom mta_framework.data.row_files import file_rows\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for location, row in file_rows(Path(sys.argv[1]), 'data.train'): print(location, row)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    *shown, kilobytes = done.stdout.splitlines()
    where = f"{path} row 2" if form == "array" else f"{path}:2"
    assert shown[1] == f"{where} the row has more than {MAX_ROW_BYTES:,} bytes"
    assert shown[2:] == ([] if form == "array" else [f"{path}:3 5"])
    assert int(kilobytes) < 5 * MAX_ROW_BYTES / 1024


CALLS = [{"city": "Oslo"}, {"unit": "C", "day": {"next": [{"hours": 1}, {"minutes": 2}]}}, {}]
"""Arguments of calls that have different keys."""


def calling(arguments):
    calls = [{"function": {"name": "weather", "arguments": arguments}}]
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": None, "tool_calls": calls}]
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"properties": arguments}}}
    return {"messages": turns, "tools": [tool]}


def arguments_and_properties(path):
    records = read(path)
    calls = [record.answer.fields["tool_calls"] for record in records]
    tools = [record.tools for record in records]
    return (
        [call["function"]["arguments"] for [call] in calls],
        [tool["function"]["parameters"]["properties"] for [tool] in tools],
    )


def test_nulls_with_which_a_table_fills_objects_of_different_keys_are_not_read(tmp_path):
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([calling(arguments) for arguments in CALLS]), path)
    assert arguments_and_properties(path) == (CALLS, CALLS)


@pytest.mark.parametrize("form", ["lines", "json columns"])
def test_a_null_that_a_row_itself_has_is_an_argument(tmp_path, form):
    path = tmp_path / "rows"
    written = [{"city": "Oslo", "unit": None}, {"city": None}, {}]
    rows = [calling(arguments) for arguments in written]
    if form == "lines":
        path.write_bytes(lines(rows))
    else:
        text, of_any_kind = datasets.Value("string"), datasets.Json()
        turn = {"role": text, "content": text, "tool_calls": datasets.List(of_any_kind)}
        features = datasets.Features({"messages": datasets.List(turn), "tools": of_any_kind})
        datasets.Dataset.from_list(rows, features=features).to_parquet(path)
    assert arguments_and_properties(path) == (written, written)
