"""Foreign errors in messages: quoted as they are, unless they cannot be shown or give unsafe advice."""

from __future__ import annotations

import json

import pytest
import torch
from pydantic import BaseModel, ValidationError

from mta_framework.errors import InputError, counted, error_message, error_summary, error_text, faults_at, first_line


class Speechless(Exception):
    def __str__(self):
        raise RuntimeError("no message")


class Evasive(Exception):
    def __str__(self):
        return None


def test_an_error_whose_message_cannot_be_shown_is_named_by_its_type():
    assert error_message(Speechless()) == "a Speechless without a readable message"
    assert error_message(Evasive()) == "a Evasive without a readable message"
    assert error_text(Speechless()) == "Speechless: a Speechless without a readable message"


def test_advice_of_torch_to_run_the_code_of_a_file_is_not_passed_on(tmp_path):
    path = tmp_path / "state.pt"
    messages = []
    for content in (b"garbage", None):
        torch.save({"kind": Speechless}, path) if content is None else path.write_bytes(content)
        try:
            torch.load(path, weights_only=True)
        except Exception as error:
            messages.append(error_text(error))
    assert len(messages) == 2
    for message in messages:
        assert "UnpicklingError: it holds more than tensors and plain values, or is damaged" in message
        assert "weights_only" not in message


def test_all_else_is_quoted():
    assert error_message(ValueError("a message")) == "a message"


def test_a_message_of_several_lines_is_quoted_in_one():
    error = RuntimeError("\n  the parser\n\thas a  problem:\r\n\nline 3\n")
    assert error_message(error) == "the parser has a  problem: line 3"
    assert error_summary(error) == "RuntimeError: the parser has a  problem: line 3"
    assert first_line(error) == "the parser"


def test_an_error_without_a_message_is_named_by_its_type_alone():
    assert error_message(IndexError()) == first_line(IndexError(" \n")) == "IndexError"
    assert error_summary(IndexError()) == error_text(IndexError()) == "IndexError"


def test_an_error_without_a_message_keeps_its_source_line():
    with pytest.raises(IndexError) as caught:
        raise IndexError
    assert error_text(caught.value) == f"IndexError, in test_errors.py:{caught.tb.tb_lineno}"


def test_the_line_is_that_which_called_a_library():
    with pytest.raises(RuntimeError) as caught:
        torch.nn.Linear(2, 3)(torch.zeros(1, 5))
    assert error_text(caught.value).endswith(f", in test_errors.py:{caught.tb.tb_lineno}")
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads("{")
    assert error_text(caught.value).endswith(f", in test_errors.py:{caught.tb.tb_lineno}")


class Options(BaseModel):
    words: int
    phrases: int


def test_an_error_of_validation_names_the_first_value_in_one_line_without_an_address():
    with pytest.raises(ValidationError) as caught:
        Options.model_validate({"words": "many", "phrases": "few"})
    message = error_message(caught.value)
    assert message.startswith("words: Input should be a valid integer")
    assert message.endswith(" (and 1 more)")
    assert "\n" not in message
    assert "http" not in message


def test_a_plugin_that_refuses_its_options_without_a_message_is_said_to_refuse_them():
    with pytest.raises(InputError) as refusal, faults_at("alignment.layers"):
        raise ValueError
    assert str(refusal.value).startswith("alignment.layers: is refused by the plugin; expected other options. ")


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 damaged files"), (1, "1 damaged file"), (2, "2 damaged files"), (1200, "1,200 damaged files")],
)
def test_only_one_is_counted_in_the_singular(count, words):
    assert counted(count, "damaged file") == words
