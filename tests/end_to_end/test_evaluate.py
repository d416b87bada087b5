"""``mta evaluate``: any model, from the command line to the report."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch
from click.testing import CliRunner
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from mta_framework.evaluation.predictions import read_rows
from mta_framework.evaluation.report import read_report
from mta_framework.spec.evaluation_spec import EvaluationSpec
from mta_framework.spec.input_fields import absolute_document

pytestmark = pytest.mark.slow

SHORT = ("--set", "evaluation.max_new_tokens=6")

METRIC = """
from mta_framework import Metric, ScoreSet, hookimpl

class Vowels(Metric):
    NAME = "vowels"

    def score(self, generations):
        return ScoreSet(tuple(float(sum(map(text.count, "aeiou"))) for text in generations.predictions))

@hookimpl
def mta_register_metrics():
    return [Vowels]
"""


@pytest.fixture
def mta(tmp_path, monkeypatch):
    """Runs ``mta evaluate ARGUMENTS`` in the temporary folder."""
    from mta_framework.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments):
        return CliRunner().invoke(main, ["evaluate", *map(str, arguments)])

    return run


@pytest.fixture
def model_folder(tmp_path, tokenizer_folder):
    """A tiny model with random weights, as transformers saves it."""
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    torch.manual_seed(3)
    shape = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 300, "vocab_size": len(tokenizer)}
    config = AutoConfig.for_model("gpt2", **shape, eos_token_id=tokenizer.eos_token_id, bos_token_id=None)
    folder = tmp_path / "models" / "tiny"
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def test_file(tmp_path):
    """Four questions, the last a long one."""
    rows = [{"instruction": f"Say {word}.", "output": [f"The {word}.", word]} for word in ("lamp", "map", "coat")]
    rows.append({"instruction": "Say it. " * 150, "input": "a bottle", "output": "A bottle."})
    path = tmp_path / "test.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


@pytest.fixture
def generated(monkeypatch):
    """Numbers of prompts that were generated for, call by call."""
    from mta_framework.generation import transformers_engine
    from mta_framework.generation.generate import generate

    counts = []

    def counting(model, tokenizer, stop_ids, prompt_ids, *rest, **named):
        counts.append(len(prompt_ids))
        return generate(model, tokenizer, stop_ids, prompt_ids, *rest, **named)

    monkeypatch.setattr(transformers_engine, "generate", counting)
    return counts


def test_responses_are_training_rows_for_the_same_prompts(mta, model_folder, rows_file, spec_dict, write_spec):
    from mta_framework.cli import main

    asked = mta(model_folder, "--data", f"train={rows_file}", "--seeds", "1", *SHORT, "-o", "teacher")
    assert asked.exit_code == 0, asked.output
    (responses,) = (rows_file.parent / "teacher" / "predictions").glob("*/train-seed1.jsonl")
    rows = [json.loads(line) for line in responses.read_text().splitlines()]
    assert len(rows) == len(rows_file.read_text().splitlines())
    assert all(row["prompt"].endswith("### Response:\n") for row in rows)
    train = {"path": str(responses), "rename_columns": {"prediction": "completion"}}
    spec = {key: spec_dict[key] for key in ("student", "training")}
    spec |= {"name": "student", "data": {**spec_dict["data"], "train": train}, "base_loss": {"name": "sft"}}
    spec["student"] = {**spec["student"], "tokenizer": str(model_folder)}
    done = CliRunner().invoke(main, ["run", str(write_spec(spec))])
    assert done.exit_code == 0, done.output
    counted = read_report(rows_file.parent / "runs" / "student").data["train"]
    assert (counted.used, counted.left_out) == (len(rows), 0)


@pytest.mark.usefixtures("model_folder", "test_file")
def test_a_transformers_folder_gets_a_folder_like_that_of_a_run(mta, tmp_path):
    done = mta("models/tiny", "--data", "hard=test.jsonl", "--seeds", "10,20", *SHORT)
    assert done.exit_code == 0, done.output
    folder = tmp_path / "evaluations" / "tiny"
    report = read_report(folder)
    assert (report.name, report.spec["model"]["path"]) == ("tiny", str(tmp_path / "models" / "tiny"))
    assert report.evaluation.seeds == (10, 20)
    (score,) = report.evaluation.scores
    assert (score.model, score.set, score.metric) == ("tiny", "hard", "rouge_l")
    assert [reported.label for reported in report.evaluation.metrics] == ["rouge_l"]
    (reported,) = report.evaluation.sets
    assert (reported.prompts, reported.cut) == (4, 1)
    assert report.models["tiny"].layers == 2
    saved = json.loads((folder / "spec.json").read_text())
    assert saved["model"]["path"] == "../../models/tiny"
    assert absolute_document(EvaluationSpec, saved, folder) == report.spec
    rows = read_rows(folder / "predictions" / "tiny" / "hard-seed20.jsonl")
    assert [row.question for row in rows[:2]] == ["Say lamp.", "Say map."]
    assert rows[3].question == "Say it. " * 150 + "\n\na bottle"
    assert rows[0].references == ("The lamp.", "lamp")
    means = [
        sum(row.scores["rouge_l"] for row in read_rows(folder / "predictions" / "tiny" / f"hard-seed{seed}.jsonl")) / 4
        for seed in (10, 20)
    ]
    assert score.per_seed == pytest.approx(tuple(means))
    assert "rouge_l" in done.stdout
    assert done.stdout.splitlines()[-1].startswith(f"Report: {folder / 'report.'}")
    assert "was trained" not in (folder / "report.md").read_text()


@pytest.mark.usefixtures("model_folder", "test_file")
def test_the_report_names_the_plugin_file_that_a_metric_came_from(mta, tmp_path):
    code = METRIC.encode()
    (tmp_path / "vowels.py").write_bytes(code)
    (tmp_path / "unused.py").write_bytes(code.replace(b"vowels", b"unused"))
    setting = ("--set", 'evaluation.metrics=[{"name": "vowels"}]', "--seeds", "10", *SHORT)
    done = mta("models/tiny", "--data", "a=test.jsonl", *setting, "-p", "vowels.py", "-p", "unused.py")
    assert done.exit_code == 0, done.output
    named = f"vowels.py (SHA-256 {hashlib.sha256(code).hexdigest()})"
    assert read_report(tmp_path / "evaluations" / "tiny").versions["plugin files"] == named
    for name in ("report.md", "report.html"):
        assert named in (tmp_path / "evaluations" / "tiny" / name).read_text()


@pytest.mark.usefixtures("model_folder", "test_file")
def test_the_same_command_reuses_all_and_more_seeds_and_sets_generate_only_what_is_new(mta, tmp_path, generated):
    command = ("models/tiny", "--data", "a=test.jsonl", *SHORT)
    first = mta(*command, "--seeds", "10,20")
    assert generated == [8]
    assert mta(*command, "--seeds", "10,20").stdout == first.stdout
    assert generated == [8]
    assert mta(*command, "--data", "b=test.jsonl", "--seeds", "10,20,30").exit_code == 0
    assert generated == [8, 4, 12]
    assert mta(*command, "--seeds", "10", "--metric", "exact_match").exit_code == 0
    assert generated == [8, 4, 12]
    assert read_report(tmp_path / "evaluations" / "tiny").evaluation.scores[0].metric == "exact_match"


@pytest.mark.usefixtures("model_folder", "test_file")
def test_another_evaluation_in_the_same_folder_is_refused_with_all_that_differs(mta, tmp_path):
    assert mta("models/tiny", "--data", "a=test.jsonl", "--seeds", "1", *SHORT).exit_code == 0
    before = (tmp_path / "evaluations" / "tiny" / "report.json").read_bytes()
    (tmp_path / "other.jsonl").write_text('{"instruction": "a", "output": "b"}\n')
    changed = ("--set", "evaluation.temperature=1.0", "--data", "a=other.jsonl", "--data", "b=other.jsonl")
    done = mta("models/tiny", *changed, "--seeds", "1", "--metric", "rouge_l", "--metric", "rouge_l", *SHORT)
    assert done.exit_code == 2
    assert "evaluation.metrics: repeats a metric (got rouge_l twice)" in done.stderr
    where = [line.split(": ")[0] for line in done.stderr.splitlines()]
    assert where[:2] == ["evaluation.sets.a.path", "evaluation.temperature"]
    assert "began with (got 1.0); expected 0.7 as in its spec.json" in done.stderr
    assert (tmp_path / "evaluations" / "tiny" / "report.json").read_bytes() == before
    assert mta("models/tiny", *changed, "--seeds", "1", *SHORT, "-o", "elsewhere").exit_code == 0
    assert read_report(tmp_path / "elsewhere").name == "elsewhere"


@pytest.mark.usefixtures("model_folder")
def test_faults_of_model_sets_and_metrics_come_at_once(mta, test_file, tmp_path):
    (tmp_path / "bad.jsonl").write_text('{"question": "?"}\n')
    done = mta(
        "models/tiny",
        *("--data", f"long={test_file}", "--data", "bad=bad.jsonl"),
        *("--set", "evaluation.long_prompts=refuse", "--set", "evaluation.max_new_tokens=100"),
    )
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1] == "3 faults; nothing was run."
    assert "do not fit into the model's 300 positions" in done.stderr
    assert "evaluation.sets.long: has prompts of more than evaluation.max_prompt_length (got 1 longer one, up to" in (
        done.stderr
    )
    assert "bad.jsonl:1: no known keys" in done.stderr
    assert not (tmp_path / "evaluations").exists()

    done = mta("models/none", "--data", "a=none.jsonl", "--metric", "rouge_l", "--metric", "rogue_l")
    assert [line.split(" (got")[0].split("; expected")[0] for line in done.stderr.splitlines()[:3]] == [
        "--metric: no metric is called 'rogue_l'",
        "--data a: does not exist",
        "model.path: does not exist",
    ]


@pytest.mark.usefixtures("model_folder", "test_file")
def test_a_chat_template_that_the_tokenizer_lacks_is_a_fault_of_the_template(mta):
    done = mta("models/tiny", "--data", "a=test.jsonl", "--template", "chat", *SHORT)
    assert done.exit_code == 2
    assert done.stderr.startswith("template: the tokenizer has no chat template")
    assert "Set template to 'alpaca'" in done.stderr


def test_a_run_folder_gives_its_student_and_its_settings_and_keeps_its_own_report(
    mta, trained_teacher, spec_dict, write_spec, tmp_path
):
    from mta_framework.registry import discover
    from mta_framework.runs import pipeline
    from mta_framework.runs.plugin_binding import bind

    spec_dict["training"] = {**spec_dict["training"], "max_steps": 1}
    spec_dict["evaluation"] = {**spec_dict["evaluation"], "models": ["student"], "seeds": [10]}
    ran = pipeline.run(bind(write_spec(spec_dict), discover()))
    before = (tmp_path / "runs" / "student" / "report.json").read_bytes()
    done = mta("runs/student")
    assert done.exit_code == 0, done.output
    report = read_report(tmp_path / "evaluations" / "student")
    assert [score.per_seed for score in report.evaluation.scores] == [ran.evaluation.scores[0].per_seed]
    assert report.evaluation.sets[0].digest == ran.evaluation.sets[0].digest
    assert (tmp_path / "runs" / "student" / "report.json").read_bytes() == before
    done = mta("runs/student", "-o", "runs/student")
    assert done.exit_code == 2
    assert done.stderr.startswith("-o: already holds a run")


def test_a_gguf_file_is_evaluated_with_its_own_chat_template(mta, test_file, tiny_gguf, tmp_path):
    options = ("--template", "chat", "--seeds", "1", "--set", "evaluation.max_new_tokens=2")
    done = mta(tiny_gguf, "--data", f"a={test_file}", *options, "--set", "evaluation.sets.a.limit=1", "-o", "tiny")
    assert done.exit_code == 0, done.output
    (row,) = read_rows(tmp_path / "tiny" / "predictions" / "tiny" / "a-seed1.jsonl")
    assert row.prompt.endswith("<|im_start|>assistant\n")
    assert row.question == "Say lamp."
    assert read_report(tmp_path / "tiny").models["tiny"].layers == 3


@pytest.mark.usefixtures("model_folder")
def test_perplexity_is_that_of_the_model_itself(mta, tmp_path, model_folder):
    rows = [{"prompt": "The old keeper", "completion": " found the lamp."}, {"prompt": "A", "completion": " coat"}]
    (tmp_path / "plain.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    done = mta("models/tiny", "--data", "p=plain.jsonl", "--metric", "perplexity", "--seeds", "1,2", *SHORT)
    assert done.exit_code == 0, done.output
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float64)
    nats = tokens = 0.0
    for row in rows:
        prompt, completion = (tokenizer(row[name]).input_ids for name in ("prompt", "completion"))
        completion = [*completion, tokenizer.eos_token_id]
        with torch.no_grad():
            logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
        log_p = logits.log_softmax(-1)[torch.arange(len(completion)), completion]
        nats, tokens = nats - float(log_p.sum()), tokens + len(completion)
    (score,) = read_report(tmp_path / "evaluations" / "tiny").evaluation.scores
    expected = float(torch.tensor(nats / tokens, dtype=torch.float64).exp())
    assert score.per_seed == pytest.approx((expected, expected), rel=1e-4)
