"""``mta compare``."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from click.testing import CliRunner

from mta_framework.cli import main

from .conftest import MTA

BASE = {"dolly": [[10.0, 20.0, 30.0], [12.0, 22.0, 32.0]]}
OTHER = {"dolly": [[15.0, 19.0, 31.0], [17.0, 21.0, 33.0]]}


@pytest.fixture
def runs(make_run):
    """The folder of two runs."""
    make_run(BASE)
    return make_run(OTHER, name="mta", alignment=MTA).parent


def mta(*arguments):
    return CliRunner().invoke(main, ["compare", *map(str, arguments)])


def test_shows_the_table_of_a_folder_of_runs(runs):
    result = mta(runs)
    assert result.exit_code == 0, result.output
    assert re.search(r"KL \+ MTA +22\.67 ± 1\.41", result.stdout)
    assert "Trained once" in result.stdout.replace("\n", " ")


def test_writes_every_form_and_says_so(runs, tmp_path):
    result = mta(runs / "kl", runs / "mta", "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    written = [line.removeprefix("Written: ") for line in result.stdout.splitlines() if line.startswith("Written")]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {path.rpartition("/")[2] for path in written}
    assert {"comparison.md", "comparison.html", "wins.csv"} <= {path.name for path in (tmp_path / "out").iterdir()}


def test_refuses_what_was_evaluated_differently_unless_asked_to(runs, make_run):
    make_run(OTHER, name="warm", alignment=MTA, training__epochs=5, evaluation__temperature=1.0)
    result = mta(runs)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(
        "evaluation.temperature: differs between the runs (got 0.7 in kl, mta; 1.0 in warm)"
    )
    result = mta(runs, "--despite-differences")
    assert result.exit_code == 0
    assert "Accepted: evaluation.temperature differs" in result.stdout


def test_compares_with_the_row_that_is_named(runs):
    result = mta(runs, "--baseline", "KL + MTA")
    assert "Compared: KL with KL + MTA." in result.stdout.replace("\n", " ")
    assert mta(runs, "--baseline", "nothing").exit_code == 2


def test_an_unknown_metric_is_refused(runs):
    result = mta(runs, "--metric", "bleu")
    assert result.exit_code == 2
    assert "--metric: no metric of all runs is called 'bleu'" in result.stderr


def test_a_folder_without_runs_is_refused(tmp_path):
    result = mta(tmp_path)
    assert result.exit_code == 2
    assert "is no finished run and holds none" in result.stderr


def test_asks_a_judge_from_a_plugin_file(runs, tmp_path):
    plugin = tmp_path / "plugin.py"
    plugin.write_text(
        "from mta_framework import PairwiseMetric, ScoreSet, hookimpl\n\n\n"
        "class Second(PairwiseMetric):\n"
        "    NAME = 'second'\n\n"
        "    def score(self, answers):\n        return ScoreSet((0.0,) * len(answers.predictions))\n\n"
        "    def prefer(self, first, second):\n        return ScoreSet((1.0,) * len(first.predictions))\n\n\n"
        "@hookimpl\ndef mta_register_metrics():\n    return [Second]\n"
    )
    judge = tmp_path / "judge.json"
    judge.write_text(json.dumps({"name": "second"}))
    result = mta(runs, "-p", plugin, "--judge", judge)
    assert result.exit_code == 0, result.output
    assert "second: how often the row is preferred" in result.stdout
    assert "100.0%" in result.stdout


def test_loads_no_torch(runs, tmp_path):
    arguments = ["mta", "compare", str(runs), "-o", str(tmp_path / "out")]
    code = (
        f"import sys\nfrom mta_framework.cli import main\nsys.argv = {arguments!r}\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "loaded = {'torch', 'transformers', 'spacy', 'datasets'} & set(sys.modules)\nassert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)


def test_a_disk_that_fills_up_is_reported_and_nothing_old_is_lost(runs, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "comparison.html").write_text("the old page")
    code = (
        "import resource, signal, sys\nfrom mta_framework.cli import main\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nresource.setrlimit(resource.RLIMIT_FSIZE, (12_000, 12_000))\n"
        f"sys.argv = {['mta', 'compare', str(runs), '-o', str(out)]!r}\nmain()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert f"cannot write to {out} (File too large); make room" in done.stderr
    assert "Traceback" not in done.stderr
    assert (out / "comparison.html").read_text() == "the old page"
