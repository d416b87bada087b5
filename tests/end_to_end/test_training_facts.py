"""What a run tells of its training besides losses: where its time went, and what became of the spans."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from click.testing import CliRunner

from mta_framework import RunError
from mta_framework.cli import main
from mta_framework.evaluation.report import read_report
from mta_framework.registry import discover
from mta_framework.runs import pipeline
from mta_framework.runs.plugin_binding import bind
from mta_framework.timers import Stopwatch
from mta_framework.training.trainer import DistillationTrainer

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("trained_teacher", "no_page")]


@pytest.fixture
def run(spec_dict, write_spec, run_once):
    def run(resume=False, **changes):
        if not changes and not resume:
            return run_once(write_spec({**spec_dict, "evaluation": None}))
        path = write_spec({**spec_dict, "evaluation": None, **changes})
        return pipeline.run(bind(path, discover()), resume=resume)

    return run


def test_parts_of_a_step_are_all_there_and_add_up_to_it(run, spec_dict, monkeypatch):
    monkeypatch.setattr(DistillationTrainer, "_save_checkpoint", lambda *given: None)
    began = []
    train = DistillationTrainer.training_step

    def timed(*given, **named):
        began.append(time.perf_counter())
        return train(*given, **named)

    monkeypatch.setattr(DistillationTrainer, "training_step", timed)
    training = {**spec_dict["training"], "max_steps": 12}
    report = run(training=training, data={**spec_dict["data"], "validation": None})
    parts = ["data", "teacher", "student", "base loss", "alignment", "backward", "optimiser"]
    assert list(report.step_time) == parts
    assert all(seconds > 0 for seconds in report.step_time.values())
    # From the first step's beginning to the last one's there is nothing but steps; around them transformers has work.
    began = began[-12:]  # before them, the teacher was trained
    assert 0.8 * (began[-1] - began[0]) < 12 * sum(report.step_time.values()) <= 12 * report.seconds_per_step


def test_responses_of_the_student_cost_generation_and_parsing(run, spec_dict):
    base_loss = {"name": "jsd", "params": {"batches": {"policy": "on_policy", "fraction": 1.0}}}
    training = {**spec_dict["training"], "max_steps": 3, "generation": {"max_new_tokens": 16}}
    report = run(training=training, base_loss=base_loss)
    assert report.step_time["generation"] > 2 * report.step_time["data"]
    assert report.step_time["parsing"] > 0


def test_without_a_teacher_no_time_is_spent_on_one(run, spec_dict, tmp_path):
    run()
    taught = read_report(tmp_path / "runs" / "teacher")
    assert "alignment" not in taught.step_time
    assert taught.step_time["teacher"] < 0.1 * taught.step_time["student"]
    assert taught.geometry == ()
    assert taught.span_samples == ()


def test_a_resumed_run_tells_the_time_of_all_its_steps(run, spec_dict, monkeypatch):
    training = {**spec_dict["training"], "save_steps": 3, "max_steps": 6}
    before_optimizer_step = DistillationTrainer.before_optimizer_step

    def break_off(trainer):
        if trainer.state.global_step == 5:
            raise RunError("interrupted")
        before_optimizer_step(trainer)

    with monkeypatch.context() as first_life:
        first_life.setattr(DistillationTrainer, "before_optimizer_step", break_off)
        first_life.setattr(
            Stopwatch, "state", lambda _: {"per_step": {"student": 1000.0}, "steps": 3, "cpu_seconds": 3e3}
        )
        with pytest.raises(RunError, match="interrupted"):
            run(training=training)
    assert run(resume=True, training=training).step_time["student"] == pytest.approx(500.0, abs=5)


def test_geometry_shows_one_text_at_every_key_layer_before_and_after(run):
    report = run()
    assert [str(entry.pair) for entry in report.geometry] == ["2->2 words", "3->3 phrases", "4->4 phrases"]
    for entry in report.geometry:
        count = len(entry.labels)
        assert 2 <= count <= 24
        assert entry.texts == 6  # of the validation set
        for matrix in map(np.array, (entry.teacher, entry.before, entry.after)):
            assert matrix.shape == (count, count)
            assert np.diag(matrix) == pytest.approx(1.0, abs=1e-3)
            assert matrix == pytest.approx(matrix.T, abs=1e-3)
        assert entry.before != entry.after
    words = report.geometry[0].labels
    assert words[-4:] == ("repaired", "the", "broken", "lamp")


def test_training_on_structure_makes_the_student_agree_with_the_teacher(run, spec_dict):
    alignment = {"spans": {"name": "words"}, "layers": {"name": "proportional", "params": {"words": 2, "phrases": 0}}}
    training = {**spec_dict["training"], "max_steps": 60, "learning_rate": 5e-3}
    terms = [{"name": "dsa", "weight": 20.0}, {"name": "hid", "weight": 0.2}]
    report = run(alignment={**alignment, "terms": terms}, training=training)
    assert all(entry.agreement_after > entry.agreement_before + 0.1 for entry in report.geometry)


def test_geometry_of_the_start_is_measured_once(run, spec_dict, tmp_path, monkeypatch):
    training = {**spec_dict["training"], "save_steps": 3, "max_steps": 6}
    before_optimizer_step = DistillationTrainer.before_optimizer_step

    def break_off(trainer):
        if trainer.state.global_step == 5:
            raise RunError("interrupted")
        before_optimizer_step(trainer)

    monkeypatch.setattr(DistillationTrainer, "before_optimizer_step", break_off)
    with pytest.raises(RunError, match="interrupted"):
        run(training=training)
    monkeypatch.setattr(DistillationTrainer, "before_optimizer_step", before_optimizer_step)
    kept = json.loads((tmp_path / "runs" / "student" / "geometry.json").read_text())
    assert "after" not in kept["layers"][0]
    kept["layers"][0]["agreement_before"] = 0.125
    (tmp_path / "runs" / "student" / "geometry.json").write_text(json.dumps(kept))
    resumed = run(resume=True, training=training)
    assert resumed.geometry[0].agreement_before == 0.125
    assert resumed.geometry[0].agreement_after is not None
    assert run(resume=True, training=training).geometry == resumed.geometry


def test_span_samples_are_the_first_texts_with_their_characters(run):
    first, *others = run().span_samples
    assert len(others) == 2
    assert first.text.endswith("The old keeper has repaired the broken lamp yesterday.")
    words = [first.text[start:end] for start, end in first.spans["words"]]
    assert words[-4:] == ["repaired", "the ", "broken ", "lamp"]
    assert "the broken lamp" in [first.text[start:end] for start, end in first.spans["phrases"]]


def test_report_keeps_the_command_as_it_was_typed(spec_dict, write_spec, tmp_path, monkeypatch):
    write_spec({**spec_dict, "evaluation": None, "name": "other"})
    monkeypatch.chdir(tmp_path)
    typed = ["run", "student.json", "--set", "training.max_steps=1", "--set", "data.train.limit=20", "--resume"]
    monkeypatch.setattr("sys.argv", ["/somewhere/bin/mta", *typed])
    result = CliRunner().invoke(main, typed)
    assert result.exit_code == 0, result.output
    command = "mta run student.json --set training.max_steps=1 --set data.train.limit=20 --resume"
    assert read_report(tmp_path / "runs" / "other").command == command
