"""A teacher behind a server that answers, and behind servers that misbehave on purpose."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
import torch
from teacher_server import TeacherServer, write_teacher
from transformers import PreTrainedTokenizerFast

from mta_framework import RunError
from mta_framework.data.batches import collate
from mta_framework.endpoints.asker import Asker
from mta_framework.endpoints.server import Server
from mta_framework.teacher_server.completions import Completions
from mta_framework.teacher_server.same_tokenizer import compare_decoded
from mta_framework.teacher_server.served_teacher import ServedTeacher
from mta_framework.testing.chat_server import fail, send_response
from mta_framework.types import Example

K = 5
FORM = b'{"choices": [{"prompt_logprobs": [null, {"5": {"logprob": -1.0}}]}]}'


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("mta_framework.endpoints.asker.FIRST_WAIT", 0.01)
    monkeypatch.setenv("TEST_API_KEY", "sk-very-secret-0123456789")
    monkeypatch.setenv("MTA_KEY_HOSTS", "127.0.0.1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer_folder):
    return write_teacher(tmp_path_factory.mktemp("teacher"), tokenizer_folder)


def served(server, path, folder, k=K, vocabulary=None, timeout=5.0, **options):
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    at = Server(server.base_url, "TEST_API_KEY", timeout)
    asker = Asker(
        "teacher", at, options.pop("max_requests", None), options.pop("concurrency", 3), options.pop("retries", 2)
    )
    completions = Completions(at, "tiny", k, vocabulary or server.model.config.vocab_size)
    return ServedTeacher(completions, asker, tokenizer, path)


def texts(count=6, seed=0):
    """Random texts of growing length, each with a prompt; the second has an answer in two turns."""
    random = np.random.default_rng(seed)
    made = [
        Example(random.integers(5, 400, 8 + 3 * index).astype(np.int32), 3 + index, {}, index=index)
        for index in range(count)
    ]
    if count > 1:
        supervised_T = np.arange(len(made[1].input_ids)) % 2 == 0
        made[1] = Example(made[1].input_ids, 4, {}, supervised_T=supervised_T, index=1)
    return made


def expected_top(server, batch, k=K):
    """The likeliest tokens at supervised positions, by the model itself in float64."""
    model = server.model.double()
    with torch.no_grad():
        logits = model(batch.input_ids_BT, attention_mask=batch.attention_mask_BT).logits
    server.model.float()
    return logits.flatten(0, 1)[batch.position_N].log_softmax(-1).topk(k)


def require_right(teacher, server, examples, k=K):
    batch = collate(examples, 0, ())
    top, expected = teacher.states(batch, ()).top_tokens, expected_top(server, batch, k)
    assert torch.equal(top.id_NK, expected.indices)
    torch.testing.assert_close(top.log_prob_NK.double(), expected.values, rtol=0, atol=1e-4)


def test_the_likeliest_tokens_are_those_of_the_model_and_each_text_is_asked_for_once(folder, tmp_path):
    examples = texts()
    with TeacherServer(folder) as server:
        teacher = served(server, tmp_path, folder)
        teacher.ask(examples)
        require_right(teacher, server, examples)
        assert sorted(server.asked) == sorted(tuple(text.input_ids.tolist()) for text in examples)
        assert {request.body["prompt_logprobs"] for request in server.received if "max_tokens" in request.body} == {K}
        again = served(server, tmp_path, folder)
        require_right(again, server, examples[:3])
        assert len(server.asked) == len(examples)


def test_texts_that_were_not_known_are_asked_for_by_states_and_kept(folder, tmp_path):
    with TeacherServer(folder) as server:
        require_right(served(server, tmp_path, folder), server, texts())
        assert len(server.asked) == 6
        require_right(served(server, tmp_path, folder), server, texts(8))
        assert len(server.asked) == 8


def test_a_text_without_supervised_positions_is_not_asked_for(folder, tmp_path):
    nothing = Example(np.arange(5, 9, dtype=np.int32), 4, {})
    with TeacherServer(folder) as server:
        teacher = served(server, tmp_path, folder)
        teacher.ask([nothing])
        assert server.received == []
        assert teacher.states(collate([nothing], 0, ()), ()).top_tokens.id_NK.shape == (0, K)
        require_right(teacher, server, [nothing, *texts(2)])


def cut_off(handler):
    """A body that ends in the middle."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(FORM)))
    handler.end_headers()
    handler.wfile.write(FORM[:30])
    handler.wfile.flush()
    handler.close_connection = True


def slow(handler):
    time.sleep(1.5)
    send_response(handler, 200, FORM)


def huge(handler):
    """A reply larger than any answer to a short text."""
    send_response(handler, 200, b" " * 2**22 + FORM)


def of(content):
    return lambda handler: send_response(handler, 200, content)


MISHAPS = {
    "429": fail(429, "slow down", {"Retry-After": "0"}),
    "500": fail(500, "oops"),
    "503": fail(503, "loading"),
    "cut off": cut_off,
    "hung up": lambda handler: setattr(handler, "close_connection", True),
    "slow": slow,
    "huge": huge,
    "not JSON": of(b"<html>busy</html>"),
    "no choices": of(b'{"choices": []}'),
    "no prompt_logprobs": of(b'{"choices": [{"text": "x"}]}'),
    "nested for ever": of(b"[" * 100_000),
}


@pytest.mark.parametrize("mishap", MISHAPS.values(), ids=MISHAPS)
def test_a_mishap_that_passes_is_asked_again(mishap, folder, tmp_path):
    with TeacherServer(folder, [mishap, mishap]) as server:
        teacher = served(server, tmp_path, folder, timeout=1.0, concurrency=1)
        require_right(teacher, server, texts(2))
        assert len(server.asked) == 4


@pytest.mark.parametrize("mishap", MISHAPS.values(), ids=MISHAPS)
def test_a_mishap_that_stays_stops_with_a_sentence_and_what_came_is_kept(mishap, folder, tmp_path):
    with TeacherServer(folder) as server:
        served(server, tmp_path, folder).ask(texts(3))
    with TeacherServer(folder, [mishap] * 9) as server:
        with pytest.raises(
            RunError, match=r"gives no answer to a text of \d+ tokens \(row \d\) \(got .*are kept"
        ) as failure:
            served(server, tmp_path, folder, timeout=1.0, retries=1, concurrency=1).ask(texts(6)[3:])
        assert len(server.asked) in (2, 3)  # another may have been under way
        assert server.base_url in str(failure.value)
        assert "secret" not in str(failure.value)
    with TeacherServer(folder) as server:
        require_right(served(server, tmp_path, folder), server, texts(6))
        assert len(server.asked) == 3


def entry_change(change):
    """Changes the entry of the last position."""

    def changed(answer):
        entries = answer["choices"][0]["prompt_logprobs"]
        change(entries[-1])
        return answer

    return changed


def drop(entry):
    del entry[max(entry, key=lambda index: entry[index]["logprob"])]


def only_two(entry):
    for index in [*entry][2:]:
        del entry[index]


def set_log_prob(value):
    return lambda entry: entry[next(iter(entry))].update(logprob=value)


def doubled(entry):
    for index in entry:
        entry[index]["logprob"] = -0.1


UNSOUND = {
    "fewer tokens": (entry_change(only_two), r"another number of tokens \(got 2\).*top_logprobs"),
    "other tokens": (entry_change(lambda entry: entry.pop(next(iter(entry)))), "has read other tokens"),
    "NaN": (entry_change(set_log_prob(float("nan"))), r"no log-probability \(got nan\)"),
    "positive": (entry_change(set_log_prob(0.5)), r"no log-probability \(got 0.5\)"),
    "infinite": (entry_change(set_log_prob(float("-inf"))), r"no log-probability \(got -inf\)"),
    "beyond every float": (entry_change(set_log_prob(-(10**400))), r"no log-probability \(got -10{200,}"),
    "a sum above 1": (entry_change(doubled), "sum is more than 1"),
    "beyond the vocabulary": (
        entry_change(lambda entry: entry.update({"70000": {"logprob": -3.0}})),
        r"beyond the teacher's vocabulary \(got id 70000\)",
    ),
    "an id of thousands of digits": (
        entry_change(lambda entry: entry.update({"7" * 5000: {"logprob": -3.0}})),
        r"beyond the teacher's vocabulary \(got id 77777",
    ),
    "fewer positions": (
        lambda answer: answer["choices"][0]["prompt_logprobs"].pop() and answer,
        "has read other tokens",
    ),
}


@pytest.mark.parametrize("case", sorted(UNSOUND))
def test_an_unsound_answer_stops_at_once_with_a_sentence_and_is_not_kept(case, folder, tmp_path):
    change, message = UNSOUND[case]
    with TeacherServer(folder, change=change) as server:
        with pytest.raises(RunError, match=message):
            served(server, tmp_path, folder, concurrency=1).ask(texts(4))
        assert len(server.asked) in (1, 2)  # another may have been under way
    assert not list(tmp_path.rglob("*.arrow"))


def test_more_tokens_than_the_server_gives_are_refused_with_its_words(folder, tmp_path):
    refusal = fail(400, "Requested prompt logprobs of 50, which is greater than max allowed: 20")
    message = r"HTTP 400 Requested prompt logprobs of 50.*max allowed: 20"
    with TeacherServer(folder, [refusal]) as server, pytest.raises(RunError, match=message):
        served(server, tmp_path, folder, k=50).ask(texts(1))


@pytest.fixture(scope="module")
def second_tokenizer(tmp_path_factory, tokenizer_folder):
    """The usual tokenizer with two tokens swapped, which text alone tells apart."""
    folder = tmp_path_factory.mktemp("swapped")
    PreTrainedTokenizerFast.from_pretrained(tokenizer_folder).save_pretrained(folder)
    document = json.loads((folder / "tokenizer.json").read_text())
    ids = document["model"]["vocab"]
    letters = {"a": "e", "e": "i", "i": "o", "o": "a", "s": "t", "t": "s"}
    document["model"]["vocab"] = {token: ids[letters.get(token, token)] for token in ids}
    (folder / "tokenizer.json").write_text(json.dumps(document))
    return folder


def test_another_tokenizer_is_seen_before_any_text_is_sent(folder, second_tokenizer, tmp_path):
    with TeacherServer(folder, tokenizer=second_tokenizer) as server:
        with pytest.raises(RunError, match=r"has another tokenizer \(got \d+ tokens of a text that has \d+\)"):
            served(server, tmp_path, folder).ask(texts(3))
        assert server.asked == []


def test_another_tokenizer_is_seen_in_the_answer_where_the_server_offers_none(folder, second_tokenizer, tmp_path):
    message = r"another tokenizer \(got '.*' for token \d+\)"
    second = TeacherServer(folder, tokenizer=second_tokenizer, tokenizes=False)
    with second as server, pytest.raises(RunError, match=message):
        served(server, tmp_path, folder).ask(texts(6))
    with TeacherServer(folder, tokenizes=False) as server:
        require_right(served(server, tmp_path / "same", folder), server, texts(3))


def test_faults_of_a_server_name_its_teacher(tokenizer_folder):
    completions = Completions(Server("http://localhost/v1"), "tiny", K, 500, "teachers.maths")
    message = "teachers.maths, http://localhost/v1/completions: .*of teachers.maths.hub or teachers.maths.path"
    with pytest.raises(RunError, match=message):
        compare_decoded(completions, {1: "nothing"}, PreTrainedTokenizerFast.from_pretrained(tokenizer_folder))


def test_another_model_under_the_same_name_is_refused(folder, tokenizer_folder, tmp_path):
    examples = texts(4)
    other = write_teacher(tmp_path / "other", tokenizer_folder, seed=8)
    with TeacherServer(folder) as server:
        served(server, tmp_path / "kept", folder).ask(examples[:2])
        served(server, tmp_path / "kept", folder).ask(examples[2:3], kept=examples[0])
    message = r"has another model than before.*Give another model another name"
    with TeacherServer(other) as server, pytest.raises(RunError, match=message):
        served(server, tmp_path / "kept", folder).ask(examples[3:], kept=examples[0])


def test_the_limit_of_requests_is_kept_and_the_next_command_goes_on(folder, tmp_path):
    with TeacherServer(folder) as server:
        with pytest.raises(RunError, match=r"got 2 of 6 texts without an answer.*at most 4 requests"):
            served(server, tmp_path, folder, max_requests=4).ask(texts())
        assert len(server.asked) == 4
        require_right(served(server, tmp_path, folder), server, texts())
        assert len(server.asked) == 6


def test_a_server_that_is_restarted_in_mid_run_is_waited_for(folder, tmp_path):
    """Requests fail for as long as nothing listens; the same port answers later."""
    import threading

    with TeacherServer(folder) as server:
        teacher = served(server, tmp_path, folder, retries=20, concurrency=1)
        teacher.ask(texts(2))
        server._server.shutdown()
        server._server.server_close()
        revived = TeacherServer(folder)
        revived._server.server_close()
        address = server._server.server_address

        def revive():
            from http.server import ThreadingHTTPServer

            revived._server = ThreadingHTTPServer(address, revived._handler())
            revived.__enter__()

        timer = threading.Timer(0.3, revive)
        timer.start()
        teacher.ask(texts(4)[2:])
        timer.join()
        assert len(revived.asked) == 2
        revived._server.shutdown()
        revived._server.server_close()
        server._server = revived._server


def test_no_more_requests_are_under_way_than_asked_for(folder, tmp_path):
    with TeacherServer(folder, seconds=0.05) as server:
        served(server, tmp_path, folder, concurrency=2).ask(texts(8))
        assert server.most_at_once == 2


def test_without_a_key_that_may_be_sent_nothing_is(folder, tmp_path, monkeypatch):
    monkeypatch.delenv("MTA_KEY_HOSTS")
    with TeacherServer(folder) as server:
        with pytest.raises(RunError, match="export MTA_KEY_HOSTS=127"):
            served(server, tmp_path, folder).ask(texts(1))
        assert server.received == []
