"""References whose likelihood is measured: the tokens that training would supervise, after the prompt of training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import chat_templates
import pytest
from sides import sides
from transformers import PreTrainedTokenizerFast

from mta_framework.data.prompts import render_prompts
from mta_framework.data.records import read_records
from mta_framework.data.tokens import encode
from mta_framework.errors import InputError
from mta_framework.evaluation.evaluate import EvaluationSet
from mta_framework.evaluation.sets import read_sets
from mta_framework.spec.data import DatasetSection
from mta_framework.spec.evaluation import ScoringSection

Read = Callable[..., EvaluationSet]
REASONED = "<think>\nWell.\n</think>\n\nParis"


def question(answer: str, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "capital"}, {"role": "assistant", "content": answer, **fields}]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "test.jsonl"


@pytest.fixture
def read(path: Path, chat_tokenizer: PreTrainedTokenizerFast) -> Read:
    """Reads rows as the set ``test`` under a template."""

    def read(template: str, *rows: object, options: Any = None, **settings: Any) -> EvaluationSet:
        chat_tokenizer.chat_template = template
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        section = ScoringSection(sets={"test": {"path": str(path)}}, **settings)
        (evaluation_set,) = read_sets(section, "chat", chat_tokenizer, options=options)
        return evaluation_set

    return read


@pytest.mark.parametrize(
    ("template", "row", "prompt", "reference"),
    [
        ("CHATML", question("Paris"), "<|im_start|>assistant\n", "Paris<|im_end|>"),
        ("LLAMA2", question("Paris"), "[INST] capital [/INST]", " Paris <|im_end|>"),
        ("MISTRAL3", question("Paris"), "[INST] capital[/INST]", " Paris<|im_end|>"),
        ("VICUNA", question("Paris"), "ASSISTANT:", " Paris<|im_end|>"),
        ("LLAMA31", question(" Paris \n"), "<|im_start|>assistant\n\n", "Paris<|im_end|>"),
        ("QWEN3", question("Paris"), "<think>\n\n</think>\n\n", "Paris<|im_end|>"),
        ("QWEN3", question("\n\nParis"), "<think>\n\n</think>\n\n", "Paris<|im_end|>"),
        ("QWEN3", question(REASONED), "<|im_start|>assistant\n", f"{REASONED}<|im_end|>"),
        ("QWEN3", question("Paris", reasoning_content="Well."), "assistant\n", f"{REASONED}<|im_end|>"),
        ("R1", question(REASONED), "<|Assistant|><think>\n", "Well.\n</think>\n\nParis<|im_end|>"),
        ("R1", question("Paris"), "capital<|Assistant|>", "Paris<|im_end|>"),
        (
            "LLAMA2",
            {"instruction": "capital", "output": ["Paris", "It"]},
            "[INST] capital [/INST]",
            " Paris <|im_end|>",
        ),
        ("LLAMA2", {"prompt": "<s>capital:", "completion": " Paris"}, "capital:", " Paris<|end|>"),
    ],
)
def test_measured_are_the_tokens_that_training_supervises(
    read: Read,
    path: Path,
    chat_tokenizer: PreTrainedTokenizerFast,
    template: str,
    row: Any,
    prompt: str,
    reference: str,
) -> None:
    evaluation_set = read(getattr(chat_templates, template), row)
    [measured] = evaluation_set.measured
    assert chat_tokenizer.decode(measured.response) == reference
    assert chat_tokenizer.decode(measured.prompt).endswith(prompt)
    records = read_records(DatasetSection(path=str(path)), "data.train")
    trained = render_prompts(records, "chat", chat_tokenizer)
    (example,) = encode(trained, None, sides(400, chat_tokenizer), 399).examples
    assert [*measured.prompt, *measured.response] == example.input_ids.tolist()
    assert len(measured.prompt) == example.prompt_length
    if trained[0].as_asked:
        assert evaluation_set.prompt_ids == [measured.prompt]


def test_a_prompt_that_is_cut_is_measured_as_it_is_asked(read: Read, chat_tokenizer: PreTrainedTokenizerFast) -> None:
    row = question("Paris")
    row["messages"][0]["content"] = "z" * 40
    evaluation_set = read(chat_templates.LLAMA2, row, max_prompt_length=25)
    [measured] = evaluation_set.measured
    assert evaluation_set.cut == 1
    assert evaluation_set.prompt_ids == [measured.prompt]
    assert len(measured.prompt) <= 25
    assert chat_tokenizer.decode(measured.response) == " Paris <|im_end|>"


def test_prompts_are_asked_where_training_would_refuse_the_row_and_only_likelihoods_are_not_there(read: Read) -> None:
    row = question("Paris")
    row["messages"].insert(0, {"role": "system", "content": "Be brief."})
    evaluation_set = read(chat_templates.MISTRAL3, row)
    assert evaluation_set.prompts == ["<s>[INST] Be brief.\n\ncapital[/INST]"]
    assert evaluation_set.references == [("Paris",)]
    assert isinstance(evaluation_set.unmeasured, InputError)
    first, second = evaluation_set.unmeasured.faults
    assert str(first) == (
        "evaluation.sets.test: has references whose likelihood cannot be measured, because training would refuse them; "
        "expected references that can be trained, where a metric asks for their likelihood. Correct the rows, or leave "
        "out the metric."
    )
    assert "test.jsonl:1 (the conversation with the answer does not begin with the prompt for it)" in str(second)
