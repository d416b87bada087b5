from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import Result

import mta_framework.runs
from mta_framework import LayerPair, RunError
from mta_framework.cli.plan import plan_lines
from mta_framework.evaluation.report import ReportedData, ReportedModel, ReportedSpans, ReportedTeacher
from mta_framework.memory_estimate.estimate import MemoryEstimate
from mta_framework.runs.plan import Plan

Mta = Callable[..., Result]


def test_a_run_says_where_its_report_is_and_keeps_what_was_typed(
    mta: Mta, spec_file: Path, pipeline: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/bin/mta", "run", "my spec.json", "--resume"])
    result = mta("run", spec_file, "--set", "seed=7", "--resume")
    ((bound, resume, command),) = pipeline.arguments
    assert command == "mta run 'my spec.json' --resume"
    assert (bound.spec.seed, resume) == (7, True)
    assert result.stdout == f"Report: {spec_file.parent / 'runs' / 'plain' / 'report.html'}\n"


@pytest.mark.parametrize(
    ("outcome", "code", "message"),
    [
        (RunError("the loss is NaN at step 3"), 1, "The run failed: the loss is NaN at step 3"),
        (KeyboardInterrupt(), 130, "mta run SPEC --resume"),
    ],
)
def test_a_run_that_ends_early_has_its_own_exit_code(
    mta: Mta, spec_file: Path, pipeline: SimpleNamespace, outcome: BaseException, code: int, message: str
) -> None:
    pipeline.outcome = outcome
    result = mta("run", spec_file)
    assert result.exit_code == code
    assert message in result.stderr


def test_a_faulty_spec_never_reaches_the_pipeline(mta: Mta, spec_file: Path, pipeline: SimpleNamespace) -> None:
    assert mta("run", spec_file, "--set", "seed=x").exit_code == 2
    assert pipeline.arguments == []


def test_resume_and_dry_run_exclude_each_other(mta: Mta, spec_file: Path) -> None:
    assert mta("run", spec_file, "--resume", "--dry-run").exit_code == 2


def test_scores_are_printed_as_a_table(mta: Mta, spec_file: Path, pipeline: SimpleNamespace) -> None:
    from mta_framework.evaluation.report import Report, ReportedEvaluation, Score

    scores = (
        Score("student", "dolly", "rouge_l", (20.0, 22.0), 21.0, 1.41, (19.5, 22.25)),
        Score("student", "sni", "rouge_l", (), 9.5, None),
    )
    pipeline.outcome = Report("plain", {}, ReportedEvaluation((1, 2), scores, (), ()))
    lines = mta("run", spec_file).stdout.splitlines()
    assert lines[1:5] == [
        "rouge_l",
        "  model             dolly   sni",
        "  student    21.00 ± 1.41  9.50",
        "           [19.50, 22.25]",
    ]


def test_a_plan_is_printed_as_aligned_tables() -> None:
    plan = Plan(
        models={"student": ReportedModel(1_234_567, 1_000, 12)},
        data={"train": ReportedData(9_000, 12, 3, cut_prompts=1_867)},
        spans={"words": ReportedSpans(50_000, 9_000, 1)},
        layer_pairs=(LayerPair(6, 24, "words"), LayerPair(12, 48, "phrases")),
        steps=2_815,
        memory=MemoryEstimate("backward pass", {"student weights": 3 << 30, "gradients": 1 << 20}, 16, 1_234),
        unparsed=1_200,
        loss_layers=((4, 16), (8, 32)),
        trained_on="Pairs.",
        supervised_tokens=4_321,
        measured=True,
        response_ends=(),
        selection="Validation every epoch.",
    )
    lines = list(plan_lines(plan))
    assert lines[:3] == ["model    parameters  trainable", "student   1,234,567      1,000", ""]
    assert "key layers  student  teacher" in lines
    assert "phrases          12       48" in lines
    assert f"together         {'3.0 GiB':>16}" in lines
    assert "The peak is in the backward pass, with the largest batch: 16 texts, padded to 1,234 tokens." in lines
    assert "base loss reads  student  teacher" in lines
    assert ["layer", "8", "32"] in [line.split() for line in lines]
    assert "Segments that could not be parsed and have no spans: 1,200; see `mta spans`." in lines
    assert "Trained on responses. Pairs." in lines
    assert "Prompts of train that are cut to their first tokens: 1,867." in lines
    assert "All assistant turns are supervised: 4,321 tokens of the training set." in lines
    assert "These key layers are placeholders; the actual ones are measured before the first step." in lines
    assert "Validation every epoch." in lines
    assert lines[-1] == "2,815 optimiser steps. Nothing was trained."


def test_a_plan_lists_texts_and_layers_of_each_of_several_teachers() -> None:
    maths = ReportedTeacher(1_200, 34_567, 10, (LayerPair(6, 24, "words"),), ((4, 16),))
    teachers = {"maths": maths, "code": ReportedTeacher(8, 90, 0, (LayerPair(6, 12, "words"),))}
    lines = [line.split() for line in plan_lines(Plan({}, {}, {}, (), 1, None, teachers=teachers))]
    assert lines[:3] == [
        ["teacher", "texts", "supervised", "tokens"],
        ["maths", "1,200", "34,567"],
        ["code", "8", "90"],
    ]
    assert ["code", "words", "6", "12"] in lines
    assert ["maths", "4", "16"] in lines


def test_help_loads_no_torch() -> None:
    code = (
        "import sys\nfrom mta_framework.cli import main\n"
        "for arguments in (['--help'], ['--version'], ['run', '--help']):\n"
        "    main(arguments, standalone_mode=False)\n"
        "    assert not {'torch', 'transformers', 'numpy'} & set(sys.modules), arguments\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_the_package_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "mta_framework", "--version"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert output == f"mta, version {mta_framework.__version__}\n"


def test_check_plugins_and_init_load_no_torch(spec_file: Path, plugin_file: Path) -> None:
    code = (
        "import sys\nfrom mta_framework.cli import main\n"
        f"for arguments in (['check', {str(spec_file)!r}], ['plugins'], ['init', '-o', 'new.json']):\n"
        f"    assert not main(['-p', {str(plugin_file)!r}, *arguments], standalone_mode=False)\n"
        "    assert not {'torch', 'transformers', 'spacy', 'numpy'} & set(sys.modules), arguments\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=spec_file.parent)
