"""Fields of messages: every one is written by the chat template, or refused by field, file and line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import chat_templates
import pytest
from turns import ANSWER, TOOLS, USER, Turn, call, turn

from mta_framework.data.prompts import Sample
from mta_framework.errors import InputError

Rendered = Callable[..., list[Sample]]


@pytest.mark.parametrize(
    ("template", "row", "problem"),
    [
        ("CHATML", {"messages": [USER, call({"a": 1}, ""), USER, ANSWER]}, "messages[1].tool_calls is left out"),
        ("CHATML", {"messages": [USER, call({"a": 1})]}, "messages[1].tool_calls is left out"),
        ("CHATML", {"messages": [USER, ANSWER], "tools": TOOLS}, "tools is left out by the chat template (got 1)"),
        (
            "CHATML",
            {"messages": [USER, turn("assistant", "b", reasoning_content="c")]},
            "messages[1].reasoning_content is left out by the chat template (got \"c\" of role 'assistant')",
        ),
        ("QWEN3", {"messages": [turn("user", "a", name="Ann"), ANSWER]}, "messages[0].name is left out"),
        (
            "CHATML",
            {"messages": [USER, turn("assistant", "b", weight=0), USER, ANSWER]},
            "messages[1].weight is left out by the chat template (got 0 of role 'assistant')",
        ),
        ("CHATML", {"messages": [USER, turn("assistant", "b", train=False), USER, ANSWER]}, "(got false of role"),
        ("QWEN3", {"messages": [turn("developer", "d"), USER, ANSWER]}, "messages[0].content is left out"),
        ("QWEN3", {"messages": [USER, call({"a": 1}), turn("tool", "7", tool_call_id="x"), ANSWER]}, "tool_call_id"),
        ("R1", {"messages": [USER, turn("tool", "7"), ANSWER]}, "messages[1].content is left out"),
        ("LLAMA31", {"messages": [USER, call({"a": 1}, "Let me look.")]}, "messages[1].content is left out"),
        ("STRICT", {"messages": [turn("developer", "d"), USER, ANSWER]}, "messages[0].role 'developer'"),
        (
            "LLAMA31",
            {"messages": [USER, turn("assistant", None, tool_calls=[{"function": {"name": "f"}}] * 2)]},
            "one call at a time; it has messages[1].tool_calls",
        ),
    ],
)
@pytest.mark.parametrize("supervise", ["last", "none"])
def test_what_a_template_drops_is_refused_with_field_file_and_line(
    rendered: Rendered, template: str, row: Mapping[str, Any], problem: str, supervise: str
) -> None:
    good = {"messages": [turn("user", "a"), turn("assistant", "b")]}
    with pytest.raises(InputError) as caught:
        rendered(getattr(chat_templates, template), good, row, supervise=supervise)
    assert problem in str(caught.value)
    assert "rows.jsonl:2" in str(caught.value)
    assert "rows.jsonl:1" not in str(caught.value)


@pytest.mark.parametrize("supervise", ["last", "none"])
@pytest.mark.parametrize("middle", [(), (USER, ANSWER)])
def test_a_system_s_turn_that_gives_way_to_a_later_one_is_refused_after_rows_with_one_alone(
    rendered: Rendered, supervise: str, middle: Sequence[Turn]
) -> None:
    one = {"messages": [turn("system", "first"), USER, ANSWER]}
    two = {"messages": [turn("system", "first"), *middle, turn("system", "second"), USER, ANSWER]}
    assert len(rendered(chat_templates.LAST_SYSTEM, one, one, supervise=supervise)) == 2
    with pytest.raises(InputError) as caught:
        rendered(chat_templates.LAST_SYSTEM, one, two, supervise=supervise)
    assert 'rows.jsonl:2: messages[0].content is left out by the chat template (got "first"' in str(caught.value)
    assert len(caught.value.faults) == 1


def test_a_system_s_turn_that_is_written_without_tools_alone_is_refused_beside_tools(rendered: Rendered) -> None:
    template = (
        "{% if tools %}{{ tools | tojson }}{% elif messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}"
        "{% for m in messages if m.role != 'system' %}[{{ m.role }}]{{ m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    row = {"messages": [turn("system", "Be brief."), USER, ANSWER]}
    with pytest.raises(InputError, match=r"rows\.jsonl:2: messages\[0\]\.content is left out"):
        rendered(template, row, {**row, "tools": TOOLS})


@pytest.mark.parametrize("supervise", ["last", "none"])
def test_of_several_calls_in_one_turn_each_has_to_be_written(rendered: Rendered, supervise: str) -> None:
    template = chat_templates.TEXT_ARGUMENTS.replace("m.tool_calls or []", "(m.tool_calls or [])[:1]")
    calls = [{"function": {"name": name, "arguments": "{}"}} for name in ("first", "second")]
    rows = [{"messages": [USER, turn("assistant", None, tool_calls=calls[:count])]} for count in (1, 2)]
    assert len(rendered(chat_templates.TEXT_ARGUMENTS, *rows, supervise=supervise)) == 2
    with pytest.raises(InputError) as caught:
        rendered(template, *rows, supervise=supervise)
    [fault] = caught.value.faults
    assert "rows.jsonl:2" in fault.where
    assert fault.problem.startswith('messages[1].tool_calls[1] is left out by the chat template (got {"function": ')


def test_what_the_generation_prompt_alone_holds_is_refused_in_training_and_asked_in_evaluation(
    rendered: Rendered,
) -> None:
    row = {"messages": [turn("system", "Be brief."), USER, ANSWER, USER, ANSWER]}
    [asked] = rendered(chat_templates.MISTRAL3, row, supervise="none")
    assert asked.prompt == "<s>[INST] a[/INST] b<|im_end|>[INST] Be brief.\n\na[/INST]"
    with pytest.raises(InputError, match="does not begin with the prompt"):
        rendered(chat_templates.MISTRAL3, row)


def test_calls_before_an_answer_that_the_template_refuses_are_asked(rendered: Rendered) -> None:
    refusal = "{% if messages[-1].content == 'b' %}{{ raise_exception('no') }}{% endif %}"
    row = {"messages": [USER, call({"city": "Oslo"}), turn("tool", "7"), ANSWER]}
    [asked] = rendered(refusal + chat_templates.QWEN3, row, supervise="none")
    assert '{"name": "weather", "arguments": {"city": "Oslo"}}' in asked.prompt


REASONED = "<think>\nWell.\n</think>\n\nIt closes with </think> here."


@pytest.mark.parametrize(
    ("template", "content", "left_out"),
    [
        ("R1", REASONED, "It closes with"),
        ("QWEN3", REASONED, "It closes with"),
        ("QWEN3", "Sure. <think>Well.</think> Paris", "Sure."),
        ("R1", "Sure. <think>Well.</think> Paris", "Sure."),
    ],
)
@pytest.mark.parametrize("earlier", [True, False])
def test_a_part_of_an_answer_that_the_template_takes_for_reasoning_and_drops_is_refused(
    rendered: Rendered, template: str, content: str, left_out: str, earlier: bool
) -> None:
    good = {"messages": [USER, turn("assistant", "<think>\nWell.\n</think>\n\nParis")]}
    answer = turn("assistant", content)
    row = {"messages": [USER, answer, USER, ANSWER] if earlier else [USER, answer]}
    with pytest.raises(InputError) as caught:
        rendered(getattr(chat_templates, template), good, row)
    fault = caught.value.faults[0]
    assert "rows.jsonl:2" in fault.where
    assert fault.problem == (
        f"messages[1].content is left out in part by the chat template (got \"{left_out}\" of role 'assistant')"
    )


def test_reasoning_that_a_template_never_writes_is_refused_whichever_way_it_is_given(rendered: Rendered) -> None:
    never = chat_templates.R1.replace("<|Assistant|><think>\\n", "<|Assistant|>")
    for answer in (
        turn("assistant", "<think>\nWell.\n</think>\n\nParis"),
        turn("assistant", "b", reasoning_content="c"),
    ):
        with pytest.raises(InputError, match="is left out"):
            rendered(never, {"messages": [USER, answer]})


def test_a_reference_keeps_what_the_template_would_drop(rendered: Rendered) -> None:
    [asked] = rendered(chat_templates.R1, {"messages": [USER, turn("assistant", REASONED)]}, supervise="none")
    assert asked.references == (REASONED,)


@pytest.mark.parametrize("template", ["CHATML", "LLAMA31"])
def test_marks_that_a_template_does_not_know_are_text(rendered: Rendered, template: str) -> None:
    [sample] = rendered(getattr(chat_templates, template), {"messages": [USER, turn("assistant", REASONED)]})
    assert sample.response == f"{REASONED}<|im_end|>"


def test_reasoning_that_a_template_leaves_out_of_earlier_turns_is_its_own_affair(rendered: Rendered) -> None:
    earlier = turn("assistant", "b", reasoning_content="c")
    (sample,) = rendered(chat_templates.QWEN3, {"messages": [USER, earlier, USER, ANSWER]})
    assert "<|im_start|>assistant\nb<|im_end|>" in sample.prompt


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"messages": [turn("user", [{"type": "image_url"}]), ANSWER]}, "messages[0].content[0] is no text"),
        (
            {"messages": [USER, turn("assistant", "b", tool_calls={"name": "f"})]},
            "messages[1].tool_calls has",
        ),
        (
            {"messages": [USER, turn("assistant", "b", reasoning_content=["c"])]},
            "messages[1].reasoning_content has",
        ),
        ({"messages": [turn("user", None), ANSWER]}, "messages[0].content has the wrong type (got None)"),
        ({"messages": [USER, ANSWER], "tools": "[{"}, "tools is a text that is no JSON"),
        ({"messages": [USER, ANSWER], "tools": {"name": "f"}}, "tools has the wrong type"),
        ({"messages": [USER, turn("assistant", "b", extra={"a": "\ud800"})]}, "half a character"),
    ],
)
def test_fields_of_another_kind_are_refused(rendered: Rendered, row: object, problem: str) -> None:
    with pytest.raises(InputError) as caught:
        rendered(chat_templates.QWEN3, row)
    assert problem in str(caught.value)


def test_a_call_may_name_its_function_by_a_text(rendered: Rendered) -> None:
    template = chat_templates.CHATML.replace("m.content }}", "m.content }}{{ m.tool_calls | tojson if m.tool_calls }}")
    calls = [{"function": "weather", "arguments": {"city": "Oslo"}}]
    (sample,) = rendered(template, {"messages": [USER, turn("assistant", "Wait.", tool_calls=calls)]})
    assert sample.response.startswith('Wait.[{"function": "weather", "arguments": {"city": "Oslo"}}]')
