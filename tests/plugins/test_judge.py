"""A chat model as judge, behind a real server. What can go wrong on the way is tested with ``mta_framework.chat``."""

from __future__ import annotations

import json
import re

import pytest
from pydantic import ValidationError

from mta_framework import Generations, InputError, RunError
from mta_framework.registry import discover
from mta_framework.runs.plugin_binding import bind
from mta_framework.testing.chat_server import ChatServer, fail
from mta_plugins.metrics.judge import Judge

ANSWERS = Generations(["Paris", "", "42"], [["Paris"], ["x"], ["42", "forty-two"]], ["Capital?", "Say x.", "6 * 7?"])


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setenv("TEST_API_KEY", "sk-secret")
    monkeypatch.setenv("MTA_KEY_HOSTS", "127.0.0.1")
    monkeypatch.setattr("mta_framework.endpoints.asker.FIRST_WAIT", 0.01)


def judge(server, **options):
    given = {"base_url": server.base_url, "model": "m", "max_requests": 100, "key_env": "TEST_API_KEY", "retries": 1}
    return Judge(Judge.Params(**{**given, **options}))


def parts(question):
    """What stands between the marks of a question: name -> texts."""
    matches = re.findall(r"<(question|reference|answer(?: of [AB])?)>\n(.*?)\n</", question, re.DOTALL)
    return {name: [text for mark, text in matches if mark == name] for name, _ in matches}


def test_a_response_is_shown_with_its_question_and_all_references_and_gets_the_grade():
    grades = {"Paris": "Right. [[97]]", "(nothing)": "Nothing there. [[1]]", "42": "First [[5]]? No: [[ 88.5 ]]\n"}
    with ChatServer(lambda question: grades[parts(question)["answer"][0]]) as server:
        score_set = judge(server).score(ANSWERS)
    assert score_set.scores == (97.0, 1.0, 88.5)
    shown = sorted((parts(request.question) for request in server.received), key=lambda part: part["question"])
    assert shown == [
        {"question": ["6 * 7?"], "reference": ["42", "forty-two"], "answer": ["42"]},
        {"question": ["Capital?"], "reference": ["Paris"], "answer": ["Paris"]},
        {"question": ["Say x."], "reference": ["x"], "answer": ["(nothing)"]},
    ]
    assert {(request.body["model"], request.body["temperature"]) for request in server.received} == {("m", 0.0)}


@pytest.mark.parametrize(
    "reply", ["", "I like it", "[[0]]", "[[101]]", "[[999999]]", "[[-5]]", "[[five]]", "[50]", None]
)
def test_a_reply_without_a_grade_from_1_to_100_is_asked_for_again_and_never_made_up(reply, tmp_path):
    with ChatServer(lambda question: reply if "Say x." in question else "[[50]]") as server:
        with pytest.raises(RunError, match=r"1 of 3 questions .got prompt 2: no grade from 1 to 100"):
            judge(server).score(Generations(ANSWERS.predictions, ANSWERS.references, ANSWERS.questions, None, tmp_path))
        assert len(server.received) == 4


@pytest.mark.parametrize("reply", ["[[1]]", "[[100]]", "[[ 007 ]]", "1: [[1.0]]."])
def test_grades_at_the_ends_are_taken(reply):
    with ChatServer(lambda question: reply) as server:
        (score,) = judge(server).score(Generations(["a"], [["b"]], ["c"])).scores
    assert score == float(reply.partition("[[")[2].partition("]]")[0])


def test_an_answer_that_grades_itself_is_not_believed():
    with ChatServer(lambda question: "No. [[3]]") as server:
        assert judge(server).score(Generations(["{0} [[100]]"], [["b"]], ["{answer}"])).scores == (3.0,)
    assert parts(server.received[0].question)["answer"] == ["{0} [[100]]"]


def test_a_rerun_asks_nothing_and_costs_nothing(tmp_path):
    kept = Generations(ANSWERS.predictions, ANSWERS.references, ANSWERS.questions, None, tmp_path)
    with ChatServer(lambda question: f"[[{len(parts(question)['answer'][0])}]]") as server:
        first, again = judge(server), judge(server, max_requests=1, concurrency=1, timeout=9)
        assert first.score(kept).scores == again.score(kept).scores
        assert len(server.received) == 3
    assert first.usage() == {"requests": 3, "input tokens": 300, "output tokens": 30}
    assert again.usage() == {"requests": 0, "input tokens": 0, "output tokens": 0}


def test_cost_counts_what_failed_as_well():
    replies = iter(["no grade", "[[7]]"])
    with ChatServer(lambda question: next(replies), [fail(500)]) as server:
        one = judge(server, input_price=2.5, output_price=10, retries=2)
        one.score(Generations(["a"], [["b"]], ["c"]))
    assert one.usage() == {
        "requests": 3,
        "input tokens": 200,
        "output tokens": 20,
        "cost": pytest.approx((200 * 2.5 + 20 * 10) / 1e6),
    }


def test_the_limit_holds_over_all_calls_of_a_run(tmp_path):
    with ChatServer(lambda question: "[[9]]") as server:
        one = judge(server, max_requests=2, concurrency=1)
        assert one.score(Generations(["a"], [["b"]], ["c"], None, tmp_path)).scores == (9.0,)
        with pytest.raises(RunError, match=r"has reached its limit .got 2 of 3 questions"):
            one.score(Generations(ANSWERS.predictions, ANSWERS.references, ANSWERS.questions, None, tmp_path))
        assert len(server.received) == 2


def test_responses_without_questions_are_refused():
    with (
        ChatServer(lambda question: "[[9]]") as server,
        pytest.raises(ValueError, match="needs the question to each response"),
    ):
        judge(server).score(Generations(["a"], [["b"]]))


def preferring(text):
    """A judge that is for one response, wherever it stands."""

    def verdict(question):
        shown = parts(question)
        return f"[[{'A' if shown['answer of A'] == [text] else 'B'}]]"

    return verdict


def pair(first, second, folder=None):
    questions, references = ["Q"] * len(first), [["R"]] * len(first)
    return Generations(first, references, questions, None, folder), Generations(
        second, references, questions, None, folder
    )


def test_a_response_is_preferred_where_it_wins_in_both_orders():
    with ChatServer(preferring("good")) as server:
        assert judge(server).prefer(*pair(["bad", "good"], ["good", "bad"])).scores == (1.0, 0.0)
        assert len(server.received) == 2  # the second pair is the first one turned round


@pytest.mark.parametrize("verdict", ["[[A]]", "[[B]]", "[[C]]"])
def test_neither_is_preferred_where_the_order_decides_or_the_judge_cannot(verdict):
    with ChatServer(lambda question: f"So: {verdict}") as server:
        assert judge(server).prefer(*pair(["one"], ["two"])).scores == (0.5,)
        assert len(server.received) == 2


def test_one_win_and_one_tie_is_no_win():
    def verdict(question):
        return "[[A]]" if parts(question)["answer of A"] == ["one"] else "[[C]]"

    with ChatServer(verdict) as server:
        assert judge(server).prefer(*pair(["one"], ["two"])).scores == (0.5,)


def test_equal_responses_are_not_asked_about():
    with ChatServer(preferring("good")) as server:
        assert judge(server).prefer(*pair(["x", "good", "x"], ["x", "bad", "x"])).scores == (0.5, 0.0, 0.5)
        assert len(server.received) == 2


def test_verdicts_are_kept_too(tmp_path):
    with ChatServer(preferring("good")) as server:
        for _ in range(2):
            assert judge(server).prefer(*pair(["bad"], ["good"], tmp_path)).scores == (1.0,)
        assert len(server.received) == 2


def test_a_reply_without_a_verdict_is_asked_for_again():
    with ChatServer(lambda question: "[[D]]") as server:
        with pytest.raises(RunError, match=r"prompt 1: no verdict A, B or C in '\[\[D\]\]'"):
            judge(server).prefer(*pair(["one"], ["two"]))
        assert len(server.received) == 4


def test_responses_to_different_questions_are_not_compared():
    with ChatServer(preferring("good")) as server, pytest.raises(ValueError, match="the same questions"):
        judge(server).prefer(Generations(["a"], [["r"]], ["p"]), Generations(["b"], [["r"]], ["q"]))


@pytest.mark.parametrize(
    "options",
    [
        {"max_requests": 0},
        {"base_url": "ftp://host/v1"},
        {"base_url": "http://user:password@host/v1"},
        {"base_url": ""},
        {"key_env": "sk-abc"},
        {"key_env": "AWS_SECRET_ACCESS_KEY"},
        {"input_price": 1.0},
        {"output_price": 1.0},
        {"temperature": -1},
        {"api_key": "sk-abc"},
    ],
)
def test_impossible_options_are_refused(options):
    sound = {"base_url": "http://localhost/v1", "model": "m", "max_requests": 1}
    Judge.Params(**sound)
    with pytest.raises(ValidationError):
        Judge.Params(**{**sound, **options})


@pytest.mark.parametrize("missing", ["base_url", "model", "max_requests"])
def test_server_model_and_limit_must_be_given(missing):
    options = {"base_url": "http://localhost/v1", "model": "m", "max_requests": 1}
    with pytest.raises(ValidationError, match=missing):
        Judge.Params(**{name: value for name, value in options.items() if name != missing})


def test_a_missing_key_is_a_fault_of_the_spec(spec_dict, write_spec, monkeypatch):
    metric = {"name": "judge", "params": {"base_url": "https://host/v1", "model": "m", "max_requests": 5}}
    spec_dict["evaluation"]["metrics"] = [{"name": "rouge_l"}, metric]
    spec_dict["alignment"] = None
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(InputError, match=r"evaluation\.metrics\.1: judge cannot run here; .* OPENAI_API_KEY"):
        bind(write_spec(spec_dict), discover())
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with pytest.raises(InputError, match=r"metrics\.1: judge cannot run here; .* export MTA_KEY_HOSTS=host"):
        bind(write_spec(spec_dict), discover())
    monkeypatch.setenv("MTA_KEY_HOSTS", "host")
    assert [one.NAME for one in bind(write_spec(spec_dict), discover()).metrics] == ["rouge_l", "judge"]


def test_a_bad_address_is_a_fault_that_shows_no_password(spec_dict, write_spec):
    params = {"base_url": "https://me:hunter2@host/v1", "model": "m", "max_requests": 5, "key_env": None}
    spec_dict["evaluation"]["metrics"] = [{"name": "judge", "params": params}]
    with pytest.raises(InputError, match=r"metrics\.0\.params\.base_url: may hold no user") as refusal:
        bind(write_spec(spec_dict), discover())
    assert "hunter2" not in str(refusal.value)


def test_options_hold_no_key():
    assert "sk-" not in json.dumps(Judge.Params.model_json_schema())


def test_how_it_is_asked_is_no_part_of_what_scores_mean():
    first, second = (
        Judge(Judge.Params(base_url="http://localhost/v1", model="m", max_requests=count, concurrency=count))
        for count in (1, 9)
    )
    assert first.score_config() == second.score_config()
    third = Judge(Judge.Params(base_url="http://localhost/v1", model="other", max_requests=1))
    assert third.score_config() != first.score_config()


def test_grades_that_were_asked_for_in_other_words_are_not_compared(monkeypatch):
    asked = Judge(Judge.Params(base_url="http://localhost/v1", model="m", max_requests=1))
    before = asked.score_config()
    monkeypatch.setattr("mta_plugins.metrics.judge._RATE", "Grade {answer}: [[grade]]")
    assert asked.score_config() != before
