"""Faults in runs with several teachers: kills while their caches are made, and servers that fail."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from broken_runs import finished
from teacher_server import TeacherServer, write_teacher

from mta_framework import RunError
from mta_framework.testing.chat_server import fail

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_page")]

WORKER = Path(__file__).with_name("killed_while_filling.py")
NEVER = ("", "0")


def weights(tmp_path, name):
    return (tmp_path / "runs" / name / "student" / "model.safetensors").read_bytes()


def records(folder):
    """How often each record of each teacher is on disk: (teacher, kind, key) -> count."""
    counted = Counter()
    for path in folder.rglob("*.arrow"):
        teacher, _, kind, _ = path.relative_to(folder).parts
        with pa.memory_map(str(path)) as source:
            keys = pa.ipc.open_file(source).read_all()["key"].to_pylist()
        counted.update((teacher.partition("-")[0], kind, key) for key in keys)
    return counted


def texts_of(counted, teacher):
    return {key for name, _, key in counted if name == teacher}


def test_a_run_that_is_killed_while_caches_are_half_made_loses_nothing(several_spec, write_spec, tmp_path, warm_python):
    def run(cache, name, *killed_at, **training):
        teachers = {
            name: {**section, "cache": {"path": str(tmp_path / cache)}}
            for name, section in several_spec["teachers"].items()
        }
        changes = {"teachers": teachers, "training": {**several_spec["training"], **training}}
        path = write_spec({**several_spec, **changes})
        return warm_python.run([WORKER, *(killed_at or NEVER), "run", path, "--set", f"name={name}", "--resume"])

    for cache in ("straight", "killed"):
        assert run(cache, f"{cache}-first", max_steps=1).returncode == 0
    assert run("straight", "straight").returncode == 0
    before, complete = records(tmp_path / "killed"), records(tmp_path / "straight")
    assert run("killed", "killed", "maths", "2").returncode == -signal.SIGKILL
    halves = [records(tmp_path / "killed")]
    assert run("killed", "killed", "code", "2").returncode == -signal.SIGKILL
    halves.append(records(tmp_path / "killed"))
    for name, half, sizes in (("maths", halves[0], before), ("code", halves[1], halves[0])):
        assert len(texts_of(sizes, name)) < len(texts_of(half, name)) < len(texts_of(complete, name)), name
    assert before <= halves[0] <= halves[1]
    assert run("killed", "killed").returncode == 0
    assert records(tmp_path / "killed") == complete
    assert set(complete.values()) == {1}
    assert weights(tmp_path, "killed") == weights(tmp_path, "straight")


def cut_off(handler):
    """A body that ends in the middle."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.wfile.flush()
    handler.close_connection = True


MISHAPS = {"429": fail(429, "slow down", {"Retry-After": "0"}), "500": fail(500, "out of memory"), "cut off": cut_off}


class FailingServer(TeacherServer):
    """A server of a teacher that fails for good once it has given ``answers`` answers; None: never."""

    answers = None
    mishap = None

    def reply(self, handler, request):
        if request.path == "/v1/completions" and self.answers is not None:
            if self.answers == 0:
                self.mishap(handler)
                return
            self.answers -= 1
        super().reply(handler, request)


@pytest.fixture
def servers(tmp_path, tokenizer_folder):
    """The servers of two teachers, by name."""
    folders = [write_teacher(tmp_path / name, tokenizer_folder, seed) for seed, name in enumerate(("maths", "law"))]
    with FailingServer(folders[0]) as maths, FailingServer(folders[1]) as law:
        yield {"maths": maths, "law": law}


@pytest.fixture
def served(several_spec, named_rows, servers, tmp_path, write_spec):
    """Writes a spec of two teachers behind these servers."""
    named_rows.write_text(named_rows.read_text(encoding="utf-8").replace('"code"', '"law"'), encoding="utf-8")
    del several_spec["alignment"]

    def write(**changes):
        teachers = {}
        for name, server in servers.items():
            asked = {"url": server.base_url, "model": "tiny", "top_logprobs": 8, "retries": 0, "concurrency": 1}
            teachers[name] = {"path": str(tmp_path / name), "server": asked}
        training = {**several_spec["training"], **changes.pop("training", {})}
        return write_spec({**several_spec, "teachers": teachers, "training": training, **changes})

    return write


def asked_once(server):
    """Whether no text was asked for twice by the server."""
    return len(server.asked) == len(set(server.asked))


@pytest.mark.parametrize("mishap", sorted(MISHAPS))
def test_a_server_that_fails_among_several_is_named_and_the_same_command_goes_on(mishap, servers, served, tmp_path):
    path, law = served(), servers["law"]
    law.answers, law.mishap = 3, MISHAPS[mishap]
    sentence = rf"^teachers\.law, {law.base_url}: gives no answer to a text of \d+ tokens"
    with pytest.raises(RunError, match=sentence) as end:
        finished(path, "run")
    assert "\n" not in str(end.value)
    assert "maths" not in str(end.value)
    answered, asked_of_maths = law.asked[:3], len(servers["maths"].asked)
    assert len(law.asked) in (4, 5)  # one may be under way when another fails
    law.answers = None
    finished(path, "run", resume=True)
    assert len(servers["maths"].asked) == asked_of_maths > 0
    assert asked_once(servers["maths"])
    # One kept answer is asked for again, to see whether the server has the same model.
    assert sum(law.asked.count(text) - 1 for text in answered) <= 1
    straight = 'teachers.{}.cache={{"path": "another"}}'
    finished(path, "straight", *(straight.format(name) for name in servers))
    assert weights(tmp_path, "run") == weights(tmp_path, "straight")


def test_a_server_that_fails_in_a_step_on_responses_keeps_the_others_answers(servers, served, tmp_path):
    base_loss = {"name": "jsd", "params": {"batches": {"policy": "on_policy", "fraction": 1.0}}}
    training = {"max_steps": 4, "save_steps": 1, "generation": {"engine": "transformers", "max_new_tokens": 8}}
    path, law = served(base_loss=base_loss, training=training), servers["law"]
    finished(path, "straight", *(f'teachers.{name}.cache={{"path": "another"}}' for name in servers))
    counts = {name: len(server.asked) for name, server in servers.items()}
    law.answers, law.mishap = counts["law"] - 2, fail(500, "out of memory")
    with pytest.raises(RunError, match=r"^teachers\.law, .*gives no answer"):
        finished(path, "run")
    kept = sorted(file.name for file in (tmp_path / "runs" / "run" / "checkpoints").glob("checkpoint-*"))
    assert kept
    law.answers = None
    finished(path, "run", resume=True)
    for name, server in servers.items():
        again = server.asked[counts[name] :]
        assert set(again) == set(server.asked[: counts[name]])
    assert len(servers["maths"].asked) == 2 * counts["maths"]
    assert weights(tmp_path, "run") == weights(tmp_path, "straight")
