"""What ``mta sweep`` prints, and how it exits."""

from __future__ import annotations

import shlex
import subprocess
import sys
from contextlib import nullcontext

import pytest
from click.testing import CliRunner

from mta_framework.cli import main
from mta_framework.comparison.results import Comparison
from mta_framework.errors import InputError, RunError
from mta_framework.spec.sweep import read_sweep
from mta_framework.storage import write_json
from mta_framework.sweeps import run
from mta_framework.sweeps.pool import visible_devices


@pytest.fixture
def path(sweep_dict, write_spec):
    return write_spec(sweep_dict, "sweep.json")


@pytest.fixture
def mta(path, monkeypatch):
    def invoke(*arguments):
        monkeypatch.setattr(sys, "argv", ["/bin/mta", "sweep", str(path), *arguments])
        return CliRunner().invoke(main, ["sweep", str(path), *arguments])

    return invoke


def test_dry_run_lists_cells_settings_and_teachers_without_torch(path, tmp_path):
    code = (
        "import sys\nfrom mta_framework.cli import main\n"
        f"sys.argv = ['mta', 'sweep', {str(path)!r}, '--dry-run']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "assert not {'torch', 'transformers', 'ray'} & set(sys.modules)\n"
    )
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    lines = [line.split() for line in output.splitlines()]
    assert ["KL-MTA-seed-4", "KL", "+", "MTA", "seed", "4", "new"] in lines
    assert ["KL", "alignment", "null"] in lines
    assert ["every", "cell", "evaluation.models", '["student"]'] in lines
    assert f"teacher {tmp_path / 'teacher.json'}: not trained yet" in output
    assert not (tmp_path / "sweeps").exists()


@pytest.mark.parametrize("option", [["--resume"], ["--jobs", "2"], ["--ray", "auto"]])
@pytest.mark.parametrize("alone", ["--dry-run", "--compare"])
def test_options_of_a_run_are_refused_where_nothing_is_run(alone, option, mta):
    assert f"have no effect with {alone}" in mta(alone, *option).output
    assert mta("--jobs", "0").exit_code == 2


def test_dry_run_and_comparison_exclude_each_other(mta):
    result = mta("--dry-run", "--compare")
    assert (result.exit_code, "exclude each other" in result.output) == (2, True)


def test_comparing_a_sweep_without_finished_cells_is_refused_and_runs_nothing(mta, path, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "run_sweep", None)
    result = mta("--compare")
    assert result.exit_code == 2
    assert f"{path}: has no finished cell that was evaluated or validated" in result.output
    assert not (tmp_path / "sweeps").exists()


def test_comparison_names_the_cells_that_are_not_finished(bound, sweep_dict, monkeypatch):
    bound_sweep = bound(sweep_dict)
    done, *others = bound_sweep.cells
    done.folder.path.mkdir(parents=True)
    write_json(done.folder.spec_file, done.run.spec.model_dump(mode="json"))
    monkeypatch.setattr("mta_framework.sweeps.bound_sweep.is_reported", lambda run: True)
    compared = Comparison((), (), (), (), (), ("what the numbers are",), (), outcome_notes=("of outcomes",))
    monkeypatch.setattr(run, "compare", lambda folders, *_, **__: compared if folders == [done.folder.path] else None)
    monkeypatch.setattr(run, "write_comparison", lambda *_: [])
    comparison, _ = run.compare_cells(bound_sweep)
    names = ", ".join(cell.cell.name for cell in others)
    left_out = f"Not finished, so left out: {len(others)} of {len(others) + 1} cells ({names}). "
    assert comparison.notes[0] == comparison.outcome_notes[0]
    assert comparison.notes[0].startswith(left_out)
    assert (comparison.notes[1:], comparison.outcome_notes[1:]) == (("what the numbers are",), ("of outcomes",))


def test_failed_cells_are_named_after_the_table(mta, path, monkeypatch):
    monkeypatch.setattr(run, "run_sweep", lambda *_: ["KL-seed-3"])
    monkeypatch.setattr(run, "compare_cells", lambda *_: (None, [path]))
    monkeypatch.setattr("mta_framework.comparison.renderings.terminal_lines", lambda *_, **__: ["the table"])
    result = mta()
    assert result.exit_code == 1
    assert f"the table\n\nWritten: {path}\n" in result.output
    assert (
        f"The sweep failed in 1 of its runs: KL-seed-3\nWhen the cause is fixed: mta sweep {path} --resume"
        in result.output
    )


def test_interruption_says_how_to_go_on(mta, path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "run_sweep", interrupted)
    result = mta()
    assert result.exit_code == 130
    assert f"Interrupted. To continue: mta sweep {path} --resume" in result.output


@pytest.mark.parametrize("options", [["--jobs", "2"], ["--resume", "--jobs", "2"]])
def test_advice_after_an_interruption_keeps_the_options_and_is_quoted_for_a_shell(
    options, sweep_dict, write_spec, monkeypatch
):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "run_sweep", interrupted)
    arguments = ["sweep", str(write_spec(sweep_dict, "my sweep.json")), *options]
    monkeypatch.setattr(sys, "argv", ["/bin/mta", *arguments])
    advice = CliRunner().invoke(main, arguments).output.strip().removeprefix("Interrupted. To continue: ")
    assert shlex.split(advice) == ["mta", *arguments, *([] if "--resume" in options else ["--resume"])]


def test_options_reach_the_sweep_and_plugin_files_its_runs(sweep_dict, write_spec, tmp_path, monkeypatch):
    plugin = tmp_path / "own.py"
    hook = "from mta_framework import hookimpl\n\n@hookimpl\ndef mta_register_metrics():\n    return []\n"
    plugin.write_text(hook)
    seen = []
    monkeypatch.setattr(run, "runner", lambda *options: options)
    monkeypatch.setattr(run, "run_sweep", lambda bound, *options: seen.append(options) or [])
    monkeypatch.setattr(run, "compare_cells", lambda *_: None)
    path = write_spec(sweep_dict, "sweep.json")
    result = CliRunner().invoke(main, ["-p", str(plugin), "sweep", str(path), "--jobs", "3", "--resume"])
    assert result.exit_code == 0, result.output
    ((runner, resume, _, plugin_files),) = seen
    assert (runner, resume, plugin_files) == ((3, None), True, (plugin,))


def test_cells_that_cannot_be_compared_are_a_failed_run(bound, sweep_dict, monkeypatch):
    def refuse(*_, **__):
        raise InputError([])

    bound_sweep = bound(sweep_dict)
    for cell in bound_sweep.cells:
        cell.folder.path.mkdir(parents=True)
        write_json(cell.folder.spec_file, cell.run.spec.model_dump(mode="json"))
    monkeypatch.setattr("mta_framework.sweeps.bound_sweep.is_reported", lambda run: True)
    monkeypatch.setattr(run, "compare", refuse)
    with pytest.raises(RunError, match="cannot be compared"):
        run.compare_cells(bound_sweep)


@pytest.mark.parametrize(
    ("named", "count", "devices"),
    [(None, 3, ["0", "1", "2"]), ("4,GPU-8", 2, ["4", "GPU-8"]), ("", 0, []), ("1,-1,2", 1, ["1"]), (None, 0, [])],
)
def test_visible_devices_keep_the_names_that_the_user_gave(named, count, devices, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    if named is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert visible_devices() == devices


def test_launcher_with_several_processes_is_refused(bound, sweep_dict, monkeypatch):
    class Two:
        num_processes = 2

    monkeypatch.setattr(run, "processes", Two)
    with pytest.raises(InputError, match="starts processes itself"):
        run.run_sweep(bound(sweep_dict), nullcontext(), False, lambda line: None)


def test_a_sweep_that_does_not_exist_is_not_to_be_started_from_a_spec_of_one_run(tmp_path):
    result = CliRunner().invoke(main, ["sweep", str(tmp_path / "no.json")])
    assert result.exit_code == 2
    assert "no.json: does not exist; expected the file of a sweep. Check the path. The guide `run a" in result.output


def test_a_run_given_as_a_sweep_is_one_fault_that_names_the_commands_for_it(tmp_path):
    path = tmp_path / "run.json"
    path.write_text('{"name": "run", "student": {}, "data": {}}')
    with pytest.raises(InputError, match=r"run\.json: is the spec of one run .*mta check and mta run") as caught:
        read_sweep(path)
    assert len(caught.value.faults) == 1
