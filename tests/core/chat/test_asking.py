"""Asking a server that misbehaves on purpose."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from mta_framework import RunError
from mta_framework.chat import Chat, Endpoint, Question
from mta_framework.endpoints.asker import Asker
from mta_framework.endpoints.server import Server
from mta_framework.testing.chat_server import ChatServer, fail, send_answer, send_response

KEY = "sk-very-secret-0123456789"
CONTENT = b'{"choices": [{"message": {"content": "[[5]]"}}]}'


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("TEST_API_KEY", KEY)
    monkeypatch.setenv("MTA_KEY_HOSTS", "api.example.org, 127.0.0.1")
    monkeypatch.setattr("mta_framework.endpoints.asker.FIRST_WAIT", 0.01)


def chat(server, key_env="TEST_API_KEY", timeout=5.0, max_requests=100, **options):
    endpoint = Endpoint(server.base_url, "judge-1", key_env, timeout=timeout)
    return Chat("judge", endpoint, max_requests, **options)


def questions(*texts):
    return [Question(f"prompt {row}", text) for row, text in enumerate(texts, 1)]


def anything(answer):
    return None


def echo(text):
    return f"told {text}"


def cut_off(handler):
    """A body that ends in the middle."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(CONTENT)))
    handler.end_headers()
    handler.wfile.write(CONTENT[:20])
    handler.wfile.flush()
    handler.close_connection = True


def hung_up(handler):
    """No response at all."""
    handler.close_connection = True


def slow(handler):
    time.sleep(1.5)
    send_answer(handler, "too late")


def dripping(handler):
    """A byte now and then, for longer than the whole request may take."""
    handler.send_response(200)
    handler.send_header("Content-Length", "40")
    handler.end_headers()
    for _ in range(40):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.05)


def of(content):
    return lambda handler: send_response(handler, 200, content)


MISHAPS = {
    "429": fail(429, "slow down"),
    "500": fail(500, "oops"),
    "503 without a body": lambda handler: send_response(handler, 503, b""),
    "408": fail(408),
    "cut off": cut_off,
    "hung up": hung_up,
    "slow": slow,
    "dripping": dripping,
    "not JSON": of(b"<html>busy</html>"),
    "not UTF-8": of(b"\xff\xfe"),
    "a list": of(b"[]"),
    "null": of(b"null"),
    "no choices": of(b'{"choices": []}'),
    "no message": of(b'{"choices": [{"text": "5"}]}'),
    "nested for ever": of(b"[" * 100_000),
    "bad gzip": lambda handler: send_response(handler, 200, b"no gzip", {"Content-Encoding": "gzip"}),
}


@pytest.mark.parametrize("mishap", MISHAPS.values(), ids=MISHAPS)
def test_a_mishap_that_may_pass_is_asked_again(mishap):
    with ChatServer(echo, [mishap, mishap]) as server:
        assert chat(server, timeout=1.0, retries=2).ask(questions("x"), anything, None) == ["told x"]
        assert [request.question for request in server.received] == ["x"] * 3


@pytest.mark.parametrize("mishap", MISHAPS.values(), ids=MISHAPS)
def test_a_mishap_that_stays_stops_with_the_name_of_the_prompt(mishap):
    with ChatServer(echo, [mishap] * 9) as server:
        with pytest.raises(RunError, match=r"gives no answer to prompt 1 \(got ") as failure:
            chat(server, timeout=1.0, retries=1).ask(questions("x"), anything, None)
        assert len(server.received) == 2
        assert server.base_url in str(failure.value)
        assert KEY not in str(failure.value)


@pytest.mark.parametrize(
    ("status", "message"), [(400, "no such model"), (401, f"Incorrect API key {KEY}"), (403, ""), (404, "nothing")]
)
def test_a_request_that_is_refused_is_not_sent_again_and_the_reason_is_shown_without_the_key(status, message):
    with ChatServer(echo, [fail(status, message)]) as server:
        with pytest.raises(RunError, match=f"refuses the request .got HTTP {status}") as failure:
            chat(server, concurrency=1).ask(questions(*"abcdef"), anything, None)
        # Another may have been under way.
        assert len(server.received) <= 2
        assert message.replace(KEY, "***") in str(failure.value)
        assert KEY not in str(failure.value)


def test_a_redirect_is_not_followed():
    with ChatServer(echo) as second:
        moved = fail(307, "", {"Location": f"{second.base_url}/chat/completions"})
        with ChatServer(echo, [moved]) as server, pytest.raises(RunError, match="HTTP 307"):
            chat(server).ask(questions("x"), anything, None)
        assert second.received == []


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_waited_for(status, form):
    later = {"seconds": "1", "date": format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)}
    with ChatServer(echo, [fail(status, "", {"Retry-After": later[form]})]) as server:
        begun = time.monotonic()
        chat(server).ask(questions("x"), anything, None)
        assert 0.9 <= time.monotonic() - begun < 30


@pytest.mark.parametrize("header", ["", "soon", "-1", "Thu, 01 Jan 1970 00:00:00 GMT", "²"])
def test_a_retry_after_that_says_nothing_is_as_none(header):
    with ChatServer(echo, [fail(429, "", {"Retry-After": header.encode().decode("latin-1")})]) as server:
        begun = time.monotonic()
        assert chat(server).ask(questions("x"), anything, None) == ["told x"]
        assert time.monotonic() - begun < 3


def test_a_server_that_asks_for_hours_is_reported_and_not_waited_for():
    with ChatServer(echo, [fail(429, "quota", {"Retry-After": "7200"})]) as server:
        with pytest.raises(RunError, match=r"HTTP 429 quota, asks for a wait of 7200 s"):
            chat(server).ask(questions("x"), anything, None)
        assert len(server.received) == 1


def test_waits_grow_twofold_up_to_a_minute_and_are_spread(monkeypatch):
    monkeypatch.setattr("mta_framework.endpoints.asker.FIRST_WAIT", 1.0)
    one = Asker("judge", Server("http://localhost"), 1, 1, 1)
    waits = [[one.wait_before(attempt, None) for _ in range(200)] for attempt in range(9)]
    assert [max(row) <= min(60, 2**attempt) for attempt, row in enumerate(waits)] == [True] * 9
    assert [min(row) >= min(60, 2**attempt) / 2 for attempt, row in enumerate(waits)] == [True] * 9
    assert all(max(row) - min(row) > 0.25 * max(row) for row in waits)


def test_answers_come_in_the_order_of_the_questions_and_equal_ones_are_asked_once():
    with ChatServer(echo, seconds=0.02) as server:
        texts = [str(index % 7) for index in range(30)]
        assert chat(server).ask(questions(*texts), anything, None) == [echo(text) for text in texts]
        assert sorted(request.question for request in server.received) == list("0123456")


@pytest.mark.parametrize("concurrency", [1, 3])
def test_no_more_requests_are_under_way_than_allowed(concurrency):
    with ChatServer(echo, seconds=0.1) as server:
        chat(server, concurrency=concurrency).ask(questions(*"abcdefghi"), anything, None)
        assert server.most_at_once == concurrency


@pytest.mark.parametrize("concurrency", [1, 4])
def test_the_limit_of_requests_is_kept_to_the_last_and_what_came_is_kept(concurrency, tmp_path):
    with ChatServer(echo, [fail(500)]) as server:
        one = chat(server, max_requests=6, concurrency=concurrency)
        with pytest.raises(RunError, match="got 5 of 10 questions without an answer") as failure:
            one.ask(questions(*"abcdefghij"), anything, tmp_path)
        assert len(server.received) == one.requests == 6
        assert "at most 6 requests (max_requests)" in str(failure.value)
        with pytest.raises(RunError, match="got 5 of 5 questions without"):
            one.ask(questions(*"abcdefghij"), anything, tmp_path)
        assert len(server.received) == 6
        assert len(chat(server).ask(questions(*"abcdefghij"), anything, tmp_path)) == 10
        assert len(server.received) == 11


def test_a_second_time_nothing_is_asked_not_even_for_the_key(tmp_path, monkeypatch):
    with ChatServer(echo) as server:
        first = chat(server).ask(questions(*"abc"), anything, tmp_path)
        monkeypatch.delenv("TEST_API_KEY")
        again = chat(server)
        assert again.ask(questions(*"cab"), anything, tmp_path) == [first[2], first[0], first[1]]
        assert (len(server.received), again.requests) == (3, 0)


def test_another_model_temperature_or_server_is_asked_anew(tmp_path):
    with ChatServer(echo) as server, ChatServer(echo) as second:
        base = Endpoint(server.base_url, "judge-1")
        variants = [
            base,
            Endpoint(server.base_url, "judge-2"),
            Endpoint(server.base_url, "judge-1", temperature=None),
            Endpoint(second.base_url, "judge-1"),
        ]
        for endpoint in [*variants, *variants]:
            Chat("judge", endpoint, 10).ask(questions("x"), anything, tmp_path)
        assert (len(server.received), len(second.received)) == (3, 1)
        assert [request.body.get("temperature") for request in server.received] == [0.0, 0.0, None]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[]",
        lambda text: '{"reply": 5}',
        lambda text: text.replace("told", "5, told").replace('"text": "5, told x"', '"text": 5'),
        lambda text: text.replace('"content": "x"', '"content": "y"'),
        lambda text: text.replace('"input_tokens": 100', '"input_tokens": "many"'),
    ],
)
def test_a_kept_answer_that_is_damaged_is_asked_for_again(damage, tmp_path):
    with ChatServer(echo) as server:
        chat(server).ask(questions("x"), anything, tmp_path)
        (path,) = tmp_path.rglob("*.json")
        before = path.read_text()
        assert damage(before) != before
        path.write_text(damage(before))
        assert chat(server).ask(questions("x"), anything, tmp_path) == ["told x"]
        assert path.read_text() == before
        assert len(server.received) == 2


def test_answers_of_no_use_are_asked_for_again_and_never_kept(tmp_path):
    answers = iter(["no", "no", "yes"])
    with ChatServer(lambda question: next(answers)) as server:
        one = chat(server)
        answers = one.ask(questions("x"), lambda text: None if text == "yes" else "not yes", tmp_path)
        assert answers == ["yes"]
        assert (one.requests, one.input_tokens, one.output_tokens) == (3, 300, 30)
        assert len([*tmp_path.rglob("*.json")]) == 1


def test_all_prompts_without_a_usable_answer_are_named_and_the_others_are_kept(tmp_path):
    with ChatServer(lambda question: question) as server:
        with pytest.raises(RunError, match=r"no usable answer to 2 of 5 questions") as failure:
            chat(server, retries=1).ask(
                questions(*"abcde"), lambda text: "a bad letter" if text in "bd" else None, tmp_path
            )
        assert "prompt 2: a bad letter; prompt 4: a bad letter" in str(failure.value)
        assert len([*tmp_path.rglob("*.json")]) == 3
        assert len(server.received) == 7


def test_an_empty_answer_is_left_to_the_check():
    with ChatServer(lambda question: None) as server:
        assert chat(server).ask(questions("x"), anything, None) == [""]


def test_any_text_can_be_asked_and_answered(tmp_path):
    texts = ["", "日本語 🙂", "\ud800 half", "a\x00b\r\n", "{braces} [[5]]"]
    with ChatServer(lambda question: question) as server:
        for _ in range(2):
            assert chat(server).ask(questions(*texts), anything, tmp_path) == texts
        assert len(server.received) == len(texts)


def test_no_questions_need_no_server():
    assert Chat("judge", Endpoint("http://127.0.0.1:1", "m", "NO_SUCH_API_KEY"), 1).ask([], anything, None) == []


def test_a_server_that_is_not_there_is_reported():
    one = Chat("judge", Endpoint("http://127.0.0.1:1/v1", "m"), 5, retries=1)
    with pytest.raises(RunError, match="ConnectError"):
        one.ask(questions("x"), anything, None)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8000",
        "ftp://a/v1",
        "file:///etc/passwd",
        "http://",
        "http://user:secret@host/v1",
        "http://host:99999",
        "http://host/v1?key=1",
        "http://host/#x",
        "http://a b/",
        "http://[::1",
        "http://host\n",
    ],
)
def test_what_is_no_address_of_a_server_is_refused(url):
    with pytest.raises(ValueError, match=r"URL|password"):
        Endpoint(url, "m")


@pytest.mark.parametrize("url", ["http://localhost:8000/v1", "https://api.openai.com/v1/", "http://[::1]:80/v1"])
def test_addresses_of_servers_are_taken(url):
    assert Endpoint(url, "m").url == f"{url.rstrip('/')}/chat/completions"


def test_random_numbers_of_the_run_are_left_alone():
    import random

    state = random.getstate()
    with ChatServer(echo, [fail(500)]) as server:
        chat(server).ask(questions("x"), anything, None)
    assert random.getstate() == state


def test_usage_that_a_server_does_not_count_is_0():
    usage = b'{"choices": [{"message": {"content": "y"}}], "usage": {"prompt_tokens": null}}'
    with ChatServer(echo, [of(usage)]) as server:
        one = chat(server)
        assert one.ask(questions("x"), anything, None) == ["y"]
        assert (one.requests, one.input_tokens, one.output_tokens) == (1, 0, 0)


def test_kept_answers_are_standard_json_with_the_question(tmp_path):
    with ChatServer(echo) as server:
        chat(server).ask(questions("x"), anything, tmp_path)
    (path,) = tmp_path.rglob("*.json")
    entry = json.loads(path.read_text())
    assert entry["request"]["messages"] == [{"role": "user", "content": "x"}]
    assert entry["reply"] == {"text": "told x", "input_tokens": 100, "output_tokens": 10}
