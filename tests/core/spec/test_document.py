from __future__ import annotations

from pathlib import Path

import pytest

from mta_framework import InputError
from mta_framework.spec.document import parse, read_document, settle, shown


def test_a_syntax_error_is_named_with_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    path.write_text('{\n  "name": ,\n}')
    with pytest.raises(InputError) as refusal:
        read_document(path)
    assert refusal.value.faults[0].where == f"{path}:2:11"


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    path.write_bytes(b'\xef\xbb\xbf{"name": "x"}')
    assert read_document(path) == ({"name": "x"}, [])


def test_a_folder_in_place_of_a_file_is_a_fault_and_no_traceback(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_document(tmp_path)


def test_endless_nesting_is_a_fault_and_no_traceback(tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    path.write_text("[" * 100_000)
    with pytest.raises(InputError, match="is not JSON"):
        read_document(path)


def test_repeated_keys_are_found_at_every_depth_and_the_last_value_stays() -> None:
    document = parse('{"a": [{"b": 1, "b": {"c": 2, "c": 3}}], "a2": 1}')
    faults = settle(document)
    assert [fault.where for fault in faults] == ["a.0.b", "a.0.b.c"]
    assert document == {"a": [{"b": {"c": 3}}], "a2": 1}


def test_an_integer_that_readers_of_json_do_not_take_alike_is_a_fault_of_its_field() -> None:
    document = parse('{"a": [9007199254740991, 9007199254740992], "b": {"c": -1e3, "d": -9007199254740992}}')
    faults = settle(document)
    assert [fault.where for fault in faults] == ["a.1", "b.d"]
    assert faults[0].problem == "is too large for an integer (got 9007199254740992)"
    assert document == {"a": [2**53 - 1, 0], "b": {"c": -1000.0, "d": 0}}


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_numbers_that_are_not_finite_are_refused(literal: str) -> None:
    with pytest.raises(ValueError, match="number"):
        parse(f'{{"x": {literal}}}')


def test_repetitions_within_repetitions_are_quoted_as_plain_json() -> None:
    faults = settle(parse('{"a": {"b": 1, "b": 2}, "a": {"c": 3}}'))
    assert [fault.problem for fault in faults] == ['is given 2 times (got {"b": 2} and {"c": 3})']


def test_values_are_quoted_as_json_and_kept_short() -> None:
    assert [shown(value) for value in ("a", None, True, [1, "x"], 1.5)] == ["'a'", "null", "true", '[1, "x"]', "1.5"]
    assert len(shown("x" * 1000)) == 80
