"""Runs with several teachers, each for the rows that name it."""

from __future__ import annotations

import gc
import hashlib
import json
import re
import shutil
import weakref
from pathlib import Path

import pytest
import torch
from broken_runs import finished, interrupted
from click.testing import CliRunner
from several_teachers import write_named_rows
from teacher_server import TeacherServer, write_teacher
from transformers import AutoModelForCausalLM

from mta_framework import InputError, RunError
from mta_framework.cli import main
from mta_framework.data.batches import collate
from mta_framework.evaluation.report import read_report
from mta_framework.models import run_models
from mta_framework.models.run_models import run_models_of
from mta_framework.registry import discover
from mta_framework.runs import pipeline
from mta_framework.runs.plugin_binding import bind, bind_evaluation
from mta_framework.runs.preparation import prepare_evaluation, prepare_run
from mta_framework.spec.evaluate_request import EvaluateRequest, read_request

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_page")]


@pytest.fixture
def spec(several_spec):
    """Four steps of KL with MTA over words, by two teachers."""
    return several_spec


def weights(tmp_path, name):
    return hashlib.sha256((tmp_path / "runs" / name / "student" / "model.safetensors").read_bytes()).hexdigest()


def without_alignment(spec, **changes):
    return {**{name: value for name, value in spec.items() if name != "alignment"}, **changes}


def divergences(path, folders):
    """Sum of the KL and number of supervised tokens of each teacher's texts in the first step, in float64."""
    bound = bind(path, discover())
    inputs, student = prepare_run(bound), run_models_of(bound.spec).first_student().double().eval()
    first = [inputs.data.train.examples[index] for index in inputs.sampler.global_batches(0)[0]]
    sums = {}
    for name, folder in folders.items():
        batch = collate([text for text in first if text.teacher_name == name], 0, ())
        teacher = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
        with torch.no_grad():
            log_q, log_p = (
                model(batch.input_ids_BT, attention_mask=batch.attention_mask_BT)
                .logits.flatten(0, 1)[batch.position_N]
                .log_softmax(-1)
                for model in (student, teacher)
            )
        sums[name] = (log_p.exp() * (log_p - log_q)).sum().item(), len(batch.position_N)
    return sums


def test_the_loss_of_a_step_is_that_of_each_teacher_on_its_rows(spec, write_spec, teacher_folders, one_step, tmp_path):
    path = write_spec(without_alignment(spec, training={**spec["training"], "max_steps": 1}))
    sums = divergences(path, teacher_folders)
    losses, _ = one_step(path, tmp_path / "step", 4)
    assert losses["kl"] == pytest.approx(
        sum(kl for kl, _ in sums.values()) / sum(n for _, n in sums.values()), rel=1e-5
    )
    for name, (kl, tokens) in sums.items():
        assert losses[f"loss_{name}"] == pytest.approx(kl / tokens, rel=1e-5)


def test_every_cut_and_two_processes_give_one_loss_and_gradient(
    spec, write_spec, one_step, one_step_on_two_ranks, tmp_path
):
    path = write_spec({**spec, "training": {**spec["training"], "max_steps": 1}})
    losses, gradients = one_step(path, tmp_path / "1x8", 8)
    assert any("teacher_code" in name for name in gradients)
    cuts = [one_step(path, tmp_path / f"cut-{size}", size) for size in (4, 1)]
    cuts.append(one_step_on_two_ranks(path, tmp_path / "ranks", 4))
    for cut_losses, cut_gradients in cuts:
        assert cut_losses == pytest.approx(losses, rel=1e-5)
        for name, expected in gradients.items():
            tolerance = 1e-5 * expected.abs().max().item() + 1e-8
            torch.testing.assert_close(cut_gradients[name], expected, rtol=1e-4, atol=tolerance, msg=name)


def test_a_step_without_texts_of_a_teacher_trains_on_two_processes(
    spec, write_spec, named_rows, one_step_on_two_ranks, tmp_path
):
    write_named_rows(named_rows, named_rows, lambda index: "code" if index == 0 else "maths")
    path = write_spec({**spec, "training": {**spec["training"], "max_steps": 1, "batch_size": 4}})
    losses, gradients = one_step_on_two_ranks(path, tmp_path / "ranks", 1)
    assert ("loss_code" in losses) == bool(gradients["alignment.teacher_code.term_modules.hid.0.weight"].any())
    assert losses["loss_maths"] > 0


def test_one_model_as_two_teachers_trains_as_one_teacher(spec, write_spec, teacher_folders, tmp_path):
    section = {"path": str(teacher_folders["maths"])}
    twice = finished(write_spec(without_alignment(spec, teachers={"maths": section, "code": section})), "twice")
    del spec["teachers"]
    once = finished(write_spec(without_alignment(spec, teacher=section)), "once")
    for name in ("kl", "eval_kl", "eval_cross_entropy"):
        values = [[entry[name] for entry in report.log if name in entry] for report in (twice, once)]
        assert values[0] == pytest.approx(values[1], rel=1e-4)


def test_a_resumed_run_has_the_bits_of_a_straight_one(spec, write_spec, tmp_path):
    path = write_spec({**spec, "training": {**spec["training"], "save_steps": 2, "max_steps": 6, "log_steps": 3}})
    interrupted(path, "resumed", 4)
    resumed, straight = finished(path, "resumed", resume=True), finished(path, "straight")
    assert weights(tmp_path, "resumed") == weights(tmp_path, "straight")
    entries = [[entry["loss_code"] for entry in report.log if "loss_code" in entry] for report in (resumed, straight)]
    assert entries[0] == entries[1]


def test_cached_teachers_are_loaded_one_at_a_time_and_give_the_loss_of_live_ones(spec, write_spec, monkeypatch):
    living, load = [], run_models.load_teacher

    def counted(*arguments):
        gc.collect()
        assert all(reference() is None for reference in living)
        model = load(*arguments)
        living.append(weakref.ref(model))
        return model

    live = finished(write_spec(spec), "live")
    monkeypatch.setattr(run_models, "load_teacher", counted)
    cached = {name: {**section, "cache": {}} for name, section in spec["teachers"].items()}
    kept = finished(write_spec({**spec, "teachers": cached}), "kept")
    assert len(living) == 2
    for name in ("loss", "loss_maths", "loss_code", "eval_loss"):
        values = [[entry[name] for entry in report.log if name in entry] for report in (kept, live)]
        assert values[0] == pytest.approx(values[1], rel=1e-4)


def test_a_teacher_behind_a_server_and_a_live_one_teach_together(spec, write_spec, tokenizer_folder, tmp_path):
    folder = write_teacher(tmp_path / "served", tokenizer_folder)
    plain = without_alignment(spec)
    code = plain["teachers"]["code"]
    live = finished(write_spec({**plain, "teachers": {"maths": {"path": str(folder)}, "code": code}}), "live")
    with TeacherServer(folder) as server:
        asked = {"url": server.base_url, "model": "tiny", "top_logprobs": 8, "retries": 1}
        served = {"maths": {"path": str(folder), "server": asked}, "code": code}
        mixed = finished(write_spec({**plain, "teachers": served}), "mixed")
        assert 0 < len(server.asked) == len(set(server.asked)) < 36
    first, second = (next(entry for entry in report.log if "loss_code" in entry) for report in (live, mixed))
    assert second["loss_code"] == pytest.approx(first["loss_code"], rel=1e-5)
    assert 0 < second["loss_maths"] < first["loss_maths"]  # classes that are merged diverge less
    served["maths"]["server"] = {**asked, "top_logprobs": 7, "retries": 0}  # other records, of a server that is gone
    with pytest.raises(RunError, match=r"teachers\.maths, http.*gives no answer"):
        finished(write_spec({**plain, "teachers": served}), "gone")


@pytest.mark.parametrize("base_loss", ["alm", "uld"])
def test_teachers_may_have_another_tokenizer_and_then_all_of_them(
    base_loss, spec, two_tokenizers, teacher_folders, write_spec, one_step, tmp_path
):
    named = {}
    for name, folder in teacher_folders.items():
        copy = shutil.copytree(folder, tmp_path / f"unigram-{name}")
        for file in Path(two_tokenizers["student"]["tokenizer"]).iterdir():
            shutil.copy(file, copy)
        named[name] = {"path": str(copy)}
    data = {**spec["data"], "max_length": 400, "max_prompt_length": 350}
    changes = {"teachers": named, "data": data, "training": {**spec["training"], "max_steps": 1}}
    path = write_spec({**spec, **changes, "base_loss": {"name": base_loss}})
    losses, gradients = one_step(path, tmp_path / "1x8", 8)
    cut_losses, cut_gradients = one_step(path, tmp_path / "8x1", 1)
    assert cut_losses == pytest.approx(losses, rel=1e-5)
    assert {f"loss_{name}" for name in named} <= losses.keys()
    for name, expected in gradients.items():
        tolerance = 1e-5 * expected.abs().max().item() + 1e-8
        torch.testing.assert_close(cut_gradients[name], expected, rtol=1e-4, atol=tolerance, msg=name)
    with pytest.raises(InputError, match=r"student\.tokenizer: with teacher 'code', differs from"):
        pipeline.plan(bind(write_spec({**spec, **changes}), discover()))
    mixed = {**spec, **changes, "teachers": {**named, "maths": spec["teachers"]["maths"]}}
    with pytest.raises(InputError, match=r"base_loss: counts differently .*\(maths\) .*\(code; got '" + base_loss):
        prepare_run(bind(write_spec({**mixed, "base_loss": {"name": base_loss}}), discover()))
    prepare_run(bind(write_spec({**mixed, "base_loss": {"name": "sft"}}), discover()))


def test_a_teacher_without_usable_rows_is_a_fault_in_training_and_none_in_validation(
    spec, write_spec, named_rows, tmp_path
):
    lines = [json.loads(line) for line in named_rows.read_text(encoding="utf-8").splitlines()]
    long = [{**row, "instruction": "word " * 300} if row["teacher"] == "code" else row for row in lines]
    path = tmp_path / "long.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in long), encoding="utf-8")
    for part, usable in (("validation", True), ("train", False)):
        data = {**spec["data"], part: {"path": str(path)}}
        bound = bind(write_spec({**spec, "data": data}), discover())
        if usable:
            validation = prepare_run(bound).data.validation
            assert (len(validation.examples), validation.too_long) == (24, 12)
            continue
        with pytest.raises(InputError) as caught:
            prepare_run(bound)
        (fault,) = map(str, caught.value.faults)
        assert fault.startswith("teachers.code: has no text of data.train that is used")


def test_keys_that_name_a_teacher_are_no_unused_keys_of_evaluation_rows(
    spec, spec_dict, write_spec, named_rows, teacher_folders, tmp_path, caplog
):
    lines = [json.loads(line) for line in named_rows.read_text(encoding="utf-8").splitlines()]
    named_rows.write_text("".join(json.dumps({**row, "level": 1}) + "\n" for row in lines), encoding="utf-8")
    evaluation = {**spec_dict["evaluation"], "models": ["student"], "sets": {"test": {"path": str(named_rows)}}}
    prepare_run(bind(write_spec({**without_alignment(spec), "evaluation": evaluation}), discover()))
    by_itself = EvaluateRequest(
        str(teacher_folders["maths"]), data=[f"test={named_rows}"], output=str(tmp_path / "out")
    )
    prepare_evaluation(bind_evaluation(read_request(by_itself), discover()))
    warnings = [message for message in caplog.messages if message.startswith("evaluation.sets.test")]
    assert len(warnings) == 2
    assert all("(got level in 36 rows)" in warning for warning in warnings), warnings


def test_two_processes_fill_caches_and_train_as_one_does(spec, write_spec, tmp_path, warm_python):
    spec["teachers"]["maths"]["cache"] = {}
    path = write_spec({**spec, "training": {**spec["training"], "save_steps": 2}})
    assert warm_python.run_on_two_ranks(["-m", "mta_framework", "run", path]).count("Report:") == 1
    alone, shared = finished(path, "alone"), read_report(tmp_path / "runs" / "student")
    for name in ("loss", "loss_maths", "loss_code", "eval_loss_code"):
        values = [[entry[name] for entry in report.log if name in entry] for report in (shared, alone)]
        assert values[0] == pytest.approx(values[1], rel=1e-4)


def command(*arguments):
    outcome = CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.output
    return outcome.output


def test_check_plan_cache_report_and_comparison_name_each_teacher(spec, spec_dict, write_spec, tmp_path):
    spec["teachers"]["code"]["cache"] = {}
    models = ["student", "teachers.maths", "teachers.code"]
    path = write_spec({**spec, "evaluation": {**spec_dict["evaluation"], "models": models, "seeds": [10]}})
    checked = " ".join(command("check", path).split())  # long paths break lines anywhere
    assert "teachers.maths" in checked
    assert ", with a cache" in checked
    plan = command("run", path, "--dry-run")
    assert "teachers.code cache" in plan
    assert "supervised tokens" in plan
    made = command("cache", path)
    assert "teachers.code: The teacher was run on" in made
    assert re.search(r"^Teacher cache of teachers\.code: \d+ texts, ", made, re.MULTILINE)
    assert "Teacher cache of teachers.code: /" in made
    assert "maths" not in made.split("Teacher cache of")[0]
    report = finished(path, "both")
    assert {score.model for score in report.evaluation.scores} == set(models)
    assert [teacher.texts for teacher in report.teachers.values()] == [24, 12]
    assert {name: len(teacher.layer_pairs) for name, teacher in report.teachers.items()} == {"maths": 2, "code": 2}
    assert {"teachers.maths", "teachers.code", "student"} == report.models.keys()
    assert {"teachers.maths.path", "teachers.code.path"} < report.inputs.keys()
    page = (tmp_path / "runs" / "both" / "report.md").read_text()
    assert "| maths | 24 |" in page
    finished(path, "other", "seed=2")
    compared = command("compare", tmp_path / "runs" / "both", tmp_path / "runs" / "other")
    assert "teachers.maths" in compared
