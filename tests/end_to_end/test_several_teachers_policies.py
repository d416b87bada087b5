"""Runs with several teachers whose student writes responses, or has adapters."""

from __future__ import annotations

import json
import math

import pytest
import torch
from broken_runs import finished, interrupted
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from mta_framework.evaluation.report import read_report
from mta_framework.training.mixed_distiller import MixedDistiller
from mta_framework.types.log_entries import RESPONSE_HEALTH

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_page")]

LOSSES = ("loss", "loss_maths", "loss_code", "eval_loss", "eval_loss_maths", "eval_loss_code", "share_by_student")
REPLAY = {"policy": "adaptive", "initial_threshold": 0.8, "capacity": 8}
BASES = {
    "adaptive": {"name": "distillm", "params": {"batches": REPLAY}},
    "on_policy": {"name": "jsd", "params": {"batches": {"policy": "on_policy", "fraction": 0.5}}},
    "replay of policy_gradient": {"name": "policy_gradient", "params": {"batches": REPLAY}},
}


@pytest.fixture(params=sorted(BASES))
def path(request, several_spec, write_spec):
    """Six steps in epochs of four, a checkpoint after every second."""
    training = {"max_steps": 6, "save_steps": 2, "generation": {"max_new_tokens": 8, "batch_tokens": 600}}
    changes = {"base_loss": BASES[request.param], "training": {**several_spec["training"], **training}}
    return write_spec({**several_spec, **changes})


def weights(tmp_path, name):
    return (tmp_path / "runs" / name / "student" / "model.safetensors").read_bytes()


def logged(report, names=LOSSES):
    return {name: [entry[name] for entry in report.log if name in entry] for name in names}


def test_a_resumed_run_has_the_bits_of_a_straight_one(path, tmp_path):
    straight = finished(path, "straight")
    interrupted(path, "resumed", 5)
    resumed = finished(path, "resumed", resume=True)
    assert weights(tmp_path, "resumed") == weights(tmp_path, "straight")
    assert logged(resumed) == logged(straight)
    assert 0 < sum(logged(straight)["share_by_student"]) < 6
    assert all(logged(straight)[name] for name in LOSSES)


def test_two_processes_train_as_one_does(path, tmp_path, warm_python):
    assert warm_python.run_on_two_ranks(["-m", "mta_framework", "run", path]).count("Report:") == 1
    alone, shared = finished(path, "alone"), read_report(tmp_path / "runs" / "student")
    assert [report.versions["processes"] for report in (alone, shared)] == ["1", "2"]
    names = (*LOSSES, *RESPONSE_HEALTH)
    for name, values in logged(alone, names).items():
        assert values
        assert logged(shared, names)[name] == pytest.approx(values, rel=1e-4), name


def divergence(student, teacher, part):
    """Sum of the KL of a part of a batch, in float64."""
    inputs = {"input_ids": part.input_ids_BT, "attention_mask": part.attention_mask_BT}
    with torch.no_grad():
        log_q, log_p = (
            model(**inputs).logits.flatten(0, 1)[part.position_N].log_softmax(-1) for model in (student, teacher)
        )
    return (log_p.exp() * (log_p - log_q)).sum().item()


def test_each_response_is_graded_by_the_teacher_of_its_prompt(
    several_spec, write_spec, teacher_folders, named_rows, tmp_path, monkeypatch
):
    base_loss = {"name": "kl", "params": {"batches": {"policy": "on_policy", "fraction": 1.0}}}
    training = {**several_spec["training"], "max_steps": 1, "generation": {"max_new_tokens": 8}}
    del several_spec["alignment"]
    forward, parts, students = MixedDistiller.forward, [], []

    def watched(distiller, batch, progress):
        parts.extend(batch.parts.items())
        students.append({name: value.clone() for name, value in distiller.student.state_dict().items()})
        return forward(distiller, batch, progress)

    monkeypatch.setattr(MixedDistiller, "forward", watched)
    path = write_spec({**several_spec, "base_loss": base_loss, "training": training})
    first = next(entry for entry in finished(path, "graded").log if "loss" in entry)
    student = AutoModelForCausalLM.from_pretrained(tmp_path / "runs" / "graded" / "student").double().eval()
    student.load_state_dict(students[0])
    named = [json.loads(line)["teacher"] for line in named_rows.read_text(encoding="utf-8").splitlines()]
    for name, folder in teacher_folders.items():
        teacher, of_teacher = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64), []
        for other, part in parts:
            if other == name:
                assert part.by_student_B.all()
                assert {named[index] for index in part.index_B.tolist()} == {name}
                of_teacher.append(part)
        total = math.fsum(divergence(student, teacher.eval(), part) for part in of_teacher)
        tokens = sum(len(part.position_N) for part in of_teacher)
        assert first[f"loss_{name}"] == pytest.approx(total / tokens, rel=1e-5)


@pytest.fixture
def adapted(several_spec, write_spec, teacher_folders):
    """A spec with LoRA on a student that is a folder, and aligned with teachers of other widths."""
    student = {"path": str(teacher_folders["code"]), "lora": {"rank": 2, "alpha": 6, "target_modules": ["q_proj"]}}
    training = {**several_spec["training"], "max_steps": 6, "save_steps": 2, "learning_rate": 1e-2}
    return write_spec({**several_spec, "student": student, "training": training})


def test_adapters_train_resume_and_are_merged(adapted, teacher_folders, tmp_path):
    straight = finished(adapted, "straight")
    interrupted(adapted, "resumed", 5)
    resumed = finished(adapted, "resumed", resume=True)
    assert logged(resumed, LOSSES[:-1]) == logged(straight, LOSSES[:-1])
    assert weights(tmp_path, "resumed") == weights(tmp_path, "straight")
    folder = tmp_path / "runs" / "straight"
    before, after = (load_file(path / "model.safetensors") for path in (teacher_folders["code"], folder / "student"))
    assert before.keys() == after.keys()
    assert {name for name in before if not torch.equal(before[name], after[name])} == {
        f"model.layers.{layer}.self_attn.q_proj.weight" for layer in range(3)
    }
    (file,) = (folder / "checkpoints" / "checkpoint-6").rglob("student.safetensors")
    adapters = load_file(file)
    for layer in range(3):
        name = f"model.layers.{layer}.self_attn.q_proj"
        low, high = (
            next(value for key, value in adapters.items() if f"{name}.lora_{side}" in key).double() for side in "AB"
        )
        expected = before[f"{name}.weight"].double() + 6 / 2 * high @ low
        torch.testing.assert_close(after[f"{name}.weight"].double(), expected, rtol=1e-6, atol=1e-7)
