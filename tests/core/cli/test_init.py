from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from mta_framework.registry import discover
from mta_framework.spec.run import RunSpec

Mta = Callable[..., Result]


@pytest.fixture
def data(tmp_path: Path) -> None:
    for name in ("train.jsonl", "test.jsonl"):
        (tmp_path / name).write_text("{}\n")


@pytest.mark.usefixtures("data")
@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--no-alignment"],
        ["--base-loss", "sft"],
        ["--base-loss", "sft", "--no-alignment"],
        ["--base-loss", "plain_test"],
        ["--teacher", "org/big", "--student", "org/small"],
    ],
    ids=" ".join,
)
def test_the_new_spec_passes_check_once_the_data_are_there(mta: Mta, arguments: list[str]) -> None:
    written = mta("init", *arguments, "-o", "new.json")
    assert written.exit_code == 0, written.output
    checked = mta("check", "new.json")
    assert checked.exit_code == 0, checked.output


def test_the_new_spec_has_what_its_base_loss_trains_with(mta: Mta, tmp_path: Path, data: None) -> None:
    written = mta("init", "--base-loss", "distillm", "-o", "new.json")
    assert "train.jsonl, validation.jsonl and test.jsonl" in written.output
    spec = json.loads((tmp_path / "new.json").read_text())
    assert spec["training"]["generation"]["engine"] == "transformers"
    assert spec["data"]["validation"]["path"] == "validation.jsonl"
    assert "train.jsonl and test.jsonl" in mta("init", "-o", "plain.json").output
    spec = json.loads((tmp_path / "plain.json").read_text())
    assert (spec["training"]["generation"], spec["data"]["validation"]) == (None, None)


@pytest.mark.parametrize("name", discover().names("base_losses"))
def test_the_new_spec_of_every_base_loss_passes_check(mta: Mta, tmp_path: Path, data: None, name: str) -> None:
    (tmp_path / "validation.jsonl").write_text("{}\n")
    assert mta("init", "--base-loss", name, "-o", "new.json").exit_code == 0
    checked = mta("check", "new.json")
    assert checked.exit_code == 0, checked.output


def test_every_field_and_option_is_spelt_out(mta: Mta, tmp_path: Path) -> None:
    assert mta("init", "--base-loss", "plain_test").exit_code == 0
    spec = json.loads((tmp_path / "spec.json").read_text())
    assert set(spec) == set(RunSpec.model_fields)
    assert spec["base_loss"] == {"name": "plain_test", "params": {"strength": 1.0, "anchors": []}}
    assert set(spec["training"]) == set(RunSpec.model_fields["training"].annotation.model_fields)
    layers = discover().find("layer_mappers", spec["alignment"]["layers"]["name"], "").plugin
    assert set(spec["alignment"]["layers"]["params"]) == set(layers.Params.model_fields)


def test_prose_is_what_is_expected_and_an_extractor_that_needs_options_is_passed_over(mta: Mta, tmp_path: Path) -> None:
    picky = tmp_path / "picky.py"
    picky.write_text(PICKY)
    assert mta("init", "-p", picky).exit_code == 0
    assert json.loads((tmp_path / "spec.json").read_text())["alignment"]["spans"]["name"] == "spacy_phrases"


PICKY = '''
from pydantic import Field

from mta_framework import PluginParams, SpanExtractor, hookimpl


class Picky(SpanExtractor):
    """First of all by name."""

    NAME = "a_picky"
    VERSION = "1"
    granularities = ("words", "phrases")

    class Params(PluginParams):
        size: int = Field(ge=1, description="Without default.")

    def extract(self, texts):
        return []


@hookimpl
def mta_register_span_extractors():
    return [Picky]
'''


def test_every_section_is_explained(mta: Mta) -> None:
    output = mta("init").stdout
    for name, field in RunSpec.model_fields.items():
        assert f"  {name} " in output
        assert str(field.description) in output


def test_an_existing_file_is_never_overwritten(mta: Mta, spec_file: Path) -> None:
    before = spec_file.read_text()
    result = mta("init", "-o", spec_file)
    assert result.exit_code == 2
    assert "already exists" in result.stderr
    assert spec_file.read_text() == before


def test_a_full_disk_is_told_in_a_sentence(mta: Mta, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    result = mta("init", "-o", "new.json")
    assert result.exit_code == 1
    assert "mta init failed: cannot write to new.json (No space left on device)" in result.stderr
    assert "Traceback" not in result.output


def test_an_error_of_the_system_names_its_path(mta: Mta, spec_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "/a/b")

    monkeypatch.setattr("mta_framework.runs.plugin_binding.bind", gone)
    result = mta("check", spec_file)
    assert result.exit_code == 1
    assert result.stderr.startswith("mta check failed: /a/b: cannot be used (No such file or directory). Check that")


def test_local_models_are_written_relative_to_the_spec(mta: Mta, tmp_path: Path) -> None:
    (tmp_path / "specs").mkdir()
    arguments = ["--teacher", "first.json", "--student", "models/small.gguf"]
    assert mta("init", *arguments, "-o", "specs/second run.json").exit_code == 0
    spec = json.loads((tmp_path / "specs" / "second run.json").read_text())
    assert spec["name"] == "second-run"
    assert spec["teacher"]["run"] == "../first.json"
    assert spec["student"]["path"] == "../models/small.gguf"


def test_an_option_without_default_is_left_for_check_to_ask_for(mta: Mta, tmp_path: Path) -> None:
    assert mta("init", "--base-loss", "demanding_test", "--no-alignment").exit_code == 0
    result = mta("check", "spec.json")
    assert "base_loss.params.depth: has the wrong type (got null); expected an integer >= 1." in result.stderr


def test_a_misspelt_base_loss_is_refused_and_nothing_is_written(mta: Mta, tmp_path: Path) -> None:
    result = mta("init", "--base-loss", "plain_tst")
    assert result.exit_code == 2
    assert "Did you mean 'plain_test'?" in result.stderr
    assert not (tmp_path / "spec.json").exists()


def test_a_spec_without_any_loss_is_refused_and_nothing_is_written(mta: Mta, tmp_path: Path) -> None:
    result = mta("init", "--base-loss", "none", "--no-alignment")
    assert result.exit_code == 2
    assert "--no-alignment: leaves nothing to train by (got --base-loss none)" in result.stderr
    assert not (tmp_path / "spec.json").exists()
