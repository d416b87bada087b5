"""Rows that name one of several teachers, and the sets that they make."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from mta_framework.data.batches import GroupedSampler, validation_micro_batches
from mta_framework.data.records import Records, read_records
from mta_framework.data.row_teachers import RowTeachers, merge, named_texts, texts_of
from mta_framework.data.tokens import EncodedSet
from mta_framework.errors import InputError
from mta_framework.spec.data import DatasetSection
from mta_framework.types import Example

NAMES = ("maths", "code")


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Records]:
    """Reads completions, each with more keys."""

    def read_rows(rows: Sequence[dict[str, object]], key: str = "teacher", default: str | None = None) -> Records:
        path = tmp_path / "rows.jsonl"
        lines = [json.dumps({"prompt": "p", "completion": "c", **row}) for row in rows]
        path.write_text("\n".join(lines), encoding="utf-8")
        return read_records(DatasetSection(path=str(path)), "data.train", RowTeachers(NAMES, key, default))

    return read_rows


def test_a_row_has_the_teacher_that_it_names_and_its_key_counts_as_used(read: Callable[..., Records]) -> None:
    records = read([{"of": "code"}, {"of": "maths", "level": 3}], key="of")
    assert [record.teacher_name for record in records] == ["code", "maths"]
    assert records.unused == {"level": 1}


@pytest.mark.parametrize("nothing", [{}, {"teacher": None}, {"teacher": ""}])
def test_rows_that_name_none_have_the_default(nothing: dict[str, object], read: Callable[..., Records]) -> None:
    assert [record.teacher_name for record in read([nothing, {"teacher": "code"}], default="maths")] == [
        "maths",
        "code",
    ]


def test_every_row_without_a_known_teacher_is_a_fault_with_its_line_and_many_are_counted(
    read: Callable[..., Records],
) -> None:
    with pytest.raises(InputError) as caught:
        read([{"teacher": "maths"}, {}, {"teacher": "cod"}, {"teacher": ["code"]}, *[{}] * 40])
    first, second, third, *_, last = map(str, caught.value.faults)
    assert "rows.jsonl:2: the row names no teacher in teacher; expected one of the teachers maths, code, or" in first
    assert "rows.jsonl:3: teacher names an unknown teacher (got 'cod'); expected one of the teachers" in second
    assert "rows.jsonl:4: teacher names an unknown teacher (got ['code'])" in third
    assert last.startswith("data.train: 23 more rows are faulty than the 20 that are listed")


def text(index: int, length: int = 3, name: str = "") -> Example:
    return Example(np.arange(length, dtype=np.int32), 1, {}, index=index, teacher_name=name)


def test_the_texts_of_all_teachers_stand_in_the_order_of_the_rows() -> None:
    maths = named_texts(EncodedSet([text(0), text(2)], 1, 2, 3, 9), "maths", [1, 3, 4])
    code = named_texts(EncodedSet([text(1)], 0, 1, 0, 9), "code", [0, 2])
    whole = merge([maths, code])
    assert [(each.index, each.teacher_name) for each in whole.examples] == [(1, "maths"), (2, "code"), (4, "maths")]
    assert (whole.too_long, whole.truncated, whole.cut_prompts, whole.end_id) == (1, 3, 3, 9)
    assert [each.index for each in texts_of(whole, "code").examples] == [2]


def test_a_global_batch_has_the_same_texts_with_teachers_as_without_and_each_teacher_in_one_run() -> None:
    generator = np.random.default_rng(0)
    lengths, names = generator.integers(1, 50, 200).tolist(), generator.choice(NAMES, 200)
    plain, named = (GroupedSampler(lengths, 16, 4, 2, 3, given) for given in (None, names.tolist()))
    for epoch in range(3):
        batches = named.global_batches(epoch)
        np.testing.assert_array_equal(np.sort(batches, axis=1), np.sort(plain.global_batches(epoch), axis=1))
        changes = (names[batches][:, 1:] != names[batches][:, :-1]).sum(axis=1)
        assert changes.max() == 1


def test_validation_goes_by_teacher_and_then_by_length() -> None:
    texts = [text(0, 3, "b"), text(1, 9, "a"), text(2, 5, "b"), text(3, 4, "a")]
    parts = validation_micro_batches(texts, 2, 0, 1)
    assert [[each.index for each in part] for part in parts] == [[1, 3], [2, 0]]
