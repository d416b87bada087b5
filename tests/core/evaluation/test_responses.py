"""Unfinished responses on disk: what survives a killed process, and what is not believed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from warm_python import CPU, WarmProcess, WarmPython

from mta_framework import RunError
from mta_framework.evaluation import responses
from mta_framework.evaluation.response_journal import Journal, TextResponse
from mta_framework.generation.engine import Engine
from mta_framework.generation.sampling_settings import Sampling

A, B = TextResponse("a\nb \u2028 ü", True, 3), TextResponse("", False, 0)

PROGRAM = """
import os, signal, sys
import torch
from contextlib import contextmanager
from pathlib import Path
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from mta_framework import Metric, ScoreSet
from mta_framework.evaluation.evaluate import Candidate, EvaluationSet, evaluate_models
from mta_framework.evaluation.response_journal import Journal
from mta_framework.generation.sampling_settings import Sampling
from mta_framework.distributed import shutdown

class Length(Metric):
    NAME = "length"
    def score(self, answers):
        return ScoreSet(tuple(float(len(text)) for text in answers.predictions))

folder, last = Path(sys.argv[1]), int(sys.argv[2])
written = 0
plain = Journal.writer

@contextmanager
def writer(self, rank):
    def counted(position, response):
        global written
        add(position, response)
        written += 1
        if written == last:
            with open(folder / "student" / f"set.unfinished-{rank}.jsonl", "ab") as file:
                file.write(b'\\n{"key": "torn')
            os.kill(os.getpid(), signal.SIGKILL)

    with plain(self, rank) as add:
        yield counted

Journal.writer = writer
vocabulary = {f"w{number}": number for number in range(30)}
tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="w0")))
torch.manual_seed(1)
shape = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2)
model = LlamaForCausalLM(LlamaConfig(vocab_size=30, eos_token_id=None, initializer_range=0.3, **shape))
prompts = [[number, number + 1][: 1 + number % 2] for number in range(7)]
entry = EvaluationSet("set", [str(ids) for ids in prompts], prompts, [["w1"]] * 7, [[[1], [1, 0]]] * 7, ["?"] * 7)
candidate = Candidate("student", "weights", tokenizer, (), lambda: model, [entry])
evaluate_models([candidate], [Length(Length.Params())], Sampling(1.0, 1.0, 5, 20), [10, 20, 30], folder)
print(written)
shutdown()
"""


@pytest.fixture
def start(warm_python: WarmPython) -> Callable[..., WarmProcess]:
    """Starts the program alone; it kills itself after the ``last`` response, with -1 never."""

    def begin(folder: Path, last: int) -> WarmProcess:
        return warm_python.start(["-c", PROGRAM, folder, last], {**os.environ, **CPU})

    return begin


def predictions(folder: Path) -> dict[str, str]:
    files = sorted((folder / "student").iterdir())
    return {path.name: path.read_text(encoding="utf-8") for path in files}


def finished(process: WarmProcess) -> int:
    out, error = process.communicate(timeout=180)
    assert process.returncode == 0, error
    return int(out.splitlines()[-1])


def test_responses_are_read_back_whichever_process_wrote_them(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "set.a")
    with journal.writer(0) as first, journal.writer(1) as second:
        first(("key", 0), A)
        second(("key", 7), B)
        assert journal.read() == {("key", 0): A, ("key", 7): B}
    with journal.writer(0) as again:
        again(("other", 0), B)
    assert journal.read() == {("key", 0): A, ("other", 0): B, ("key", 7): B}


@pytest.mark.parametrize("kept", range(0, 60, 7))
def test_a_torn_line_is_dropped_and_the_next_one_begins_anew(tmp_path: Path, kept: int) -> None:
    journal = Journal(tmp_path, "set")
    with journal.writer(0) as add:
        add(("key", 0), A)
        whole = (tmp_path / "set.unfinished-0.jsonl").stat().st_size
        add(("key", 1), A)
    os.truncate(tmp_path / "set.unfinished-0.jsonl", whole + kept)
    assert journal.read() == {("key", 0): A}
    with journal.writer(0) as add:
        add(("key", 2), B)
    assert journal.read() == {("key", 0): A, ("key", 2): B}


def test_lines_of_another_making_are_dropped(tmp_path: Path) -> None:
    whole = '{"key": [], "row": 0, "text": "", "finished": true, "tokens": 0}'
    (tmp_path / "set.unfinished-0.jsonl").write_text(f'[1]\n{{"key": "k"}}\n{whole}\n3\nnull\n')
    assert Journal(tmp_path, "set").read() == {}


@pytest.mark.parametrize(
    "edit", [("a\\nb", "a\\nc"), ('"text": "a', '"text": 1, "was": "a'), ("true", "false"), ('"row": 0', '"row": 1')]
)
def test_a_line_that_was_edited_is_dropped(tmp_path: Path, edit: tuple[str, str]) -> None:
    journal, file = Journal(tmp_path, "set"), tmp_path / "set.unfinished-0.jsonl"
    with journal.writer(0) as add:
        add(("key", 0), A)
        add(("key", 2), B)
    edited = file.read_text().replace(*edit)
    assert edited != file.read_text()
    file.write_text(edited)
    assert journal.read() == {("key", 2): B}


def test_a_set_called_like_a_journal_keeps_its_own(tmp_path: Path) -> None:
    names = ["a", "a.unfinished-0", "a.unfinished-1.jsonl"]
    for index, name in enumerate(names):
        with Journal(tmp_path, name).writer(0) as add:
            add(("key", index), A)
    assert [Journal(tmp_path, name).read() for name in names] == [{("key", index): A} for index in range(3)]
    Journal(tmp_path, "a").remove()
    assert [len(Journal(tmp_path, name).read()) for name in names] == [0, 1, 1]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
def test_a_full_disk_is_a_run_error(tmp_path: Path) -> None:
    (tmp_path / "set.unfinished-0.jsonl").symlink_to("/dev/full")
    with (
        pytest.raises(RunError, match=r"cannot write to .*/set\.unfinished-0\.jsonl \(No space left"),
        Journal(tmp_path, "set").writer(0) as add,
    ):
        add(("key", 0), A)


@pytest.mark.slow
def test_a_killed_evaluation_goes_on_prompt_by_prompt(tmp_path: Path, start: Callable[..., WarmProcess]) -> None:
    killed = start(tmp_path / "killed", last=8)
    killed.communicate(timeout=180)
    assert killed.returncode == -signal.SIGKILL
    assert [path.name for path in (tmp_path / "killed" / "student").iterdir()] == ["set.unfinished-0.jsonl"]
    assert finished(start(tmp_path / "killed", last=-1)) == 7 * 3 - 8
    assert finished(start(tmp_path / "straight", last=-1)) == 7 * 3
    assert predictions(tmp_path / "killed") == predictions(tmp_path / "straight")


@pytest.mark.slow
def test_it_goes_on_with_another_number_of_processes(
    tmp_path: Path, start: Callable[..., WarmProcess], warm_python: WarmPython
) -> None:
    pair = pair_of(warm_python, tmp_path, last=(-1, 4))
    pair[1].communicate(timeout=180)
    assert pair[1].returncode == -signal.SIGKILL
    pair[0].kill()
    pair[0].communicate(timeout=180)
    there = len(Journal(tmp_path / "student", "set").read())
    assert there >= 4
    assert finished(start(tmp_path, last=-1)) == 7 * 3 - there
    assert not list((tmp_path / "student").glob("*unfinished*"))


@pytest.mark.slow
def test_two_processes_go_on_where_one_was_killed(
    tmp_path: Path, start: Callable[..., WarmProcess], warm_python: WarmPython
) -> None:
    start(tmp_path, last=5).communicate(timeout=180)
    assert sum(map(finished, pair_of(warm_python, tmp_path, last=(-1, -1)))) == 7 * 3 - 5
    assert not list((tmp_path / "student").glob("*unfinished*"))


def pair_of(python: WarmPython, folder: Path, last: tuple[int, int]) -> list[WarmProcess]:
    return python.start_ranks([["-c", PROGRAM, folder, count] for count in last])


def test_a_process_without_prompts_of_its_own_loads_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responses, "shard", lambda tasks: [])
    monkeypatch.setattr(responses, "gather", lambda made, count: [[A] for _ in range(count)])

    def engine() -> Engine:
        raise AssertionError("a model is loaded")

    work = [[1], [2], [3]], Sampling(0.0, 1.0, 4, 64), {10: "key"}, Journal(tmp_path, "set"), "label"
    assert responses.respond(engine, "student", *work) == {10: [A, A, A]}
