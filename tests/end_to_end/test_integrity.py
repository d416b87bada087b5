"""A run folder that is incomplete, damaged, edited by hand or of a newer version: told before anything slow."""

from __future__ import annotations

import json
import shutil

import pytest
from click.testing import CliRunner

from mta_framework.cli import main
from mta_framework.registry import discover
from mta_framework.runs import pipeline
from mta_framework.runs.plugin_binding import bind

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("trained_teacher", "no_page")]


@pytest.fixture
def spec(spec_dict, write_spec):
    """Two steps with a checkpoint at each, and key layers that are measured."""
    layers = {"name": "cka", "params": {"texts": 8, "words": 2, "phrases": 0}}
    alignment = {"spans": {"name": "words"}, "layers": layers}
    training = {**spec_dict["training"], "max_steps": 2, "save_steps": 1, "keep_checkpoints": 2}
    return write_spec({**spec_dict, "alignment": alignment, "training": training, "evaluation": None})


def resume(spec, *arguments):
    return CliRunner().invoke(main, ["run", str(spec), "--resume", *arguments])


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def garble(path):
    path.write_text("{'half of")


DAMAGES = {
    "no spec": (lambda run: (run / "spec.json").unlink(), ["student/spec.json: is missing, and the folder holds what"]),
    "a garbled spec": (lambda run: garble(run / "spec.json"), ["student/spec.json:1:2: is not JSON"]),
    "a spec that is a list": (lambda run: (run / "spec.json").write_text("[]"), ["does not contain a JSON object"]),
    "a field of a newer version": (
        lambda run: edit(run / "spec.json", curriculum={"kind": "easy first"}),
        ["curriculum: is not what the run in ", "go on with the one that began the run."],
    ),
    "no digests of the inputs": (
        lambda run: (run / "inputs.json").unlink(),
        ["student/inputs.json: is missing, and the folder holds what a run left"],
    ),
    "garbled digests of the inputs": (
        lambda run: garble(run / "inputs.json"),
        ["student/inputs.json: cannot be read (got JSONDecodeError"],
    ),
    "no log": (
        lambda run: (run / "training.json").unlink(),
        ["student/training.json: is missing; expected the file as the run wrote it. Put it back; or delete "],
    ),
    "a garbled log": (lambda run: garble(run / "training.json"), ["student/training.json: has 9 bytes instead of "]),
    "a flipped bit in the log": (
        lambda run: flip(run / "training.json"),
        [
            "student/training.json: has another content than was written; expected the file as the run wrote it. "
            "Put it back; or delete ",
            "student/training.json and ",
            "/student/student, then resume that run: it is made anew from the last checkpoint.",
        ],
    ),
    "no key layers": (lambda run: (run / "key-layers.json").unlink(), ["student/key-layers.json: is missing; "]),
    "a flipped bit in the key layers": (
        lambda run: flip(run / "key-layers.json"),
        ["student/key-layers.json: has another content than was written"],
    ),
    "edited key layers before training is done": (
        lambda run: [
            shutil.rmtree(run / "student"),
            edit(run / "key-layers.json", pairs=[{"student": 1}]),
        ],
        ["student/key-layers.json: has ", "1 fault; nothing was run."],
    ),
    "edited key layers, and no manifest, before training is done": (
        lambda run: [
            shutil.rmtree(run / "student"),
            (run / "files.json").unlink(),
            edit(run / "key-layers.json", pairs=[{"student": 1}]),
        ],
        ["student/key-layers.json: is not what a run writes (got KeyError: 'teacher')"],
    ),
    "a flipped bit in the key layers before training is done": (
        lambda run: [shutil.rmtree(run / "student"), flip(run / "key-layers.json")],
        ["student/key-layers.json: has another content than was written"],
    ),
    "a garbled geometry": (lambda run: garble(run / "geometry.json"), ["student/geometry.json: has 9 bytes instead"]),
    "a garbled geometry before training is done": (
        lambda run: [shutil.rmtree(run / "student"), garble(run / "geometry.json")],
        ["student/geometry.json: is not what a run writes (got JSONDecodeError"],
    ),
    "no weights": (
        lambda run: (run / "student" / "model.safetensors").unlink(),
        ["student/student/model.safetensors: is missing"],
    ),
    "weights cut off": (
        lambda run: cut(run / "student" / "model.safetensors"),
        ["student/student/model.safetensors: has ", " bytes instead of "],
    ),
    "a flipped bit in the weights": (
        lambda run: flip(run / "student" / "model.safetensors"),
        ["student/student/model.safetensors: has another content than was written"],
    ),
    "no tokenizer": (
        lambda run: (run / "student" / "tokenizer.json").unlink(),
        ["student/student/tokenizer.json: is missing"],
    ),
    "a flipped bit in the configuration": (
        lambda run: flip(run / "student" / "config.json"),
        ["student/student/config.json: has another content than was written"],
    ),
    "no manifest": (lambda run: (run / "files.json").unlink(), ["student/files.json: is missing"]),
    "a garbled manifest": (lambda run: garble(run / "files.json"), ["student/files.json: cannot be read (Expecting"]),
    "a flipped bit in the weights of the teacher": (
        lambda run: flip(run.with_name("teacher") / "student" / "model.safetensors"),
        [
            "teacher/student/model.safetensors: has another content than was written",
            "Put it back; or delete ",
            "/teacher/student, then resume that run",
        ],
    ),
    "no log of the teacher, and no weights": (
        lambda run: [
            (run.with_name("teacher") / "training.json").unlink(),
            (run / "student" / "model.safetensors").unlink(),
        ],
        ["teacher/training.json: is missing", "student/student/model.safetensors: is missing", "2 faults"],
    ),
    "a report of a newer version": (
        lambda run: edit(run / "report.json", format=99),
        ["student/report.json: was written by a newer version of mta_framework (got format 99)"],
    ),
    "a file for checkpoints, and no student": (
        lambda run: [
            shutil.rmtree(run / "student"),
            shutil.rmtree(run / "checkpoints"),
            garble(run / "checkpoints"),
        ],
        ["student/checkpoints: is a file"],
    ),
    "a garbled spec of the teacher": (
        lambda run: garble(run.with_name("teacher") / "spec.json"),
        ["teacher/spec.json:1:2: is not JSON"],
    ),
}


def test_damage_is_reported_with_file_and_remedy_and_nothing_is_run(spec, run_once, tmp_path):
    run_once(spec)
    runs, whole = tmp_path / "runs", tmp_path / "whole"
    shutil.copytree(runs, whole)
    for name, (damage, messages) in DAMAGES.items():
        damage(runs / "student")
        result = resume(spec)
        assert (name, result.exit_code) == (name, 2), result.output
        assert [message for message in messages if message not in result.output] == [], result.output
        assert "Traceback" not in result.output
        shutil.rmtree(runs)
        shutil.copytree(whole, runs)


def test_what_the_message_says_makes_export_log_and_layers_anew(spec, tmp_path):
    pipeline.run(bind(spec, discover()))
    run = tmp_path / "runs" / "student"
    before = {name: (run / name).read_bytes() for name in ("student/model.safetensors", "key-layers.json")}
    cut(run / "student" / "model.safetensors")
    for name in ("training.json", "key-layers.json"):
        garble(run / name)
    assert resume(spec).exit_code == 2
    for name in ("training.json", "key-layers.json"):
        (run / name).unlink()
    shutil.rmtree(run / "student")
    assert resume(spec).exit_code == 0
    assert {name: (run / name).read_bytes() for name in before} == before


def test_a_report_that_was_lost_or_garbled_is_written_anew(spec, run_once, tmp_path):
    run_once(spec)
    report = tmp_path / "runs" / "student" / "report.json"
    for damage in (report.unlink, lambda: garble(report)):
        damage()
        assert resume(spec).exit_code == 0
        assert json.loads(report.read_text())["name"] == "student"


def test_a_damaged_checkpoint_is_passed_over_and_reported(spec, tmp_path, caplog):
    pipeline.run(bind(spec, discover()))
    run = tmp_path / "runs" / "student"
    weights = (run / "student" / "model.safetensors").read_bytes()
    shutil.rmtree(run / "student")
    (run / "checkpoints" / "checkpoint-2" / "optimizer.pt").unlink()
    assert resume(spec).exit_code == 0
    assert "checkpoint-2 is damaged (optimizer.pt is missing); continuing from checkpoint-1" in caplog.text
    assert (run / "student" / "model.safetensors").read_bytes() == weights
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["checkpoint-1", "checkpoint-2"]


def test_without_any_whole_checkpoint_nothing_is_begun_anew(spec, run_once, tmp_path):
    run_once(spec)
    run = tmp_path / "runs" / "student"
    shutil.rmtree(run / "student")
    cut(run / "checkpoints" / "checkpoint-1" / "student" / "student.safetensors")
    (run / "checkpoints" / "checkpoint-2" / "files.json").unlink()
    result = resume(spec)
    assert result.exit_code == 2
    assert "checkpoints: holds no intact checkpoint (got checkpoint-2: files.json is missing)" in result.output


@pytest.mark.parametrize("name", ["trainer_state.json", "optimizer.pt", "student/student.safetensors"])
def test_one_flipped_bit_in_a_checkpoint_is_noticed_and_an_earlier_one_used(name, spec, run_once, tmp_path, caplog):
    run_once(spec)
    run = tmp_path / "runs" / "student"
    weights = (run / "student" / "model.safetensors").read_bytes()
    shutil.rmtree(run / "student")
    flip(run / "checkpoints" / "checkpoint-2" / name)
    result = resume(spec)
    assert result.exit_code == 0, result.output
    reason = f"checkpoint-2 is damaged ({name} has another content than was written); continuing from checkpoint-1"
    assert reason in caplog.text
    assert (run / "student" / "model.safetensors").read_bytes() == weights


@pytest.mark.parametrize(
    "reuse", ["evaluate the run", "evaluate the export", "push", "teacher.path", "teacher weights"]
)
def test_a_flipped_bit_in_an_export_is_noticed_by_whoever_reuses_it(
    reuse, spec, spec_dict, write_spec, run_once, tmp_path
):
    run_once(spec)
    run = tmp_path / "runs" / "student"
    flip(run / "student" / "model.safetensors")
    short = ("--set", "evaluation.max_new_tokens=6", "-o", tmp_path / "scores")
    rows = ("--data", f"test={tmp_path / 'train.jsonl'}", *short)
    arguments = {
        "evaluate the run": ("evaluate", run, *rows),
        "evaluate the export": ("evaluate", run / "student", *rows),
        "push": ("push", run, "small"),
    }
    if reuse == "teacher.path":
        document = {**spec_dict, "name": "next", "teacher": {"path": str(run / "student")}, "alignment": None}
        arguments[reuse] = ("run", write_spec({**document, "evaluation": None}, "next.json"))
    if reuse == "teacher weights":
        flip(run.with_name("teacher") / "student" / "model.safetensors")
        run = run.with_name("teacher")
        arguments[reuse] = ("spans", spec, "--importance")
    result = CliRunner().invoke(main, list(map(str, arguments[reuse])))
    assert result.exit_code == 2, result.output
    fault = f"{run / 'student' / 'model.safetensors'}: has another content than was written; expected"
    assert fault in result.output.replace("\n", "")
    assert "1 fault" in result.output


def test_a_flipped_bit_in_a_report_is_noticed_where_runs_are_compared(spec_dict, write_spec, run_once, tmp_path):
    run_once(write_spec({**spec_dict, "alignment": None}))
    report = tmp_path / "runs" / "student" / "report.json"
    text = report.read_text()
    report.write_text(text.replace('"seed": 1', '"seed": 3', 1))
    result = CliRunner().invoke(main, ["compare", str(report.parent)])
    assert result.exit_code == 2
    assert "report.json: has another content than was written" in result.output
    assert "Write it again: mta run SPEC --resume." in result.output
    report.write_text(text)
    assert CliRunner().invoke(main, ["compare", str(report.parent)]).exit_code == 0


def test_a_changed_copy_of_an_export_is_a_model_of_its_own(spec, run_once, tmp_path):
    run_once(spec)
    copy = shutil.copytree(tmp_path / "runs" / "student" / "student", tmp_path / "copy")
    edit(copy / "generation_config.json", temperature=0.5)
    rows, short = f"test={tmp_path / 'train.jsonl'}", ("--seeds", "1", "--set", "evaluation.max_new_tokens=2")
    arguments = ["evaluate", str(copy), "--data", rows, "-o", str(tmp_path / "scores"), *short]
    assert CliRunner().invoke(main, arguments).exit_code == 0
