"""Files of predictions: whole ones are used again, whatever a process that ended has left behind."""

from __future__ import annotations

import dataclasses

import pytest

from mta_framework.errors import InputError
from mta_framework.evaluation import predictions
from mta_framework.evaluation.predictions import Key, Prediction, read_predictions, read_rows, write_predictions

ROWS = [Prediction("p", "q", "text", ("reference",), True, 3)]
SCORED = [dataclasses.replace(ROWS[0], scores={"rouge_l": 50.0})]
FIRST, SECOND = Key("responses", ""), Key("responses", "metrics")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "test-seed1.jsonl"


@pytest.mark.parametrize("writes", [0, 1, 2])
def test_responses_outlive_an_end_at_any_moment_of_writing_their_scores(path, monkeypatch, writes):
    write_predictions(path, ROWS, FIRST)
    done = 0

    def write(target, content):
        nonlocal done
        if done == writes:
            raise OSError("no space left")
        done += 1
        write_atomically(target, content)

    write_atomically = predictions.write_atomically
    monkeypatch.setattr(predictions, "write_atomically", write)
    if writes < 2:
        with pytest.raises(OSError, match="no space"):
            write_predictions(path, SCORED, SECOND)
    else:
        write_predictions(path, SCORED, SECOND)
    monkeypatch.undo()
    expected = SCORED if writes == 2 else ROWS
    assert read_predictions(path, SECOND) == expected
    assert read_rows(path) == expected
    write_predictions(path, SCORED, SECOND)
    assert read_predictions(path, SECOND) == SCORED


def test_rows_that_were_edited_or_made_from_something_else_are_not_used(path):
    write_predictions(path, ROWS, FIRST)
    write_predictions(path, SCORED, SECOND)
    assert read_predictions(path, Key("other", "metrics")) is None
    assert read_predictions(path, Key("responses", "others")) == ROWS
    path.write_text(path.read_text().replace("text", "another"))
    assert read_predictions(path, SECOND) is None
    with pytest.raises(InputError, match="rows that do not match the digest"):
        read_rows(path)
