"""All metrics in a run: the judge behind a server on loopback, perplexity against transformers' own loss."""

from __future__ import annotations

import json
import math

import pytest
import torch
from click.testing import CliRunner
from transformers import AutoModelForCausalLM, AutoTokenizer

from mta_framework.cli import main
from mta_framework.testing.chat_server import ChatServer, fail

pytestmark = pytest.mark.slow

KEY = "sk-very-secret-0123456789"
SEEDS, PROMPTS = (10, 20), 5


@pytest.fixture
def command(spec_dict, write_spec, tokenizer_folder, tmp_path, monkeypatch):
    """Runs a student of plain fine-tuning that is scored by every metric."""
    monkeypatch.setenv("TEST_API_KEY", KEY)
    monkeypatch.setenv("MTA_KEY_HOSTS", "127.0.0.1")
    monkeypatch.setattr("mta_framework.endpoints.asker.FIRST_WAIT", 0.01)

    def command(server, *arguments, **options):
        given = {"base_url": server.base_url, "model": "m", "key_env": "TEST_API_KEY", "max_requests": 100}
        metrics = [{"name": name} for name in ("rouge_l", "exact_match", "distinct_n", "perplexity")]
        metrics.append({"name": "judge", "params": {**given, **options}})
        spec = {
            **spec_dict,
            "teacher": None,
            "alignment": None,
            "base_loss": {"name": "sft"},
            "student": {**spec_dict["student"], "tokenizer": str(tokenizer_folder)},
            "evaluation": {**spec_dict["evaluation"], "models": ["student"], "metrics": metrics},
        }
        return CliRunner().invoke(main, ["run", str(write_spec(spec)), *arguments])

    return command


def graded(question):
    return f"Hm. [[{1 + len(question) % 100}]]"


def test_every_metric_scores_and_a_second_evaluation_asks_nothing(command, tmp_path):
    with ChatServer(graded, [fail(429), fail(500)]) as server:
        result = command(server)
        assert result.exit_code == 0, result.output
        asked = len(server.received)
        assert 2 + 1 <= asked <= 2 + len(SEEDS) * PROMPTS
        # Another option makes the judge score anew, by what is kept.
        again = command(server, "--resume", concurrency=2)
        assert again.exit_code == 0, again.output
        assert len(server.received) == asked
    folder = tmp_path / "runs" / "student"
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert {score["metric"] for score in report["evaluation"]["scores"]} == {
        *("rouge_l", "exact_match", "distinct_n", "perplexity", "judge")
    }
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert KEY not in result.output + again.output


def test_perplexity_in_the_report_is_that_of_all_references_by_transformers(command, tmp_path):
    with ChatServer(graded) as server:
        result = command(server)
    assert result.exit_code == 0, result.output
    folder = tmp_path / "runs" / "student"
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    (score,) = [score for score in report["evaluation"]["scores"] if score["metric"] == "perplexity"]
    assert score["per_seed"] == pytest.approx([perplexity(folder)] * len(SEEDS), rel=1e-5)


def perplexity(folder):
    """Of the references after the prompts that are in the predictions, in float64."""
    model = AutoModelForCausalLM.from_pretrained(folder / "student").double()
    tokenizer = AutoTokenizer.from_pretrained(folder / "student")
    nats = tokens = 0
    for line in (folder / "predictions" / "student" / "seen-seed10.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        prompt = tokenizer(row["prompt"])["input_ids"]
        reference = [*tokenizer(row["references"][0])["input_ids"], tokenizer.eos_token_id]
        labels = torch.tensor([[-100] * len(prompt) + reference])
        with torch.no_grad():
            loss = model(input_ids=torch.tensor([prompt + reference]), labels=labels).loss
        nats += loss.item() * len(reference)
        tokens += len(reference)
    return math.exp(nats / tokens)


def test_a_run_that_reaches_the_limit_says_so_and_goes_on(command):
    with ChatServer(graded) as server:
        result = command(server, max_requests=2, concurrency=1)
        assert result.exit_code == 1
        assert "judge: has reached its limit" in result.output
        assert len(server.received) == 2
        for _ in range(len(SEEDS) * PROMPTS):
            result = command(server, "--resume", max_requests=2, concurrency=1)
            if result.exit_code == 0:
                break
        assert result.exit_code == 0, result.output
        asked = [request.question for request in server.received]
        assert len(asked) == len(set(asked))
