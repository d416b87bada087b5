"""Two models are evaluated, and what was written is compared."""

from __future__ import annotations

import csv
import json

import pytest
import torch
from click.testing import CliRunner
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from mta_framework.cli import main
from mta_framework.evaluation.report import read_report

pytestmark = pytest.mark.slow


@pytest.fixture
def evaluated(tmp_path, tokenizer_folder, monkeypatch):
    """Evaluates a tiny model of random weights under a name; gives the folder."""
    monkeypatch.chdir(tmp_path)
    rows = [{"instruction": f"Say {word}.", "output": f"The {word}."} for word in ("lamp", "map", "coat", "chair")]
    (tmp_path / "test.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))

    def evaluate(name, seed, *settings):
        tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
        torch.manual_seed(seed)
        shape = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 300, "vocab_size": len(tokenizer)}
        config = AutoConfig.for_model("gpt2", **shape, eos_token_id=tokenizer.eos_token_id, bos_token_id=None)
        AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
        metrics = ("--metric", "rouge_l", "--metric", "perplexity")
        short = ("--set", "evaluation.max_new_tokens=6", *settings)
        arguments = ["evaluate", name, "--data", "all=test.jsonl", "--seeds", "10,20", *metrics, *short]
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == 0, done.output
        return tmp_path / "evaluations" / name

    return evaluate


def test_evaluations_of_two_models_are_compared_by_every_metric(evaluated, tmp_path):
    folders = [evaluated("first", 1), evaluated("second", 2)]
    done = CliRunner().invoke(main, ["compare", "evaluations", "-o", "out"])
    assert done.exit_code == 0, done.output
    means = [
        {score.metric: score.mean for score in read_report(folder).evaluation.scores if score.set == "all"}
        for folder in folders
    ]
    with (tmp_path / "out" / "comparison.csv").open() as file:
        lines = {(line["metric"], line["row"]): line for line in csv.DictReader(file)}
    assert {row for _, row in lines} == {"first", "second"}
    for metric in ("rouge_l", "perplexity"):
        assert float(lines[metric, "first"]["mean"]) == pytest.approx(means[0][metric])
        gap = means[1][metric] - means[0][metric]
        assert float(lines[metric, "second"]["difference"]) == pytest.approx(gap)
    assert (tmp_path / "out" / "comparison.html").is_file()


def test_evaluations_that_differ_are_refused_with_all_differences(evaluated, tmp_path):
    evaluated("first", 1)
    evaluated("second", 2, "--set", "evaluation.temperature=1.5", "--set", "evaluation.sets.all.limit=2")
    done = CliRunner().invoke(main, ["compare", "evaluations"])
    assert done.exit_code == 2
    assert [line.split(": ")[0] for line in done.stderr.splitlines()[:-1]] == [
        "evaluation.temperature",
        "evaluation.sets.all",
    ]
