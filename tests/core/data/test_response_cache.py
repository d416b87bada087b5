"""The response cache: what was written stays, whoever wrote it and whatever happens to the files."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from mta_framework import RunError
from mta_framework.data.response_cache import ResponseCache
from mta_framework.data.response_encoding import TokenResponse
from mta_framework.types import Example


def prompt(*ids: int, response: Sequence[int] = ()) -> Example:
    return Example(np.array([*ids, *response], dtype=np.int32), len(ids), {})


PROMPTS = [prompt(1, 2, 3), prompt(70_000), prompt(), prompt(1, 2)]
RESPONSES = [
    TokenResponse((5, 151_935), True),
    TokenResponse((), True),
    TokenResponse((7,), False),
    TokenResponse((), False),
]


def test_responses_come_back_as_they_were_from_the_same_and_another_cache(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path, "state")
    assert cache.lookup(PROMPTS) == [None] * 4
    cache.add(PROMPTS, RESPONSES)
    for again in (cache, ResponseCache(tmp_path, "state")):
        assert again.lookup([*reversed(PROMPTS), PROMPTS[0], prompt(9)]) == [*reversed(RESPONSES), RESPONSES[0], None]
        assert again.lookup([]) == []


def test_log_probabilities_come_back_where_they_were_kept(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path, "state")
    kept = [TokenResponse((5, 9), True, (-0.5, -2.25, -0.125)), TokenResponse((), True, (-1.5,)), RESPONSES[2]]
    cache.add(PROMPTS[:3], kept)
    cache.add(PROMPTS[3:], RESPONSES[3:])
    assert ResponseCache(tmp_path, "state").lookup(PROMPTS) == [*kept, RESPONSES[3]]


def test_only_the_prompt_of_a_text_counts(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path, "state")
    cache.add([prompt(1, 2, response=(8, 9))], RESPONSES[:1])
    assert cache.lookup([prompt(1, 2), prompt(1, 2, response=(3,)), prompt(1, 2, 8, 9)]) == [*RESPONSES[:1] * 2, None]


def test_another_identity_sees_nothing(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path, "state")
    cache.add(PROMPTS, RESPONSES)
    second = ResponseCache(tmp_path, "another state")
    assert second.lookup(PROMPTS) == [None] * 4
    assert second.folder != cache.folder
    assert second.folder.parent == cache.folder.parent == tmp_path


def test_what_others_add_meanwhile_is_seen_and_the_first_response_stays(tmp_path: Path) -> None:
    mine, theirs = ResponseCache(tmp_path, "state"), ResponseCache(tmp_path, "state")
    assert mine.lookup(PROMPTS[:2]) == [None, None]
    theirs.add(PROMPTS[:1], RESPONSES[:1])
    assert mine.lookup(PROMPTS[:2]) == [RESPONSES[0], None]
    theirs.add(PROMPTS[1:2], RESPONSES[1:2])
    mine.add(PROMPTS[:2], [TokenResponse((0,), True)] * 2)
    for cache in (mine, theirs):
        assert cache.lookup(PROMPTS[:2]) == RESPONSES[:2]


@pytest.mark.parametrize("swapped", [False, True])
def test_the_older_file_counts_whatever_its_name(tmp_path: Path, swapped: bool) -> None:
    first, second = sorted(
        [TokenResponse((1,), True), TokenResponse((2,), True)], key=lambda one: one.ids, reverse=swapped
    )
    racers = [ResponseCache(tmp_path, "state") for _ in range(2)]
    for index, (racer, response) in enumerate(zip(racers, (first, second), strict=True), start=1):
        aside = ResponseCache(tmp_path / str(index), "state")
        aside.add(PROMPTS[:1], [response])
        (path,) = aside.folder.glob("*.arrow")
        racer.folder.mkdir(parents=True, exist_ok=True)
        os.utime(path, (index, index))
        path.rename(racer.folder / path.name)
    assert ResponseCache(tmp_path, "state").lookup(PROMPTS[:1]) == [first]


@pytest.mark.parametrize("damage", ["truncated", "another token", "empty", "not Arrow"])
def test_a_damaged_file_is_left_out_with_a_warning_and_the_others_stay(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    cache = ResponseCache(tmp_path, "state")
    cache.add(PROMPTS[:1], RESPONSES[:1])
    (path,) = cache.folder.glob("*.arrow")
    cache.add(PROMPTS[1:], RESPONSES[1:])
    content = path.read_bytes()
    token, changed = (np.array([5, last], dtype=np.int32).tobytes() for last in (151_935, 151_934))
    assert token in content
    path.write_bytes(
        {
            "truncated": content[:-100],
            "another token": content.replace(token, changed),
            "empty": b"",
            "not Arrow": b"not arrow",
        }[damage]
    )
    with caplog.at_level(logging.WARNING):
        again = ResponseCache(tmp_path, "state")
        assert again.lookup(PROMPTS) == [None, *RESPONSES[1:]]
    assert f"response cache: {path} is damaged" in caplog.text
    caplog.clear()
    again.add(PROMPTS[:1], RESPONSES[:1])
    assert ResponseCache(tmp_path, "state").lookup(PROMPTS) == RESPONSES
    assert not caplog.text


def test_an_interruption_keeps_what_was_added_and_leaves_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ResponseCache(tmp_path, "state")
    cache.add(PROMPTS[:2], RESPONSES[:2])

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mta_framework.storage.os.replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            cache.add(PROMPTS[2:], RESPONSES[2:])
    assert len(list(cache.folder.iterdir())) == 1
    for again in (cache, ResponseCache(tmp_path, "state")):
        assert again.lookup(PROMPTS) == [*RESPONSES[:2], None, None]


def add_some(folder: Path, index: int) -> None:
    cache = ResponseCache(folder, "state")
    for first in range(0, 40, 10):
        rows = range(first, first + 10)
        cache.add([prompt(index, row) for row in rows], [TokenResponse((index, row), bool(row % 2)) for row in rows])


def test_processes_that_add_at_once_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    adders = [context.Process(target=add_some, args=(tmp_path, index)) for index in range(4)]
    for adder in adders:
        adder.start()
    for adder in adders:
        adder.join(timeout=60)
    assert [adder.exitcode for adder in adders] == [0] * 4
    pairs = [(index, row) for index in range(4) for row in range(40)]
    responses = ResponseCache(tmp_path, "state").lookup([prompt(*pair) for pair in pairs])
    assert responses == [TokenResponse(pair, bool(pair[1] % 2)) for pair in pairs]


def test_nothing_to_add_writes_nothing(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path, "state")
    cache.add([], [])
    assert not cache.folder.exists()


def test_a_response_too_few_is_an_error_and_writes_nothing(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path, "state")
    with pytest.raises(ValueError, match="shorter"):
        cache.add(PROMPTS, RESPONSES[:1])
    assert cache.lookup(PROMPTS) == [None] * 4


def test_a_folder_that_cannot_be_created_is_a_run_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"^response cache: cannot create .*; make room, or set output_dir$"):
        ResponseCache(tmp_path / "file", "state").lookup(PROMPTS)


def test_a_full_disk_is_a_run_error_and_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = ResponseCache(tmp_path, "state")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("mta_framework.storage.os.replace", full)
        with pytest.raises(RunError, match=r"^response cache: cannot write to .* \(No space left on device\)"):
            cache.add(PROMPTS, RESPONSES)
    assert list(cache.folder.iterdir()) == []
    assert cache.lookup(PROMPTS) == [None] * 4
