"""A disk that fills up: nothing old is lost, no half file is taken for a whole one, and with room the run goes on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mta_framework.errors import RunError, explain_disk_full
from mta_framework.evaluation.report import read_report
from mta_framework.registry import discover
from mta_framework.runs import pipeline
from mta_framework.runs.plugin_binding import bind
from mta_framework.training import checkpoints

HINT = re.compile(r"(is|are) kept[.:] make room, then (continue with --)?resume", re.IGNORECASE)
WORKER = Path(__file__).with_name("full_disk_worker.py")


@pytest.fixture
def spec(spec_dict, write_spec, trained_teacher):
    """Four steps with a checkpoint at each second, a trained teacher and an evaluation."""
    layers = {"name": "proportional", "params": {"words": 2, "phrases": 0}}
    alignment = {"spans": {"name": "words"}, "layers": layers}
    training = {**spec_dict["training"], "save_steps": 2}
    evaluation = {**spec_dict["evaluation"], "models": ["student"], "seeds": [10]}
    path = write_spec({**spec_dict, "alignment": alignment, "training": training, "evaluation": evaluation})
    return path


@pytest.fixture
def run_without_room(warm_python):
    def run(stage, spec, *arguments):
        return warm_python.run([WORKER, stage, "run", spec, *arguments])

    return run


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["checkpoint", "export", "predictions", "report"])
def test_run_stops_with_a_sentence_keeps_what_was_whole_and_goes_on_with_room(
    stage, spec, run_without_room, warm_python, tmp_path
):
    done = run_without_room(stage, spec)
    folder = tmp_path / "runs" / "student"
    assert done.returncode == 1, done.stderr[-3000:]
    assert "The run failed: " in done.stderr
    assert str(folder) in done.stderr.split("The run failed: ")[1]
    assert HINT.search(done.stderr)
    assert "Traceback" not in done.stderr

    kept = {"checkpoint": ["checkpoint-2"]}.get(stage, ["checkpoint-2", "checkpoint-4"])
    assert [path.name for path in checkpoints.complete_checkpoints(folder / "checkpoints")] == kept
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == kept
    assert (folder / "student").exists() == (stage in ("predictions", "report"))
    assert not (folder / "report.json").exists()
    assert not [path for path in folder.rglob("*") if path.suffix in (".part", ".partial")]

    for arguments in (["--resume"], ["--set", "name=straight"]):
        warm_python.run(["-m", "mta_framework", "run", spec, *arguments], check=True)
    weights = [tmp_path / "runs" / name / "student" / "model.safetensors" for name in ("student", "straight")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    reports = [read_report(tmp_path / "runs" / name) for name in ("student", "straight")]
    scores = [[score.per_seed for score in report.evaluation.scores] for report in reports]
    assert scores[0] == scores[1]


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["predictions", "report"])
def test_an_earlier_report_and_export_stay_as_they_were(stage, spec, run_without_room, tmp_path):
    before = pipeline.run(bind(spec, discover()))
    folder = tmp_path / "runs" / "student"
    files = contents(folder)
    done = run_without_room(stage, spec, "--resume", "--set", "evaluation.seeds=[10,20]")
    assert done.returncode == 1
    assert HINT.search(done.stderr)
    after = contents(folder)
    for name in ("report.json", "report.md", "student/model.safetensors", "predictions/student/seen-seed10.jsonl"):
        assert after[Path(name)] == files[Path(name)], name
    assert read_report(folder).evaluation == before.evaluation
    assert pipeline.run(bind(spec, discover(), ["evaluation.seeds=[10,20]"]), resume=True).evaluation.seeds == (10, 20)


def test_a_device_without_room_is_reported_from_other_errors(tmp_path):
    with pytest.raises(RunError, match=r"OSError: \[Errno 28\].*Make room"), explain_disk_full(tmp_path):
        Path("/dev/full").write_bytes(b"some")
    torch_error = RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 146560 vs 146448")
    with pytest.raises(RunError, match=r"unexpected pos.*Make room"), explain_disk_full(tmp_path):
        raise torch_error
    with pytest.raises(FileNotFoundError), explain_disk_full(tmp_path):
        (tmp_path / "no" / "file").write_bytes(b"some")
