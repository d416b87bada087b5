"""Reading data sets: every kind of row, and every fault with its place."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from datasets import Dataset

from mta_framework.data.records import read_records
from mta_framework.data.rows import Instruction, Message, Record
from mta_framework.errors import InputError
from mta_framework.spec.data import DatasetSection

Write = Callable[[Sequence[object]], Path]


def read(path: Path, limit: int | None = None) -> list[Record]:
    return read_records(DatasetSection(path=str(path), limit=limit), "data.train")


def faults_of(path: Path, limit: int | None = None) -> list[str]:
    with pytest.raises(InputError) as caught:
        read(path, limit)
    return [str(fault) for fault in caught.value.faults]


def test_instruction_rows_have_a_task_an_optional_input_and_references(write_rows: Write) -> None:
    rows = [
        {"instruction": "Add.", "input": "1 1", "output": "2", "category": "sums"},
        {"instruction": "Greet.", "output": ["Hi", "Hello"]},
        {"instruction": "Say nothing.", "input": None, "output": ""},
    ]
    assert read(write_rows(rows)) == [
        Record(Instruction("Add.", "1 1"), ("2",)),
        Record(Instruction("Greet."), ("Hi", "Hello")),
        Record(Instruction("Say nothing."), ("",)),
    ]


def test_keys_are_renamed_before_they_are_read(write_rows: Write) -> None:
    rows = [
        {"instruction": "Add.", "context": "1 1", "response": "2", "category": "sums"},
        {"instruction": "Greet.", "response": "Hi"},
    ]
    section = DatasetSection(path=str(write_rows(rows)), rename_columns={"context": "input", "response": "output"})
    records = read_records(section, "data.train")
    assert records == [Record(Instruction("Add.", "1 1"), ("2",)), Record(Instruction("Greet."), ("Hi",))]
    assert records.unused == {"category": 1}


def test_two_keys_cannot_be_read_as_one() -> None:
    section = DatasetSection.model_construct(path="a.jsonl", rename_columns={"a": "input", "b": "input", "c": "output"})
    assert [(entry.at, entry.hint) for entry in section.contradictions()] == [
        ("rename_columns", "Name one key that is read as input.")
    ]


def test_names_can_be_swapped(write_rows: Write) -> None:
    section = DatasetSection(
        path=str(write_rows([{"output": "Add.", "instruction": "2"}])),
        rename_columns={"output": "instruction", "instruction": "output"},
    )
    assert read_records(section, "data.train") == [Record(Instruction("Add."), ("2",))]


def test_faults_of_renaming_name_the_key(write_rows: Write) -> None:
    rows = [{"instruction": "a", "response": "b"}, {"instruction": "a", "response": "b", "output": "c"}]
    section = DatasetSection(path=str(write_rows(rows)), rename_columns={"response": "output"})
    with pytest.raises(InputError, match=r":2: 'response' is to be read as output, which the row has, too; expected"):
        read_records(section, "data.train")
    section = DatasetSection(path=str(write_rows(rows[:1])), rename_columns={"response": "output", "ctx": "input"})
    with pytest.raises(InputError, match=r"^data\.train\.rename_columns: names keys that no row has \(got ctx\); exp"):
        read_records(section, "data.train")
    (fault,) = faults_of(write_rows(rows[:1]))
    assert "output is missing (got instruction, response)" in fault
    assert fault.endswith("Correct or remove the row, or set rename_columns.")


def test_completion_rows_are_ready_prompts(write_rows: Write) -> None:
    rows = [{"prompt": "Q: 日本語?\nA:", "completion": " 😀"}, {"prompt": "Q", "completion": ["a", "b"]}]
    assert read(write_rows(rows)) == [Record("Q: 日本語?\nA:", (" 😀",)), Record("Q", ("a", "b"))]


def test_the_last_message_is_the_reference(write_rows: Write) -> None:
    turns = [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello")]
    row = {"messages": [{"role": role, "content": content} for role, content in turns]}
    assert read(write_rows([row])) == [
        Record((Message("system", "Be brief."), Message("user", "Hi")), ("Hello",)),
    ]


def test_a_row_that_is_complete_as_one_kind_may_have_a_stray_key_of_another(write_rows: Write) -> None:
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    assert read(write_rows([{"prompt": "Hi", "messages": messages}])) == [Record((Message("user", "Hi"),), ("Hello",))]


def test_byte_order_mark_windows_line_ends_and_blank_lines_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "windows.jsonl"
    row = json.dumps({"prompt": "a\r\nb\u2028c", "completion": "d"}, ensure_ascii=False).encode()
    path.write_bytes(b"\xef\xbb\xbf" + row + b"\r\n\r\n  \r\n" + row)
    assert read(path) == [Record("a\r\nb\u2028c", ("d",))] * 2


def test_limit_takes_the_first_rows_and_reads_no_further(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n\n{"prompt": "c", "completion": "d"}\nbroken\n')
    assert [record.prompt for record in read(path, limit=2)] == ["a", "c"]
    assert "rows.jsonl:4" in faults_of(path, limit=3)[0]


def test_a_truncated_line_is_named_by_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "cut.jsonl"
    path.write_bytes(b'{"prompt": "a", "completion": "b"}\n{"prompt": "a", "compl')
    (fault,) = faults_of(path)
    assert fault.startswith(f"data.train: {path}:2: ")
    assert "cut off" in fault


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([1], "must be an object"),
        ({"text": "a"}, "no known keys (got text)"),
        ({"instruction": "a", "response": "b"}, "output is missing (got instruction, response)"),
        ({"prompt": "a", "completion": "b", "instruction": "a", "output": "b"}, "several kinds"),
        ({"instruction": 3, "output": "b"}, "instruction has the wrong type (got 3)"),
        ({"instruction": "a", "input": ["x"], "output": "b"}, "input has the wrong type"),
        ({"instruction": "a", "output": None}, "output has the wrong type (got None)"),
        ({"instruction": "a", "output": []}, "output is an empty list"),
        ({"instruction": "a", "output": ["b", 3]}, "output[1] has the wrong type (got 3)"),
        ({"prompt": "", "completion": "b"}, "prompt is empty"),
        ({"prompt": "a\ud83d", "completion": "b"}, "half a character"),
        ({"messages": "hi"}, "at least 2 turns"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "at least 2 turns"),
        ({"messages": [{"role": "user", "content": "a"}] * 2}, "must be the assistant's (got role 'user')"),
        ({"messages": [{"role": "user"}, {"role": "assistant", "content": "a"}]}, "messages[0] must be an object"),
        (
            {"messages": [{"role": "user", "content": [1]}, {"role": "assistant", "content": "a"}]},
            "messages[0].content has the wrong type",
        ),
    ],
)
def test_a_faulty_row_says_what_is_wrong(write_rows: Write, row: object, expected: str) -> None:
    (fault,) = faults_of(write_rows([row]))
    assert expected in fault


def test_lines_that_are_not_utf8_or_too_deep_are_faults(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes('{"prompt": "é"}\n'.encode("latin-1") + b"[" * 100_000 + b"\n")
    first, second = faults_of(path)
    assert "not UTF-8 (byte 13)" in first
    assert "rows.jsonl:2" in second


def test_rows_of_another_kind_than_the_first_are_faults(write_rows: Write) -> None:
    path = write_rows([{"prompt": "a", "completion": "b"}, {"instruction": "a", "output": "b"}])
    (fault,) = faults_of(path)
    assert f"{path}:2: the row has instruction, output, unlike {path}:1 (prompt, completion)" in fault


def test_all_faults_are_reported_up_to_twenty_and_the_rest_counted(write_rows: Write) -> None:
    good = {"prompt": "a", "completion": "b"}
    faults = faults_of(write_rows([good, *[{}] * 23, good]))
    assert len(faults) == 21
    assert ":2: " in faults[0]
    assert ":21: " in faults[19]
    assert "3 more rows" in faults[20]


def test_missing_file_folder_and_empty_file_are_input_errors(tmp_path: Path) -> None:
    assert "cannot read" in faults_of(tmp_path / "none.jsonl")[0]
    assert "is not a regular file" in faults_of(tmp_path)[0]
    (tmp_path / "empty.jsonl").write_bytes(b"\xef\xbb\xbf\n \n")
    assert "no rows" in faults_of(tmp_path / "empty.jsonl")[0]


def test_hub_rows_are_read_like_file_rows_and_named_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def load_dataset(hub: str, **options: object) -> Dataset:
        asked.update(options, hub=hub)
        return Dataset.from_list([{"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": None}])

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    section = DatasetSection(hub="someone/set", split="train", revision="v1", limit=1)
    assert read_records(section, "data.train") == [Record("a", ("b",))]
    assert asked == {"hub": "someone/set", "split": "train", "revision": "v1"}
    with pytest.raises(InputError, match=r"data\.train: someone/set row 1: completion has the wrong type"):
        read_records(section.model_copy(update={"limit": None}), "data.train")


def test_nulls_with_which_the_hub_fills_objects_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = [[{"name": "f", "arguments": {name: 1}}] for name in ("a", "b")]
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}]
    rows = Dataset.from_list([{"messages": [turns[0], {**turns[1], "tool_calls": call}]} for call in calls])
    monkeypatch.setattr("datasets.load_dataset", lambda hub, **options: rows)
    records = read_records(DatasetSection(hub="someone/set", split="train"), "data.train")
    assert [record.answer.fields["tool_calls"] for record in records if record.answer] == calls


def test_a_hub_set_that_cannot_be_loaded_is_an_input_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*_: object, **__: object) -> None:
        raise ConnectionError("no route\nto the hub")

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    with pytest.raises(InputError, match=r"data\.validation: cannot load split 'dev' of 'a/b' .*no route\)"):
        read_records(DatasetSection(hub="a/b", split="dev"), "data.validation")
