"""A run goes on with the data and the models that it began with, wherever they lie and whenever they were written."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from mta_framework.errors import InputError
from mta_framework.models.fingerprint import evaluated_fingerprint, fingerprints, model_content
from mta_framework.runs.folder import RunFolder, open_run_folder
from mta_framework.runs.inputs import contents
from mta_framework.runs.manifest import publish_student
from mta_framework.runs.plugin_binding import BoundEvaluation, BoundRun
from mta_framework.runs.resume import require_free, require_same_evaluation
from mta_framework.spec.evaluation_spec import EvaluationSpec
from mta_framework.spec.reading import read_spec
from mta_framework.spec.run import RunSpec
from mta_framework.storage import read_json, write_manifest


@pytest.fixture
def project(tmp_path):
    """A folder with data, a model and a spec that names them by relative paths."""
    folder = tmp_path / "project"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "config.json").write_text("{}")
    (folder / "model" / "model.safetensors").write_bytes(b"weights")
    (folder / "model" / "README.md").write_text("about it")
    (folder / "train.jsonl").write_text("rows\n")
    (folder / "test.jsonl").write_text("questions\n")
    spec = {
        "name": "a",
        "student": {"path": "model"},
        "teacher": {"path": "model"},
        "data": {"train": {"path": "train.jsonl"}},
        "base_loss": {"name": "kl"},
        "training": {"epochs": 1},
        "evaluation": {"sets": {"test": {"path": "test.jsonl"}}},
    }
    (folder / "spec.json").write_text(json.dumps(spec))
    return folder


def bound(project, *overrides, spec="spec.json"):
    reading = read_spec(project / spec, overrides)
    assert reading.spec is not None, reading.faults
    return BoundRun(project / spec, reading.spec, base_loss=None)


def begin(run):
    with open_run_folder(run.spec, lambda: None, contents(run)):
        pass


def faults(run):
    try:
        require_free(run, resume=True)
    except InputError as error:
        return [str(fault) for fault in error.faults]
    return []


def test_the_run_folder_has_the_digest_of_every_input(project):
    begin(bound(project))
    model = {
        "config.json": hashlib.sha256(b"{}").hexdigest(),
        "model.safetensors": hashlib.sha256(b"weights").hexdigest(),
    }
    assert read_json(project / "runs" / "a" / "inputs.json") == {
        "data.train.path": {"sha256": hashlib.sha256(b"rows\n").hexdigest()},
        "evaluation.sets.test.path": {"sha256": hashlib.sha256(b"questions\n").hexdigest()},
        "student.path": model,
        "teacher.path": model,
    }


def test_another_content_under_the_same_path_is_refused_with_the_field_and_what_to_do(project):
    begin(bound(project))
    before = (project / "train.jsonl").stat()
    (project / "train.jsonl").write_text("ROWS\n")
    os.utime(project / "train.jsonl", ns=(before.st_atime_ns, before.st_mtime_ns))
    digests = [hashlib.sha256(text).hexdigest()[:12] for text in (b"ROWS\n", b"rows\n")]
    assert faults(bound(project)) == [
        f"data.train.path: has other content than the run began with by {project / 'runs' / 'a' / 'inputs.json'} "
        f"(got sha256 {digests[0]}); expected sha256 {digests[1]}. "
        "Put it back, choose another name, or delete the folder."
    ]


def test_the_changed_files_of_a_model_are_named(project):
    begin(bound(project))
    (project / "model" / "model.safetensors").write_bytes(b"weighty")
    (project / "model" / "chat_template.jinja").write_text("{{ messages }}")
    (project / "model" / "README.md").write_text("more about it")
    named = [fault.partition(" (got ")[2].partition(")")[0] for fault in faults(bound(project))]
    new = [hashlib.sha256(text).hexdigest()[:12] for text in (b"weighty", b"{{ messages }}")]
    assert named == [f"model.safetensors {new[0]}, chat_template.jinja {new[1]}"] * 2


def test_files_that_were_touched_copied_or_moved_are_the_same_inputs(project):
    begin(bound(project))
    for path in project.rglob("*.*"):
        os.utime(path, (1, 1))
    assert faults(bound(project)) == []
    shutil.copytree(project / "model", project / "copy")
    shutil.move(project / "train.jsonl", project / "rows.jsonl")
    moved = ("student.path=copy", "teacher.path=copy", "data.train.path=rows.jsonl")
    assert faults(bound(project, *moved)) == []


def test_a_project_that_was_moved_as_a_whole_goes_on_by_its_spec_and_by_that_of_the_run(project, tmp_path):
    begin(bound(project))
    (tmp_path / "elsewhere").mkdir()
    moved = Path(shutil.move(project, tmp_path / "elsewhere" / "later"))
    assert faults(bound(moved)) == []
    by_run = bound(moved, spec="runs/a/spec.json")
    assert by_run.spec == bound(moved).spec
    assert faults(by_run) == []


def test_an_input_with_nothing_in_common_with_the_run_folder_is_saved_by_its_absolute_path(project):
    path = Path("/dev/null")
    begin(bound(project, f"data.train.path={path}"))
    saved = read_json(project / "runs" / "a" / "spec.json")
    assert saved["data"]["train"]["path"] == "/dev/null"
    assert saved["student"]["path"] == "../../model"


def test_a_set_of_the_evaluation_may_be_another_one_but_not_changed_in_place(project):
    begin(bound(project))
    (project / "other.jsonl").write_text("other questions\n")
    assert faults(bound(project, "evaluation.sets.test.path=other.jsonl")) == []
    (project / "test.jsonl").write_text("changed questions\n")
    (fault,) = faults(bound(project))
    assert fault.startswith("evaluation.sets.test.path: has other content than the run began with by ")
    assert fault.endswith(" Put it back, or give the set another name.")
    assert faults(bound(project, 'evaluation.sets={"new": {"path": "test.jsonl"}}')) == []


def test_a_tokenizer_that_is_added_is_another_student(project):
    begin(bound(project))
    assert faults(bound(project, "student.tokenizer=model"))[0].startswith("student.tokenizer: is not what the run in")


def test_the_student_of_a_teachers_run_is_an_input_once_it_is_trained(project):
    teacher = bound(project, "name=teacher", "teacher=null", "base_loss.name=sft")
    run = bound(project, 'teacher={"run": "spec.json"}')
    run = replace(run, teacher=teacher)
    assert "teacher.run" not in contents(run)
    exported = RunFolder.of(teacher.spec)
    publish_student(exported, shutil.copytree(project / "model", exported.path / "student.unpublished"))
    begin(run)
    assert faults(run) == []
    (exported.student / "model.safetensors").write_bytes(b"damaged")
    assert [fault.partition(": ")[0] for fault in faults(run)] == [str(exported.student / "model.safetensors")]
    write_manifest(exported.path, {"student/model.safetensors": exported.student / "model.safetensors"})
    assert [fault.partition(":")[0] for fault in faults(run)] == ["teacher.run"]  # trained again
    shutil.rmtree(exported.student)
    assert faults(run) == []


def test_what_lies_on_the_hub_is_known_by_commit_and_fingerprint(project, monkeypatch):
    import datasets

    commits = {"main": "c1", None: "c1"}
    monkeypatch.setattr("mta_framework.models.fingerprint._commit", lambda hub, revision: commits[revision])
    rows = datasets.Dataset.from_list([{"prompt": "a", "completion": "b"}])
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: rows)
    on_hub = ('student={"hub": "x/y"}', 'data.train={"hub": "x/z", "split": "train"}')
    begin(bound(project, *on_hub))
    saved = read_json(project / "runs" / "a" / "inputs.json")
    assert saved["student.hub"] == {"commit": "c1"}
    assert saved["data.train.hub"] == {"fingerprint": rows._fingerprint}
    assert faults(bound(project, *on_hub, "student.revision=main")) == []
    commits[None] = "c2"
    rows = datasets.Dataset.from_list([{"prompt": "a", "completion": "c"}])
    assert [fault.partition(":")[0] for fault in faults(bound(project, *on_hub))] == ["data.train.hub", "student.hub"]


def test_digests_that_were_lost_or_damaged_are_refused(project):
    begin(bound(project))
    inputs = project / "runs" / "a" / "inputs.json"
    inputs.write_text("{")
    assert faults(bound(project))[0].startswith(f"{inputs}: cannot be read (got JSONDecodeError")
    inputs.unlink()
    assert faults(bound(project)) == []
    (project / "runs" / "a" / "checkpoints").mkdir()
    assert faults(bound(project))[0].startswith(f"{inputs}: is missing, and the folder holds what a run left")


def test_fingerprints_of_models_follow_content_and_not_path_or_time(project):
    def prints(run):
        return fingerprints(run.spec, contents(run), model_content(project / "model"))

    before = prints(bound(project))
    shutil.copytree(project / "model", project / "copy")
    assert prints(bound(project, "student.path=copy", "teacher.path=copy")) == before
    (project / "copy" / "model.safetensors").write_bytes(b"other")
    after = prints(bound(project, "student.path=copy", "teacher.path=copy"))
    assert {name for name in before if before[name] != after[name]} == {"teacher", "initial_student"}


def test_the_seed_is_part_of_a_student_that_is_initialised_by_it_alone(project):
    def initial(*overrides):
        run = bound(project, *overrides)
        return fingerprints(run.spec, contents(run), {})["initial_student"]

    new = 'student={"config": {"model_type": "llama"}, "tokenizer": "model"}'
    for given in ((), ('student={"teacher_layers": [1]}',), ("student.lora={}",)):
        assert initial(*given) == initial(*given, "seed=7", "training.learning_rate=0.5", "base_loss.name=jsd")
    assert initial(new) != initial(new, "seed=7")
    assert initial(new) == initial(new, "training.learning_rate=0.5")


def evaluation(project, model):
    spec = EvaluationSpec(
        name="e",
        folder=str(project / "evaluations" / "e"),
        model={"path": str(project / model)},
        evaluation={"sets": {"test": {"path": str(project / "test.jsonl")}}},
    )
    return BoundEvaluation(spec, ())


def test_an_evaluation_goes_on_with_a_copy_of_its_model_and_refuses_another(project):
    first = evaluation(project, "model")
    with open_run_folder(first.spec, lambda: None, contents(first)):
        pass
    shutil.copytree(project / "model", project / "copy")
    copy = evaluation(project, "copy")
    require_same_evaluation(copy)
    assert evaluated_fingerprint(copy.spec, contents(copy)) == evaluated_fingerprint(first.spec, contents(first))
    (project / "copy" / "model.safetensors").write_bytes(b"other")
    with pytest.raises(InputError, match=r"model\.path: is not what the evaluation in"):
        require_same_evaluation(copy)
    assert evaluated_fingerprint(copy.spec, contents(copy)) != evaluated_fingerprint(first.spec, contents(first))


def test_every_path_of_a_spec_is_an_input_or_an_output():
    """A new field with a path is compared by content, or affects nothing."""
    from mta_framework.spec.effects import effect_of
    from mta_framework.spec.input_fields import map_locations

    paths = []
    document = RunSpec.model_validate(
        {
            "name": "a",
            "output_dir": "/runs",
            "student": {"path": "/s", "tokenizer": "/t"},
            "teacher": {"path": "/t"},
            "data": {"train": {"path": "/d"}, "validation": {"path": "/v"}, "cache_dir": "/c"},
            "base_loss": {"name": "kl"},
            "alignment": {"spans": {"name": "words"}},
            "training": {"epochs": 1},
            "evaluation": {"sets": {"a.b": {"path": "/e"}}},
        }
    ).model_dump(mode="json")
    map_locations(RunSpec, document, lambda key_path, kind, value: paths.append(".".join(key_path)))
    inputs = [path for path in paths if effect_of(RunSpec, path) != "nothing"]
    assert set(paths) - set(inputs) == {"output_dir", "data.cache_dir"}
    assert len(inputs) == 6
