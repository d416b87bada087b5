"""The model card: what the hub's own reader finds in it, and what it keeps to itself."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest
from huggingface_hub import ModelCard

from mta_framework.evaluation.report import ReportedMetric, SampleResponses, Score
from mta_framework.reporting.card import card, redact
from mta_framework.reporting.markdown_report import report_markdown


def test_metadata_are_what_the_hub_reads(report):
    data = ModelCard(card(report)).data
    assert data.base_model == "org/teacher"
    assert data.library_name == "transformers"
    assert data.pipeline_tag == "text-generation"
    assert data.tags == ["distillation", "mta", "kl"]
    assert data.metrics == ["rouge"]
    assert data.model_name == "small"
    (result,) = data.eval_results
    assert (result.dataset_type, result.dataset_name) == ("org/dolly", "dolly")
    assert (result.metric_type, result.metric_name, result.metric_value) == ("rouge", "rouge_l", 21.0)


def test_hub_ids_of_student_and_data_are_named(report):
    spec = {**report.spec, "student": {"hub": "org/small"}, "data": {"train": {"hub": "org/texts"}}, "alignment": None}
    data = ModelCard(card(dataclasses.replace(report, spec=spec))).data
    assert data.base_model == "org/small"
    assert data.datasets == ["org/texts"]
    assert data.tags == ["distillation", "kl"]


def test_card_has_scores_data_method_command_and_spec(report):
    page = card(report)
    for text in (
        "| student | 21.00 ± 1.41<br>&#91;18.25, 23.75&#93; |",
        "trained for 20 steps",
        "`train.jsonl`",
        "| train | 9,568 | 1,867 | 120 |",
        "mta run spec.json --set output_dir=runs",
        '"name": "dsa"',
    ):
        assert text in page, text


def test_no_place_of_this_machine_is_in_it(report):
    assert "secret" not in card(report)
    assert "/home" not in card(report)


def test_limits_say_what_was_not_measured(report):
    assert "teacher was not evaluated" not in card(report)
    assert "3 prompts were longer than the limit" in card(report)
    alone = dataclasses.replace(report.evaluation, scores=report.evaluation.scores[:1])
    assert "teacher was not evaluated" in card(dataclasses.replace(report, evaluation=alone))
    without = card(dataclasses.replace(report, evaluation=None))
    assert "It was not evaluated." in without
    assert ModelCard(without).data.eval_results is None


def test_averages_other_models_and_numbers_that_are_none_are_no_results(report):
    scores = (
        Score("student", "dolly", "judge(model=x)", (7.0,), 7.0, None),
        Score("student", "vicuna", "judge(model=x)", (float("nan"),), float("nan"), None),
        Score("student", None, "judge(model=x)", (7.0,), 7.0, None),
        *(Score("teacher", name, "judge(model=x)", (9.0,), 9.0, None) for name in ("dolly", "vicuna", None)),
    )
    evaluation = dataclasses.replace(report.evaluation, scores=scores, metrics=(ReportedMetric("judge(model=x)"),))
    data = ModelCard(card(dataclasses.replace(report, evaluation=evaluation))).data
    assert data.metrics == ["judge"]
    assert [(result.dataset_name, result.metric_type) for result in data.eval_results] == [("dolly", "judge")]


def test_name_that_would_be_markup_is_text(report):
    page = card(dataclasses.replace(report, name="a: [b](c) <i>"))
    assert ModelCard(page).data.model_name == "a: [b](c) <i>"
    assert "# a: &#91;b&#93;(c) &#60;i&#62;" in page


@pytest.mark.parametrize(
    ("typed", "shared"),
    [
        ("mta run spec.json", "mta run spec.json"),
        ("mta run ../a/spec.json --set a=b/c", "mta run ../a/spec.json --set a=b/c"),
        ("mta run /x/y/spec.json --resume", "mta run spec.json --resume"),
        ("mta run s.json --set output_dir=/x/runs/", "mta run s.json --set output_dir=runs"),
        (r"mta run C:\Users\me\spec.json", "mta run spec.json"),
        ("mta run ~/me/spec.json", "mta run spec.json"),
        (
            """mta run s.json --set 'data.train={"path": "/x/y.jsonl"}'""",
            """mta run s.json --set 'data.train={"path": "y.jsonl"}'""",
        ),
        (
            "mta evaluate org/model --set a.base_url=http://localhost:8000/v1",
            "mta evaluate org/model --set a.base_url=http://localhost:8000/v1",
        ),
    ],
)
def test_absolute_paths_of_a_command_are_cut_down_to_names(report, typed, shared):
    assert redact(dataclasses.replace(report, command=typed)).command == shared


def test_absolute_paths_of_a_spec_are_cut_down_to_names_and_nothing_else(report):
    spec = {"a": ["/x/y", r"D:\data\z.jsonl", "b/c"], "d": {"e": "/x/f g.json"}, "n": 3, "t": "/not a\npath"}
    redacted = redact(dataclasses.replace(report, spec=spec)).spec
    assert redacted == {"a": ["y", "z.jsonl", "b/c"], "d": {"e": "f g.json"}, "n": 3, "t": "/not a\npath"}
    assert json.dumps(spec) != json.dumps(redacted)


@pytest.mark.parametrize("form", [card, report_markdown], ids=["card", "report"])
def test_no_text_of_spec_command_or_data_is_markup_in_a_page_of_markdown(report, form):
    evil = "x\x1b[2J\u202e`` `<script>alert(1)</script>\n```\n# [a](https://evil.org) @everyone | b"
    spec = {**report.spec, "student": {"hub": evil}, "teacher": {"path": evil}, "data": {"train": {"path": evil}}}
    sample = SampleResponses("dolly", evil, evil, {"student": evil})
    evaluation = dataclasses.replace(report.evaluation, samples=(sample,))
    hostile = dataclasses.replace(
        report, name=evil, spec=spec, command=evil, evaluation=evaluation, versions={evil: evil}
    )
    page = form(hostile)
    assert not {"\x1b", "\u202e"} & set(page.replace("\\u202e", ""))
    outside = re.sub(r"(?ms)^(`{3,})\w*\n.*?^\1$|(`+).+?(?<!`)\2(?!`)", "", page.partition("\n---\n")[2] or page)
    for markup in ("<script", "https://evil", "@everyone", "\n# [", "| b"):
        assert markup not in outside, markup
    assert outside.count("</details>") == outside.count("<details>") == 1


def test_a_student_without_a_teacher_has_none_in_its_card(report):
    page = card(dataclasses.replace(report, spec={**report.spec, "teacher": None, "alignment": None}))
    limits = page[page.index("## Limits") : page.index("## Data and method")]
    assert "teacher" not in limits
    assert "- Licences and biases of its base model and its data apply to it too; none was checked." in limits
    assert ModelCard(page).data.tags == ["kl"]


def test_several_teachers_are_looked_for_under_their_names(report):
    spec = {**report.spec, "teacher": None, "teachers": {"maths": {"hub": "a"}, "student": {"hub": "org/other"}}}
    student, teacher = report.evaluation.scores
    scores = [dataclasses.replace(teacher, model=f"teachers.{name}") for name in spec["teachers"]]
    evaluation = dataclasses.replace(report.evaluation, scores=(student, *scores))
    page = card(dataclasses.replace(report, spec=spec, evaluation=evaluation))
    assert "evaluated in the same way" not in page
    assert "Licences and biases of its teachers, its base model" in page
    (row,) = [line for line in page.splitlines() if line.startswith("| student | ") and "±" not in line]
    assert "org/other" not in row
    evaluation = dataclasses.replace(evaluation, scores=evaluation.scores[:2])
    page = card(dataclasses.replace(report, spec=spec, evaluation=evaluation))
    assert "- Not all of its teachers were evaluated in the same way" in page


def test_adapters_are_called_adapters(report):
    student = {**report.spec["student"], "lora": {"export": "adapters"}}
    page = card(dataclasses.replace(report, spec={**report.spec, "student": student}))
    assert "This folder holds LoRA adapters" in page
    assert "plain transformers model" not in page
    assert ModelCard(page).data.library_name == "peft"
