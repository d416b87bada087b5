"""Symbolic links that lead nowhere, wherever a path is given or written: a sentence names the link."""

from __future__ import annotations

import json
import re

import pytest
from click.testing import CliRunner

from mta_framework.cli import main
from mta_framework.errors import RunError, broken_link, writing_to
from mta_framework.evaluation.predictions import read_rows
from mta_framework.runs.folder import locked
from mta_framework.storage import Shards, write_atomically

ROW = json.dumps({"instruction": "Ask.", "output": "Answer."})


@pytest.fixture
def spec(tmp_path):
    (tmp_path / "train.jsonl").write_text(ROW)
    document = {
        "name": "a",
        "student": {"hub": "x/y"},
        "data": {"train": {"path": "train.jsonl"}},
        "base_loss": {"name": "sft"},
        "training": {"epochs": 1},
    }
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(document))
    return path


@pytest.fixture
def link(tmp_path):
    """A link to a folder or file on a disk that is not there."""
    path = tmp_path / "link"
    path.symlink_to(tmp_path / "no-such-disk" / "target")
    return path


def test_a_broken_link_is_found_in_a_path_and_its_parents(tmp_path, link):
    assert broken_link(link) == broken_link(link / "deeper" / "file") == link
    assert broken_link(tmp_path / "nothing there") is None
    (tmp_path / "no-such-disk" / "target").mkdir(parents=True)
    assert broken_link(link / "deeper") is None


@pytest.mark.parametrize(
    "field", ["output_dir", "data.train.path", "data.cache_dir", "student.tokenizer", "student.path"]
)
@pytest.mark.parametrize("below", ["", "/deeper"])
def test_a_path_of_a_spec_that_leads_nowhere_is_a_fault_at_its_field(spec, link, tmp_path, field, below):
    changes = ("--set", "student={}") if field == "student.path" else ()
    done = CliRunner().invoke(main, ["check", str(spec), *changes, "--set", f"{field}={link}{below}"])
    assert done.exit_code == 2
    assert f"--set {field}: is not a usable path ({link} is a link that leads nowhere)" in done.output.replace("\n", "")
    assert not (tmp_path / "no-such-disk").exists()


def test_a_run_folder_that_is_a_broken_link_is_a_fault_of_the_name(spec, tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "a").symlink_to(tmp_path / "nowhere")
    done = CliRunner().invoke(main, ["check", str(spec)])
    assert done.exit_code == 2
    problem = f"name: names a link that leads nowhere (got {tmp_path / 'runs' / 'a'}); expected the folder of a run"
    assert problem in done.output.replace("\n", "")


def test_a_broken_link_for_the_folder_of_an_evaluation_is_a_fault(link, tmp_path):
    arguments = ["evaluate", "some/model", "--data", f"a={tmp_path / 'x.jsonl'}", "-o", str(link)]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert f"-o: is not a usable path ({link} is a link that leads nowhere)" in done.output.replace("\n", "")


def test_what_is_written_through_a_broken_link_ends_in_a_sentence_that_names_it(link):
    named = rf"\({re.escape(str(link))} is a link that leads nowhere\); do this"
    with pytest.raises(RunError, match=named), writing_to(link / "responses.jsonl", "do this"):
        write_atomically(link / "responses.jsonl", "text")
    with pytest.raises(RunError, match=named), locked(link, "this run", "do this"):
        pass
    with pytest.raises(RunError, match=r"cannot create .* is a link that leads nowhere\); make room"):
        list(Shards(link, "span cache", "data.cache_dir").read_new())


def test_predictions_that_are_a_broken_link_are_missing(link):
    with pytest.raises(Exception, match=r"link: cannot be read, since .*link does not exist; expected predictions as"):
        read_rows(link)


def test_another_refusal_of_the_system_keeps_its_words(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"\(Not a directory|File exists\); do this"), writing_to(tmp_path, "do this"):
        (tmp_path / "file" / "inner").write_text("")
