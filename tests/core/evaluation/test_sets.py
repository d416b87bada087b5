"""Evaluation sets: questions, references, and prompts that are too long."""

from __future__ import annotations

import copy
import json

import pytest

from mta_framework import InputError
from mta_framework.evaluation.sets import read_sets
from mta_framework.spec.evaluation import ScoringSection


@pytest.fixture
def read(tmp_path, tokenizer):
    """Reads rows as the set ``test``, with the words of the tokenizer for tokens."""
    tokenizer = copy.deepcopy(tokenizer)  # it is shared
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}"

    def read(rows, template="alpaca", **settings):
        path = tmp_path / "test.jsonl"
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        section = ScoringSection(sets={"test": {"path": str(path)}}, **settings)
        (evaluation_set,) = read_sets(section, template, tokenizer)
        return evaluation_set

    return read


def prompts(*lengths):
    return [{"prompt": " ".join(["w1"] * (length - 1) + ["w2"]), "completion": "w3"} for length in lengths]


def test_long_prompts_lose_their_beginning_and_are_counted(read):
    evaluation_set = read(prompts(2, 3, 4, 6), max_prompt_length=3)
    assert evaluation_set.prompt_ids == [[1, 2], [1, 1, 2], [1, 1, 2], [1, 1, 2]]
    assert evaluation_set.cut == 2
    assert evaluation_set.prompts[3] == " w1 w1 w2"


def test_long_prompts_are_refused_where_the_spec_says_so(read):
    assert read(prompts(2, 3), max_prompt_length=3, long_prompts="refuse").cut == 0
    with pytest.raises(InputError) as caught:
        read(prompts(2, 4, 6), max_prompt_length=3, long_prompts="refuse")
    assert str(caught.value) == (
        "evaluation.sets.test: has prompts of more than evaluation.max_prompt_length (got 2 longer ones, up to 6 "
        "tokens); expected at most 3 tokens where evaluation.long_prompts is 'refuse'. Raise "
        "evaluation.max_prompt_length, or set evaluation.long_prompts to 'cut'."
    )


def test_prompts_whose_template_leaves_no_room_for_the_question_are_a_fault(read):
    rows = [{"instruction": "w1", "output": "w2"}, {"instruction": "w1 " * 40, "output": "w2"}]
    with pytest.raises(InputError) as caught:
        read(rows, max_prompt_length=20)
    assert str(caught.value) == (
        "evaluation.sets.test: has prompts whose template and system's turn leave no room for what is asked (got 2); "
        "expected room for it within the 20 tokens of evaluation.max_prompt_length. Raise evaluation.max_prompt_length."
    )
    assert read(rows, max_prompt_length=30).cut == 1


@pytest.mark.parametrize("template", ["alpaca", "chat"])
def test_questions_are_what_was_asked_without_any_template(read, template):
    rows = [
        {"instruction": "Name it.", "input": "a lamp", "output": ["Lamp.", "A lamp."]},
        {"instruction": "Name it.", "input": "", "output": "Lamp."},
    ]
    evaluation_set = read(rows, template)
    assert list(evaluation_set.questions) == ["Name it.\n\na lamp", "Name it."]
    assert list(evaluation_set.references) == [("Lamp.", "A lamp."), ("Lamp.",)]
    assert "Name it." in evaluation_set.prompts[1] != "Name it."


def test_questions_of_conversations_are_their_turns(read):
    turns = [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello")]
    rows = [
        {"messages": [{"role": role, "content": content} for role, content in turns]},
        {"messages": [{"role": role, "content": content} for role, content in turns[1:]]},
    ]
    assert list(read(rows).questions) == ["system: Be brief.\n\nuser: Hi", "Hi"]
