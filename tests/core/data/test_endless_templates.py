"""Chat templates that do not end: stopped, with a fault, on the first row."""

from __future__ import annotations

import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from mta_framework.data.prompts import render_prompts
from mta_framework.data.rows import Message, Record
from mta_framework.errors import InputError
from mta_framework.models.turn_end import settle_turn_end
from mta_framework.timers import time_limit

LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
ROWS = [Record((Message("user", "Hi"),), ("Hello",), where=f"rows.jsonl:{row}") for row in (1, 2)]


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr("mta_framework.data.chat_template.TEMPLATE_SECONDS", 0.1)
    monkeypatch.setattr("mta_framework.models.turn_end.TEMPLATE_SECONDS", 0.1)


@pytest.mark.parametrize("supervise", ["last", "none"])
def test_an_endless_template_is_a_fault_of_the_first_row_alone(chat_tokenizer, supervise):
    chat_tokenizer.chat_template = LOOP
    with pytest.raises(InputError) as refusal:
        render_prompts(ROWS, "chat", chat_tokenizer, supervise=supervise)
    (fault,) = refusal.value.faults
    assert fault.where == "data.template"
    assert "does not end (it took more than 0.1 s on rows.jsonl:1)" in fault.problem


def test_a_template_that_is_endless_for_some_content_only_is_a_fault_too(chat_tokenizer):
    chat_tokenizer.chat_template = (
        "{% for m in messages %}{% if m.content not in ['Hi', 'Hello'] %}" + LOOP + "{% endif %}"
        "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    with pytest.raises(InputError, match="does not end"):
        render_prompts(ROWS, "chat", chat_tokenizer)


def test_what_ends_a_turn_of_an_endless_template_is_not_settled(chat_tokenizer):
    chat_tokenizer.chat_template = LOOP
    assert "it took more than 0.1 s" in settle_turn_end(chat_tokenizer, []).chat_problem


def test_a_limit_leaves_other_alarms_alone():
    rang = []
    before = signal.signal(signal.SIGALRM, lambda *_: rang.append(True))
    try:
        signal.setitimer(signal.ITIMER_REAL, 2)
        with time_limit(30):
            pass
        with pytest.raises(TimeoutError), time_limit(0.05):
            time.sleep(60)
        assert rang == []
        signal.pause()
        assert rang == [True]
    finally:
        signal.signal(signal.SIGALRM, before)


def in_thread(work):
    """What the work returns or raises in a thread of its own."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result(timeout=60)


def test_an_endless_template_is_a_fault_in_a_worker_thread_too(chat_tokenizer):
    chat_tokenizer.chat_template = LOOP
    with pytest.raises(InputError, match=r"does not end \(it took more than 0.1 s on rows.jsonl:1\)"):
        in_thread(lambda: render_prompts(ROWS, "chat", chat_tokenizer))
    assert "it took more than 0.1 s" in in_thread(lambda: settle_turn_end(chat_tokenizer, [])).chat_problem


def test_a_limit_in_a_worker_thread_ends_with_its_block():
    def late():
        """Reach the end of a block at about the moment of its limit, many times; then outlive them all."""
        ends = []
        for _ in range(200):
            try:
                with time_limit(0.002):
                    end = time.monotonic() + 0.002
                    while time.monotonic() < end:
                        pass
                ends.append("in time")
            except TimeoutError as error:
                ends.append(str(error))
        end = time.monotonic() + 0.05
        while time.monotonic() < end:
            pass
        return set(ends)

    assert in_thread(late) <= {"in time", "it took more than 0.002 s"}


def test_a_limit_in_a_worker_thread_passes_on_what_the_block_raises():
    def failing():
        with time_limit(60):
            raise TimeoutError("of the block")

    with pytest.raises(TimeoutError, match="of the block"):
        in_thread(failing)
    assert threading.active_count() < 20
