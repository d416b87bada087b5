"""The span cache: each text is parsed once, whatever happens to its files."""

from __future__ import annotations

import logging
import multiprocessing
import os
import re
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mta_framework import PluginParams, RunError, SpanExtractor, SpanSet
from mta_framework.spans.cache import SpanCache

TEXTS = ["ab", "", "日本語", "a😀", "ab"]


class Letters(SpanExtractor):
    """The first characters of a text, and all of it; remembers what it was asked."""

    NAME = "letters"
    VERSION = "1"

    class Params(PluginParams):
        count: int = 1

    params: Params

    def __init__(self, params: Params):
        super().__init__(params)
        self.asked: list[str] = []

    @property
    def granularities(self) -> tuple[str, ...]:
        return ("first", "all")

    def extract(self, texts: Sequence[str]) -> list[SpanSet]:
        self.asked += texts
        return [
            {
                "first": [(start, start + 1) for start in range(min(self.params.count, len(text)))],
                "all": [(0, len(text))] if text else [],
            }
            for text in texts
        ]


class Refusing(Letters):
    """Must not be asked."""

    def extract(self, texts: Sequence[str]) -> list[SpanSet]:
        raise AssertionError(f"asked for {texts}")


class Pids(Letters):
    """Its spans tell which process parsed."""

    NAME = "pids"

    def extract(self, texts: Sequence[str]) -> list[SpanSet]:
        return [{"first": [(0, os.getpid())], "all": []} for _ in texts]


def letters(count: int = 1) -> Letters:
    return Letters(Letters.Params(count=count))


def refusing(count: int = 1) -> Refusing:
    return Refusing(Refusing.Params(count=count))


def as_lists(span_sets: Sequence[SpanSet]) -> list[dict[str, list[list[int]]]]:
    return [{name: spans.tolist() for name, spans in span_set.items()} for span_set in span_sets]


EXPECTED = [
    {"first": [[0, 1]], "all": [[0, 2]]},
    {"first": [], "all": []},
    {"first": [[0, 1]], "all": [[0, 3]]},
    {"first": [[0, 1]], "all": [[0, 2]]},
    {"first": [[0, 1]], "all": [[0, 2]]},
]


def test_distinct_texts_are_parsed_once_and_answered_in_order(tmp_path: Path) -> None:
    extractor = letters()
    cache = SpanCache(tmp_path, extractor, processes=None)
    assert as_lists(cache.spans(TEXTS)) == EXPECTED
    assert cache.parsed == 4
    assert sorted(extractor.asked) == sorted(set(TEXTS))


class Stumbling(Letters):
    """Cannot parse what is not ASCII."""

    NAME = "stumbling"

    def failures(self, texts: Sequence[str]) -> list[int]:
        return [sum(not letter.isascii() for letter in text) for text in texts]


def test_what_could_not_be_parsed_is_counted_and_remembered(tmp_path: Path) -> None:
    for extractor in (Stumbling(Stumbling.Params()), Stumbling(Stumbling.Params())):
        cache = SpanCache(tmp_path, extractor, processes=1)
        cache.spans(TEXTS)
        assert sum(cache.failures) == 3 + 1
        cache.spans(["ab", "a😀", "a😀"])
        assert cache.failures == [0, 1, 1]
    assert extractor.asked == []


def test_a_second_run_parses_nothing(tmp_path: Path) -> None:
    SpanCache(tmp_path, letters(), processes=1).spans(TEXTS)
    cache = SpanCache(tmp_path, refusing(), processes=1)
    assert as_lists(cache.spans(TEXTS)) == EXPECTED
    assert cache.parsed == 0


def test_only_unseen_texts_are_parsed(tmp_path: Path) -> None:
    SpanCache(tmp_path, letters(), processes=1).spans(["ab", "cd"])
    extractor = letters()
    cache = SpanCache(tmp_path, extractor, processes=1)
    cache.spans(["cd", "new", "ab"])
    assert (extractor.asked, cache.parsed) == (["new"], 1)
    assert as_lists(cache.spans(["new"])) == [{"first": [[0, 1]], "all": [[0, 3]]}]
    assert cache.parsed == 0


def test_no_texts_are_normal(tmp_path: Path) -> None:
    cache = SpanCache(tmp_path, refusing(), processes=1)
    assert cache.spans([]) == []
    assert cache.parsed == 0


def test_other_options_versions_and_names_have_caches_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [SpanCache(tmp_path, letters(count), 1).folder for count in (1, 2)]
    folders.append(SpanCache(tmp_path, Pids(Pids.Params()), 1).folder)
    monkeypatch.setattr(Letters, "VERSION", "2")
    folders.append(SpanCache(tmp_path, letters(), 1).folder)
    assert len(set(folders)) == 4
    assert folders[0].name.startswith("letters-")
    assert SpanCache(tmp_path, letters(), 1).folder == folders[3]


@pytest.mark.parametrize("damage", ["truncated", "another offset", "empty", "not Arrow"])
def test_a_damaged_file_is_left_out_with_a_warning_and_its_texts_are_parsed_again(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    cache = SpanCache(tmp_path, letters(), processes=1)
    cache.spans(TEXTS)
    (path,) = cache.folder.glob("*.arrow")
    content = path.read_bytes()
    whole, shorter = (np.array([0, end], dtype=np.int32).tobytes() for end in (3, 2))
    assert whole in content
    path.write_bytes(
        {
            "truncated": content[:-100],
            "another offset": content.replace(whole, shorter),
            "empty": b"",
            "not Arrow": b"not arrow",
        }[damage]
    )
    with caplog.at_level(logging.WARNING):
        again = SpanCache(tmp_path, letters(), processes=1)
        assert as_lists(again.spans(TEXTS)) == EXPECTED
    assert again.parsed == 4
    assert "damaged" in caplog.text
    caplog.clear()
    assert as_lists(SpanCache(tmp_path, refusing(), processes=1).spans(TEXTS)) == EXPECTED
    assert not caplog.text


def test_an_interrupted_write_is_not_taken_for_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = SpanCache(tmp_path, letters(), processes=1)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mta_framework.storage.os.replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            cache.spans(TEXTS)
    assert list(cache.folder.iterdir()) == []
    assert as_lists(cache.spans(TEXTS)) == EXPECTED


def test_processes_that_race_leave_a_whole_cache(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    racers = [context.Process(target=SpanCache(tmp_path, letters(), 1).spans, args=(TEXTS,)) for _ in range(4)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(timeout=60)
    assert [racer.exitcode for racer in racers] == [0] * 4
    assert as_lists(SpanCache(tmp_path, refusing(), 1).spans(TEXTS)) == EXPECTED


def test_a_folder_that_cannot_be_created_is_a_run_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"cannot create .*set output_dir or data\.cache_dir"):
        SpanCache(tmp_path / "file", letters(), processes=1).spans(TEXTS)


def test_what_another_process_parsed_meanwhile_is_seen(tmp_path: Path) -> None:
    waiting = SpanCache(tmp_path, refusing(), processes=1)
    assert waiting.spans([]) == []
    SpanCache(tmp_path, letters(), processes=1).spans(TEXTS)
    assert as_lists(waiting.spans(TEXTS)) == EXPECTED


def test_many_texts_are_parsed_by_several_processes(tmp_path: Path) -> None:
    texts = [f"{index:04}" + "x" * 5_000_000 if index == 0 else f"{index:04}" for index in range(401)]
    extractor = letters(2)
    parsed = SpanCache(tmp_path, extractor, processes=2).spans(texts)
    assert as_lists(parsed)[1:] == [{"first": [[0, 1], [1, 2]], "all": [[0, 4]]}] * 400
    assert extractor.asked == []
    alone = letters(2)
    SpanCache(tmp_path / "alone", alone, processes=1).spans(texts)
    assert len(alone.asked) == 401


@pytest.mark.parametrize("count", [1, 401])
def test_spans_outside_their_text_stop_the_run_in_any_process(tmp_path: Path, count: int) -> None:
    texts = [f"text {index}" for index in range(count)]
    cache = SpanCache(tmp_path, Pids(Pids.Params()), processes=2)
    with pytest.raises(RunError, match=r"span extractor 'pids', text \d+ \('text \d+'\): first must satisfy"):
        cache.spans(texts)
    assert list(cache.folder.iterdir()) == []


def test_texts_are_written_in_portions_so_that_an_interruption_loses_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mta_framework.spans.cache._TEXTS_PER_SHARD", 2)
    cache = SpanCache(tmp_path, letters(), processes=1)
    assert as_lists(cache.spans(TEXTS)) == EXPECTED
    assert len(list(cache.folder.glob("*.arrow"))) == 2


class Killed(Letters):
    """Is ended by the system while it parses, as by a lack of memory."""

    NAME = "killed"

    def extract(self, texts: Sequence[str]) -> list[SpanSet]:
        os.kill(os.getpid(), signal.SIGKILL)
        return []


def test_a_process_that_dies_while_it_parses_is_explained_with_the_extractor_and_a_remedy(tmp_path: Path) -> None:
    cache = SpanCache(tmp_path, Killed(Killed.Params()), processes=2)
    with pytest.raises(RunError, match=r"^span extractor 'killed': a process .* died .*: lower data\.processes, then"):
        cache.spans([f"text {index}" for index in range(401)])


class Miscounting(Letters):
    """Has the failures that it is made with."""

    NAME = "miscounting"

    def __init__(self, returned: Callable[[], Any]):
        super().__init__(self.Params())
        self.returned = returned

    def failures(self, texts: Sequence[str]) -> list[int]:
        result: list[int] = self.returned()
        return result


class Anonymous(Letters):
    """Has the fingerprint that it is made with."""

    NAME = "anonymous"

    def __init__(self, returned: Callable[[], Any]):
        super().__init__(self.Params())
        self.returned = returned

    def fingerprint(self) -> str:
        result: str = self.returned()
        return result


@pytest.mark.parametrize("counts", [None, [0], [0.5] * 4, [0, 0, 0, -5], 0])
def test_failures_that_are_no_count_for_each_text_are_refused_naming_the_extractor(tmp_path: Path, counts: Any) -> None:
    cache = SpanCache(tmp_path, Miscounting(lambda: counts), processes=1)
    with pytest.raises(RunError) as refusal:
        cache.spans(TEXTS)
    problem = f"span extractor 'miscounting': failures() returned something else (got {counts})"
    assert (
        str(refusal.value) == f"{problem}; expected one count >= 0 per text, 4. Correct the extractor, or take another."
    )


def test_counts_of_another_library_are_failures_too(tmp_path: Path) -> None:
    cache = SpanCache(tmp_path, Miscounting(lambda: np.array([1, 0, 2, 0])), processes=1)
    cache.spans(TEXTS[:4])
    assert cache.failures == [1, 0, 2, 0]


@pytest.mark.parametrize("fingerprint", [None, {"a": 1}])
def test_a_fingerprint_that_is_no_text_is_refused_naming_the_extractor(tmp_path: Path, fingerprint: Any) -> None:
    problem = "span extractor 'anonymous': fingerprint() returned something else (got "
    with pytest.raises(RunError, match=re.escape(f"{problem}{fingerprint}); expected JSON as a string. Correct")):
        SpanCache(tmp_path, Anonymous(lambda: fingerprint), processes=1)


def test_what_failures_and_fingerprint_raise_is_reported_with_the_extractor(tmp_path: Path) -> None:
    with pytest.raises(
        RunError, match=r"'anonymous': fingerprint\(\) failed \(ZeroDivisionError: .*, in test_cache.py"
    ):
        SpanCache(tmp_path, Anonymous(lambda: 1 / 0), processes=1)
    with pytest.raises(RunError, match=r"'miscounting': failures\(\) failed \(ZeroDivisionError: .*, in test_cache.py"):
        SpanCache(tmp_path, Miscounting(lambda: 1 / 0), processes=1).spans(TEXTS)


class Emptying(Letters):
    """Tries to change the texts that it is given."""

    NAME = "emptying"

    def extract(self, texts: Sequence[str]) -> list[SpanSet]:
        texts.clear()  # type: ignore[attr-defined]
        return []


def test_an_extractor_that_changes_its_texts_is_named_with_the_line_that_does(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"'emptying', .*: failed \(AttributeError: .*'clear', in test_cache.py:\d+\)"):
        SpanCache(tmp_path, Emptying(Emptying.Params()), processes=1).spans(TEXTS)
