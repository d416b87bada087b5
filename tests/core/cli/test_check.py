from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from click.testing import Result

Mta = Callable[..., Result]


def test_a_sound_spec_is_summed_up_part_by_part(mta: Mta, spec_file: Path, plugin_file: Path) -> None:
    result = mta("check", spec_file)
    lines = {line[2:].split("  ")[0]: line.split("  ")[-1].strip() for line in result.stdout.splitlines()[1:]}
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{spec_file} is valid:\n")
    assert lines == {
        "run folder": str(spec_file.parent / "runs" / "plain"),
        "teacher": "none",
        "student": "hub a/student",
        "data": str(spec_file.parent / "train.jsonl"),
        "base loss": f"plain_test, from {plugin_file}",
        "alignment": "none",
        "training": "2 epochs of batches of 16, fp32",
        "evaluation": "none",
    }


def test_seeds_of_an_evaluation_are_counted(mta: Mta, spec_file: Path) -> None:
    evaluation = '{"sets": {"test": {"path": "train.jsonl"}}, "models": ["student"], "metrics": [{"name": "rouge_l"}]}'
    for seeds, count in (("[10]", "1 seed"), ("[10, 20]", "2 seeds")):
        result = mta("check", spec_file, "--set", f"evaluation={evaluation}", "--set", f"evaluation.seeds={seeds}")
        assert f"student on test by rouge_l, {count}\n" in result.stdout


def test_one_epoch_and_one_row_are_said_in_the_singular(mta: Mta, spec_file: Path) -> None:
    result = mta("check", spec_file, "--set", "training.epochs=1", "--set", "data.train.limit=1")
    assert "  1 epoch of batches of 16, fp32\n" in result.stdout
    assert ", first 1 row\n" in result.stdout


def test_all_faults_go_to_standard_error_one_per_line_and_exit_with_2(mta: Mta, spec_file: Path) -> None:
    result = mta("check", spec_file, "--set", "training.epochs=0", "--set", "base_loss.params.strength=3")
    *faults, count = result.stderr.splitlines()
    assert (result.exit_code, result.stdout) == (2, "")
    assert [fault.split(": ")[0] for fault in faults] == [
        "--set training.epochs",
        "--set base_loss.params.strength",
    ]
    assert count == "2 faults; nothing was run."


def test_settings_are_checked_as_if_they_were_written(mta: Mta, spec_file: Path) -> None:
    assert "7 epochs" in mta("check", spec_file, "--set", "training.epochs=7").stdout


def test_other_ranks_keep_quiet(mta: Mta, spec_file: Path, monkeypatch) -> None:
    monkeypatch.setenv("RANK", "1")
    good, bad = mta("check", spec_file), mta("check", spec_file, "--set", "seed=x")
    assert (good.output, good.exit_code) == ("", 0)
    assert (bad.output, bad.exit_code) == ("", 2)


def test_a_plugin_file_may_stand_before_or_after_the_command(mta: Mta, spec_file: Path, plugin_file: Path) -> None:
    more = spec_file.with_name("more.py")
    more.write_text(plugin_file.read_text().replace("plain_test", "more_test").replace("demanding_test", "other_test"))
    setting = ("--set", "base_loss.name=more_test")
    assert mta("check", spec_file, *setting).exit_code == 2
    assert f"more_test, from {more}" in mta("check", spec_file, *setting, "-p", more).stdout
    assert f"plain_test, from {plugin_file}" in mta("check", spec_file, "-p", more).stdout
