from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from jsonschema import Draft202012Validator

from mta_framework.cli.schema import schema_with_plugins
from mta_framework.registry import Registry, discover

Mta = Callable[..., Result]
SPECS = Path(__file__).parents[2] / "specs"


def test_plugins_are_listed_by_family_with_provider_and_summary(
    mta: Mta, plugin_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "500")
    result = mta("plugins")
    family = result.stdout.partition("\nbase_losses\n")[2].partition("\nmetrics\n")[0]
    (line,) = [line for line in family.splitlines() if " plain_test " in line]
    assert line.split() == ["plain_test", str(plugin_file), "Nothing,", "plainly."]
    assert result.exit_code == 0


def test_conflicts_and_failures_stand_below_the_list(mta: Mta, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "mta_x-2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mta-x\nVersion: 2.0\n")
    (info / "entry_points.txt").write_text("[mta_framework]\nx = mta_x_is_not_there\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    again = tmp_path / "again.py"
    again.write_text((tmp_path / "plugins.py").read_text())
    result = mta("-p", again, "plugins")
    assert "Not loaded: mta-x 2.0 (mta_x_is_not_there): ModuleNotFoundError" in result.stderr
    providers = f"{tmp_path / 'plugins.py'} and {again}"
    assert f"Conflict: base loss 'plain_test' is provided by {providers}; no spec can use it." in result.stderr
    assert result.exit_code == 1


def test_an_installed_provider_with_a_misspelt_hook_is_an_error(
    mta: Mta, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "mta_y-2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mta-y\nVersion: 2.0\n")
    (info / "entry_points.txt").write_text("[mta_framework]\ny = mta_t_y\n")
    (tmp_path / "mta_t_y.py").write_text(
        "from mta_framework import hookimpl\n@hookimpl\ndef mta_register_metric():\n    return []\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    result = mta("plugins")
    message = "Not loaded: mta-y 2.0 (mta_t_y): mta_register_metric is not a hook. Did you mean 'mta_register_metrics'?"
    assert message in result.stderr
    assert result.exit_code == 1


def test_plugin_files_may_be_named_before_or_after_the_command(mta: Mta, tmp_path: Path) -> None:
    other = tmp_path / "other.py"
    other.write_text((tmp_path / "plugins.py").read_text().replace("_test", "_other"))
    for arguments in (("-p", other, "plugins", "plain_other"), ("plugins", "-p", other, "plain_other")):
        assert "base loss plain_other, from " in mta(*arguments).stdout
    assert "base loss plain_other, from " in mta("plugins", "plain_other", "-p", other).stdout


def test_a_plugin_called_new_is_refused(mta: Mta, tmp_path: Path) -> None:
    other = tmp_path / "other.py"
    other.write_text((tmp_path / "plugins.py").read_text().replace("plain_test", "new"))
    result = mta("plugins", "-p", other)
    assert result.exit_code == 2
    assert "Plain.NAME must not be 'new': `mta plugins new` is a command" in result.stderr


def test_options_are_shown_with_type_default_bounds_and_meaning(mta: Mta) -> None:
    lines = [line.split("  ") for line in mta("plugins", "plain_test").stdout.splitlines()]
    cells = [[cell.strip() for cell in line if cell] for line in lines]
    assert ["strength", "a number > 0 and <= 2", "1.0", "How much of it."] in cells
    assert ["anchors.N.layer", "an integer >= 1", "Where it is dropped."] in cells
    assert ["It needs no teacher."] in cells


def test_required_options_say_so(mta: Mta) -> None:
    assert "required" in mta("plugins", "demanding_test").stdout


def test_an_unknown_name_gets_the_nearest_and_exits_with_2(mta: Mta) -> None:
    result = mta("plugins", "plain_tst")
    assert result.exit_code == 2
    assert "Did you mean 'plain_test'?" in result.stderr


@pytest.fixture(scope="module")
def registry() -> Registry:
    return discover()


@pytest.fixture(scope="module")
def validator(registry: Registry) -> Draft202012Validator:
    schema = schema_with_plugins(registry)
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def test_the_schema_knows_the_options_of_plugin_files(mta: Mta, spec_file: Path) -> None:
    validator = Draft202012Validator(json.loads(mta("schema").stdout))
    spec = json.loads(spec_file.read_text())
    assert validator.is_valid(spec)
    assert validator.is_valid(spec | {"base_loss": {"name": "plain_test", "params": {"anchors": [{"layer": 3}]}}})
    assert not validator.is_valid(spec | {"base_loss": {"name": "plain_test", "params": {"anchors": [{"layer": 0}]}}})
    assert not validator.is_valid(spec | {"base_loss": {"name": "demanding_test"}})


@pytest.mark.parametrize("path", sorted((SPECS / "good").glob("*.json")), ids=lambda path: path.stem)
def test_good_specs_fit_the_schema(path: Path, validator: Draft202012Validator) -> None:
    assert not list(validator.iter_errors(json.loads(path.read_text(encoding="utf-8-sig"))))


@pytest.mark.parametrize(
    "name",
    [
        "unknown_field",
        "misspelt_plugin",
        "misspelt_option",
        "option_of_plugin_without_options",
        "option_out_of_range",
        "nested_option",
        "missing_option",
        "out_of_range",
        "string_for_number",
        "wrong_choice",
        "missing_fields",
        "name_with_slash",
        "bad_set_name",
        "empty_lists",
    ],
)
def test_bad_specs_do_not_fit_the_schema(name: str, validator: Draft202012Validator) -> None:
    assert not validator.is_valid(json.loads((SPECS / "bad" / f"{name}.json").read_text()))


def test_the_schema_has_no_dangling_reference_and_no_mark_of_ours(registry: Registry) -> None:
    schema = schema_with_plugins(registry)
    text = json.dumps(schema)
    references = {part.split('"')[0] for part in text.split('"$ref": "#/$defs/')[1:]}
    assert references <= set(schema["$defs"])
    assert "plugin_family" not in text
