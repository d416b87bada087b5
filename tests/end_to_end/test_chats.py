"""Runs on conversations: which tokens are trained, and what is asked and scored."""

from __future__ import annotations

import json

import pytest
import torch
from click.testing import CliRunner
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from mta_framework.cli import main
from mta_framework.registry import discover
from mta_framework.runs import pipeline
from mta_framework.runs.plugin_binding import bind

TEMPLATE = """\
{%- for m in messages %}
    {%- if m.role == 'assistant' %}
        {{- 'Answer:\\n' }}{%- if reasoning is defined and loop.last %}{{- '<think></think>' }}{%- endif %}
        {%- generation %}{{- m.content + eos_token }}{%- endgeneration %}
    {%- else %}{{- 'Question: ' + m.content + '\\n' }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- 'Answer:\\n' }}{%- endif %}"""

WORDS = ("lamp", "map", "coat", "bottle", "keeper", "river", "stone", "paper")


@pytest.fixture
def chat(tmp_path, tokenizer_folder):
    """Writes a model with a chat template and eight conversations, and gives the spec of a run on them."""
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(5)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = AutoConfig.for_model(
        "llama", **shape, num_key_value_heads=2, vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")

    def spec(questions=2, **data):
        rows = [
            [
                {"role": role, "content": content}
                for turn in range(questions)
                for role, content in (("user", f"{word} {turn}?"), ("assistant", f"{word} {turn + 1}"))
            ]
            for word in WORDS
        ]
        (tmp_path / "chat.jsonl").write_text("".join(f"{json.dumps({'messages': row})}\n" for row in rows))
        data = {"train": {"path": "chat.jsonl"}, "template": "chat", **data}
        training = {"max_steps": 1, "batch_size": 8, "log_steps": 1, "trackers": []}
        model = {"path": "model"}
        return rows, {
            "name": "chat",
            "student": model,
            "data": data,
            "base_loss": {"name": "sft"},
            "training": training,
        }

    return spec


def cross_entropy(folder, rows):
    """Of all tokens between the generation marks, by transformers, and their number."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    total = count = 0
    for row in rows:
        marked = tokenizer.apply_chat_template(row, return_dict=True, return_assistant_tokens_mask=True)
        ids_T = torch.tensor(marked["input_ids"])
        labels_T = ids_T.where(torch.tensor(marked["assistant_masks"]).bool(), -100)
        with torch.no_grad():
            logits_TV = model(ids_T[None]).logits[0].double()
        total += torch.nn.functional.cross_entropy(logits_TV[:-1], labels_T[1:], reduction="sum").item()
        count += int((labels_T != -100).sum())
    return total / count, count


def test_every_answer_is_trained_and_nothing_else(chat, write_spec, tmp_path):
    rows, spec = chat(supervise="all")
    bound = bind(write_spec(spec), discover())
    expected, tokens = cross_entropy(tmp_path / "model", rows)
    assert pipeline.plan(bound).supervised_tokens == tokens
    report = pipeline.run(bound)
    logged = next(entry["sft"] for entry in report.log if "sft" in entry)
    # float32 sums of some 200 logarithms of at most ln 500
    assert logged == pytest.approx(expected, rel=1e-5)


def test_references_that_training_would_refuse_are_a_fault_where_a_metric_needs_their_likelihood(chat, tmp_path):
    chat(1)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    refusal = "{% if messages[-1].content == 'map 1' %}{{ raise_exception('no maps') }}{% endif %}"
    tokenizer.chat_template = refusal + TEMPLATE
    tokenizer.save_pretrained(tmp_path / "model")
    data = f"test={tmp_path / 'chat.jsonl'}"
    command = [
        "evaluate",
        str(tmp_path / "model"),
        "--data",
        data,
        "--template",
        "chat",
        "-o",
        str(tmp_path / "scores"),
    ]
    result = CliRunner().invoke(main, [*command, "--metric", "perplexity"])
    assert result.exit_code == 2
    assert "evaluation.sets.test: has references whose likelihood cannot be measured" in result.output
    assert "chat.jsonl:2 (no maps)" in result.output
    assert not (tmp_path / "scores" / "predictions").exists()


@pytest.mark.slow
def test_what_the_template_writes_before_an_answer_is_neither_trained_nor_scored(chat, write_spec, tmp_path):
    _, spec = chat(1, template_options={"reasoning": True})
    metrics = [{"name": "rouge_l"}, {"name": "exact_match"}]
    evaluation = {"sets": {"test": {"path": "chat.jsonl"}}, "metrics": metrics, "seeds": [1], "temperature": 0}
    training = {**spec["training"], "max_steps": 120, "learning_rate": 1e-2}
    spec |= {"training": training, "evaluation": {**evaluation, "max_new_tokens": 16}}
    report = pipeline.run(bind(write_spec(spec), discover()))
    assert {score.metric: score.mean for score in report.evaluation.scores} == {"rouge_l": 100, "exact_match": 100}
    rows = (tmp_path / "runs/chat/predictions/student/test-seed1.jsonl").read_text().splitlines()
    assert all(json.loads(row)["prompt"].endswith("Answer:\n<think></think>") for row in rows)
