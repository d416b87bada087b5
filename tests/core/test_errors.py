"""Foreign errors in messages: quoted as they are, unless they cannot be shown or give unsafe advice."""

from __future__ import annotations

import torch

from mta_framework.errors import error_message, error_text


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
