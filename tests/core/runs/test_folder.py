"""Whether a run folder may be written to."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mta_framework.errors import InputError, RunError
from mta_framework.runs.folder import open_run_folder
from mta_framework.runs.inputs import contents
from mta_framework.runs.plugin_binding import BoundRun
from mta_framework.runs.resume import require_free
from mta_framework.spec.evaluation_spec import EvaluationSpec
from mta_framework.spec.run import RunSpec
from mta_framework.storage import read_json


def spec_in(folder, **changes):
    document = {
        "name": "a",
        "output_dir": str(folder),
        "student": {"hub": "x/y"},
        "data": {"train": {"path": "t.jsonl"}},
        "base_loss": {"name": "sft"},
        "training": {"epochs": 1},
    }
    return RunSpec.model_validate({**document, **changes})


def bound(spec):
    return BoundRun(Path("spec.json"), spec, base_loss=None)


def begin(spec):
    with open_run_folder(spec, lambda: None, contents(bound(spec))):
        pass


def test_a_new_folder_is_free_and_then_holds_the_resolved_spec(tmp_path):
    spec = spec_in(tmp_path)
    require_free(bound(spec), resume=False)
    begin(spec)
    saved = read_json(tmp_path / "a" / "spec.json")
    assert saved == {**spec.model_dump(mode="json"), "output_dir": ".."}
    assert sorted(path.name for path in (tmp_path / "a").glob("[!.]*")) == ["inputs.json", "spec.json"]


@pytest.mark.parametrize("error", [None, FileNotFoundError("gone"), RuntimeError("no such folder")])
def test_a_folder_that_is_deleted_while_the_run_is_at_work_ends_it_with_a_sentence(tmp_path, error):
    spec = spec_in(tmp_path)

    def work():
        shutil.rmtree(tmp_path / "a")
        if error is not None:
            raise error

    with (
        pytest.raises(RunError, match=r"a: was deleted while this run was at work"),
        open_run_folder(spec, lambda: None, contents(bound(spec))),
    ):
        work()


def test_an_error_in_a_folder_that_is_there_is_left_as_it_is(tmp_path):
    spec = spec_in(tmp_path)
    with pytest.raises(KeyError), open_run_folder(spec, lambda: None, contents(bound(spec))):
        raise KeyError


def test_a_folder_with_a_run_is_refused_without_resume(tmp_path):
    begin(spec_in(tmp_path))
    with pytest.raises(InputError) as caught:
        require_free(bound(spec_in(tmp_path)), resume=False)
    assert str(caught.value) == (
        f"name: already holds a run (got {tmp_path / 'a'}); expected a name without a run. "
        "Choose another, or go on with --resume."
    )


def test_a_run_may_go_on_with_smaller_batches_of_prompts_and_with_no_other_generation(tmp_path):
    def generating(**section):
        return spec_in(tmp_path, training={"epochs": 1, "generation": section})

    begin(generating(batch_tokens=32))
    require_free(bound(generating(batch_tokens=4)), resume=True)
    with pytest.raises(InputError) as caught:
        require_free(bound(generating(batch_tokens=4, max_new_tokens=7)), resume=True)
    assert [fault.where for fault in caught.value.faults] == ["training.generation.max_new_tokens"]


def test_resuming_with_another_spec_names_every_field_that_differs(tmp_path):
    begin(spec_in(tmp_path))
    changed = spec_in(tmp_path, seed=7, training={"epochs": 2, "trackers": []})
    with pytest.raises(InputError) as caught:
        require_free(bound(changed), resume=True)
    assert [fault.where for fault in caught.value.faults] == ["seed", "training.epochs"]
    assert str(caught.value.faults[1]) == (
        f"training.epochs: is not what the run in {tmp_path / 'a'} began with (got 2); expected 1 as in its spec.json. "
        "Set it back, choose another name, or delete the folder."
    )


def test_what_does_not_touch_the_weights_may_change(tmp_path):
    begin(spec_in(tmp_path))
    evaluation = {"sets": {"dolly": {"path": "d.jsonl"}}}
    changed = spec_in(tmp_path, evaluation=evaluation, training={"epochs": 1, "trackers": [], "keep_checkpoints": 5})
    require_free(bound(changed), resume=True)


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    spec = spec_in(tmp_path / "file")
    with pytest.raises(RunError, match=r"^cannot write to .*file/a \(.+\); set output_dir$"):
        begin(spec)
    evaluation = {"sets": {"dolly": {"path": str(tmp_path / "d.jsonl")}}}
    folder, model = str(tmp_path / "file" / "b"), {"path": str(tmp_path)}
    alone = EvaluationSpec(name="b", folder=folder, model=model, evaluation=evaluation)
    with (
        pytest.raises(RunError, match=r"^cannot write to .*file/b \(.+\); choose another by -o$"),
        open_run_folder(alone, lambda: None, {}),
    ):
        pass


def test_a_folder_that_another_process_holds_is_refused_until_that_process_is_gone(tmp_path):
    spec = spec_in(tmp_path)
    hold = "import sys\nfrom mta_framework.runs.folder import open_run_folder\n"
    hold += "from mta_framework.spec.run import RunSpec\n"
    hold += "with open_run_folder(RunSpec.model_validate_json(sys.argv[1]), lambda: None, {}):\n"
    hold += "    print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", hold, spec.model_dump_json()]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        other.stdout.readline()
        with pytest.raises(RunError, match=r"/a: another process is at work on this run; wait for it, then resume$"):
            begin(spec)
    finally:
        other.kill()
        other.communicate()
    begin(spec)
