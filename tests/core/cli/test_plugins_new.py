"""``mta plugins new``: what it writes, and what it refuses to write."""

from __future__ import annotations

import ast
import importlib
import json
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from mta_framework import __version__
from mta_framework.cli.plugins_new import KINDS
from mta_framework.registry import FAMILIES, class_fault, noun_of
from mta_framework.spec.run import RunSpec

Mta = Callable[..., Result]


def test_there_is_a_kind_for_every_family() -> None:
    assert [kind.replace("_", " ") for kind in KINDS] == [noun_of(family) for family in FAMILIES]


def files_in(folder: Path) -> list[Path]:
    """What lies in a folder, but for compiled code, which loading a plugin file may leave."""
    return sorted(path for path in folder.iterdir() if path.name != "__pycache__")


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_written_is_a_distribution_whose_hook_offers_a_sound_plugin(
    mta: Mta, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    kind = noun_of(family).replace(" ", "_")
    result = mta("plugins", "new", kind, f"own_{kind}")
    assert result.exit_code == 0, result.output
    folder = tmp_path / f"mta-own-{kind.replace('_', '-')}"
    assert f"Wrote {folder.name}:" in result.stdout
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert project["name"] == folder.name
    assert project["dependencies"] == [f"mta-framework>={__version__}"]
    monkeypatch.syspath_prepend(str(folder / "src"))
    hooks = importlib.import_module(project["entry-points"]["mta_framework"][f"own_{kind}"])
    (plugin,) = getattr(hooks, f"mta_register_{family}")()
    assert f"own_{kind}" == plugin.NAME
    assert class_fault(FAMILIES[family], plugin) is None
    assert plugin.Params().model_fields_set == set()
    for module in [name for name in sys.modules if name.startswith(f"mta_own_{kind}")]:
        del sys.modules[module]


def test_no_file_has_a_gap_left_and_every_one_is_reported(mta: Mta, tmp_path: Path) -> None:
    for kind in KINDS:
        printed = mta("plugins", "new", kind, f"own_{kind}").stdout
        folder = tmp_path / f"mta-own-{kind.replace('_', '-')}"
        written = [path for path in folder.rglob("*") if path.is_file()]
        assert len(written) == 6
        for path in written:
            text = path.read_text()
            assert "$" not in text
            assert not text or path.relative_to(folder).as_posix() in printed
            if path.suffix == ".py":
                ast.parse(text)
    assert not list(tmp_path.glob(".*.part"))


@pytest.mark.parametrize("kind", KINDS)
def test_the_section_in_the_readme_names_the_plugin_where_a_spec_has_it(mta: Mta, tmp_path: Path, kind: str) -> None:
    mta("plugins", "new", kind, "own")
    text = (tmp_path / "mta-own" / "README.md").read_text()
    section = json.loads(text.split("```json\n")[1].split("```")[0])
    (field,) = section
    whole = {"alignment": {"spans": {"name": "words"}}, "evaluation": {"sets": {"test": {"path": "b"}}}}.get(field, {})
    spec = {
        "name": "x",
        "teacher": {"hub": "a/b"},
        "student": {"hub": "a/b"},
        "data": {"train": {"path": "a"}},
        "base_loss": {"name": "kl"},
        "training": {"epochs": 1},
        field: {**whole, **section[field]},
    }
    checked = RunSpec.model_validate(spec)
    sections = {
        "span_extractor": lambda: checked.alignment.spans,
        "importance_estimator": lambda: checked.alignment.importance,
        "layer_mapper": lambda: checked.alignment.layers,
        "alignment_term": lambda: checked.alignment.terms[0],
        "base_loss": lambda: checked.base_loss,
        "metric": lambda: checked.evaluation.metrics[0],
    }
    assert sections[kind]().name == "own"


def test_the_section_in_the_readme_of_a_span_extractor_can_be_bound(
    mta: Mta,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spec_dict: dict[str, Any],
    write_spec: Callable[..., Path],
) -> None:
    mta("plugins", "new", "span_extractor", "readme_own")
    folder = tmp_path / "mta-readme-own"
    section = json.loads((folder / "README.md").read_text().split("```json\n")[1].split("```")[0])
    monkeypatch.syspath_prepend(str(folder / "src"))
    hooks = folder / "src" / "mta_readme_own" / "hooks.py"
    result = mta("-p", hooks, "check", write_spec({**spec_dict, **section}))
    assert result.exit_code == 0, result.output
    for module in [name for name in sys.modules if name.startswith("mta_readme_own")]:
        del sys.modules[module]


@pytest.mark.parametrize("name", ["metric", "score_set", "sequence", "plugin_params", "true"])
def test_a_name_that_makes_the_class_collide_gets_another_class(mta: Mta, tmp_path: Path, name: str) -> None:
    assert mta("plugins", "new", "metric", name).exit_code == 0
    tree = ast.parse((tmp_path / f"mta-{name.replace('_', '-')}" / "src" / f"mta_{name}" / f"{name}.py").read_text())
    (plugin,) = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    assert plugin.name.endswith("Plugin")
    assert plugin.name.removesuffix("Plugin").lower() == name.replace("_", "")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Mine", "is not a valid plugin name (got 'Mine')"),
        ("my-loss", "is not a valid plugin name"),
        ("7up", "is not a valid plugin name"),
        ("", "is not a valid plugin name"),
        ("../mine", "is not a valid plugin name"),
        ("a" * 61, "is not a valid plugin name"),
        ("new", "`mta plugins new` is a command"),
        ("hooks", "the module with the hooks has this name"),
        ("class", "class is a keyword of Python"),
        ("framework", "a package mta_framework is installed already"),
        ("kl", "mta-framework 0.1.0 (mta_plugins.hooks) has a base loss of this name"),
        ("plain_test", "plugins.py has a base loss of this name"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused_and_nothing_is_written(
    mta: Mta, tmp_path: Path, name: str, reason: str
) -> None:
    before = files_in(tmp_path)
    result = mta("plugins", "new", "base_loss", name)
    assert result.exit_code == 2
    assert result.stderr.startswith("NAME: ")
    assert reason in result.stderr
    assert files_in(tmp_path) == before


def test_a_name_of_another_family_may_be_used_again(mta: Mta, tmp_path: Path) -> None:
    assert mta("plugins", "new", "metric", "plain_test").exit_code == 0


def test_the_folder_can_be_chosen_and_is_never_overwritten(mta: Mta, tmp_path: Path) -> None:
    assert mta("plugins", "new", "metric", "own", "--folder", "elsewhere").exit_code == 0
    (tmp_path / "elsewhere" / "README.md").write_text("mine")
    again = mta("plugins", "new", "metric", "own", "--folder", "elsewhere")
    assert again.exit_code == 2
    assert again.stderr.startswith("--folder: already exists (got elsewhere); expected a new folder. ")
    assert (tmp_path / "elsewhere" / "README.md").read_text() == "mine"
    assert mta("plugins", "new", "metric", "own", "--folder", "none/there").exit_code == 2
    (tmp_path / "empty").mkdir()
    assert mta("plugins", "new", "metric", "own", "--folder", "empty").exit_code == 2
    assert list((tmp_path / "empty").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_reported(mta: Mta, tmp_path: Path) -> None:
    result = mta("plugins", "new", "metric", "own", "--folder", "x" * 250)
    assert result.exit_code == 2
    assert result.stderr.startswith("--folder: cannot be written (got xxx")
    assert "File name too long" in result.stderr
    assert not list(tmp_path.glob("*xxx*"))


def test_all_faults_come_at_once(mta: Mta, tmp_path: Path) -> None:
    result = mta("plugins", "new", "metric", "class", "--folder", tmp_path)
    assert "NAME: " in result.stderr
    assert "--folder: " in result.stderr
    assert "2 faults; nothing was run." in result.stderr


def test_an_unknown_kind_is_reported_with_those_that_there_are(mta: Mta) -> None:
    result = mta("plugins", "new", "loss", "own")
    assert result.exit_code == 2
    assert "'base_loss'" in result.stderr
