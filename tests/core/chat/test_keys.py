"""Where a key goes, and where it must not appear."""

from __future__ import annotations

import logging

import pytest

from mta_framework import RunError
from mta_framework.chat import Chat, Endpoint, Question
from mta_framework.testing.chat_server import ChatServer, fail

KEY = "sk-very-secret-0123456789"


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("TEST_API_KEY", KEY)
    monkeypatch.setenv("MTA_KEY_HOSTS", "api.example.org, 127.0.0.1")
    monkeypatch.setattr("mta_framework.endpoints.asker.FIRST_WAIT", 0.01)


def chat(server, key_env="TEST_API_KEY", **options):
    return Chat("judge", Endpoint(server.base_url, "judge-1", key_env), 100, **options)


def questions(*texts):
    return [Question(f"prompt {row}", text) for row, text in enumerate(texts, 1)]


def anything(answer):
    return None


def echo(text):
    return f"told {text}"


def test_the_key_is_sent_and_appears_nowhere_else(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    with ChatServer(echo) as server:
        chat(server).ask(questions("x"), anything, tmp_path)
        assert server.received[0].headers["Authorization"] == f"Bearer {KEY}"
        assert server.received[0].path == "/v1/chat/completions"
    assert KEY not in caplog.text
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY in path.read_text()]


@pytest.mark.parametrize("hosts", [None, "", "api.example.org", "127.0.0.1.example.org,example.org"])
def test_a_key_is_sent_to_no_host_that_the_environment_does_not_name(hosts, monkeypatch):
    monkeypatch.delenv("MTA_KEY_HOSTS")
    if hosts is not None:
        monkeypatch.setenv("MTA_KEY_HOSTS", hosts)
    with ChatServer(echo) as server:
        with pytest.raises(RunError, match=r"judge: cannot send its key.*export MTA_KEY_HOSTS=127\.0\.0\.1$"):
            chat(server).ask(questions("x"), anything, None)
        with pytest.raises(ValueError, match="MTA_KEY_HOSTS"):
            chat(server).endpoint.server.client(1)
        assert server.received == []
        assert chat(server, key_env=None).ask(questions("x"), anything, None) == ["told x"]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://api.example.org/v1", None),
        ("https://API.example.org:8443/v1", None),
        ("http://127.0.0.1:8000/v1", None),
        ("http://api.example.org/v1", "plain http"),
        ("HTTP://api.example.org/v1", "plain http"),
        ("https://api.example.org.evil.org/v1", "MTA_KEY_HOSTS"),
        ("https://evil.org/api.example.org/v1", "MTA_KEY_HOSTS"),
        ("http://localhost.evil.org/v1", "plain http"),
        ("http://[::1]/v1", "MTA_KEY_HOSTS=::1"),
        ("http://localhost:8000/v1", "MTA_KEY_HOSTS=localhost"),
    ],
)
def test_where_a_key_may_go(url, reason):
    hint = Endpoint(url, "m", "TEST_API_KEY").key_hint()
    assert hint is None if reason is None else reason in str(hint)
    assert Endpoint(url, "m").key_hint() is None


def test_a_key_that_the_server_sends_back_is_neither_returned_nor_kept(tmp_path):
    with ChatServer(lambda question: f"Your key is {KEY}, right? [[7]]") as server:
        assert chat(server).ask(questions("x"), anything, tmp_path) == ["Your key is ***, right? [[7]]"]
    assert [KEY in path.read_text() for path in tmp_path.rglob("*.json")] == [False]


@pytest.mark.parametrize("status", [400, 500])
def test_no_part_of_a_key_is_left_where_a_message_is_cut(status):
    for blanks in (0, 280, 295, 1195):
        for filler in (" ", "x"):
            message = filler * blanks + KEY
            with ChatServer(echo, [fail(status, message)]) as server, pytest.raises(RunError) as failure:
                chat(server, retries=0).ask(questions("x"), anything, None)
            assert KEY[:6] not in str(failure.value)


def test_without_key_env_no_key_is_sent():
    with ChatServer(echo) as server:
        chat(server, key_env=None).ask(questions("x"), anything, None)
        assert "Authorization" not in server.received[0].headers


@pytest.mark.parametrize("value", [None, "", " \n", "sk\nsecret", "sk-ключ", "sk secret", "sk-'secret'"])
def test_a_key_that_is_missing_or_no_key_is_reported_before_anything_is_sent(value, monkeypatch):
    monkeypatch.delenv("TEST_API_KEY")
    if value is not None:
        monkeypatch.setenv("TEST_API_KEY", value)
    with ChatServer(echo) as server:
        one = chat(server)
        assert "TEST_API_KEY" in str(one.endpoint.key_hint())
        with pytest.raises(RunError, match="TEST_API_KEY") as failure:
            one.ask(questions("x"), anything, None)
        assert server.received == []
        assert "secret" not in str(failure.value)


def test_a_key_may_end_in_a_line_break(monkeypatch):
    monkeypatch.setenv("TEST_API_KEY", f"{KEY}\n")
    with ChatServer(echo) as server:
        chat(server).ask(questions("x"), anything, None)
        assert server.received[0].headers["Authorization"] == f"Bearer {KEY}"
