"""Wheels in a fresh environment: the example distribution and what ``mta plugins new`` writes pass their tests."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from mta_framework.cli.plugins_new import KINDS

ROOT = Path(__file__).parents[2]
HELLO = ROOT / "docs" / "examples" / "mta-hello"
GENERATED = shutil.ignore_patterns("*.egg-info", "build", "__pycache__", ".*_cache")

pytestmark = pytest.mark.slow


class Environment:
    """A fresh virtual environment that has our wheels, and sees the dependencies of the tests' own environment."""

    def __init__(self, folder: Path):
        self.folder = folder
        run(sys.executable, "-m", "venv", str(folder))
        self.python = folder / "bin" / "python"
        purelib = "import sysconfig; print(sysconfig.get_path('purelib'))"
        self.site_packages = Path(run(str(self.python), "-c", purelib).strip())

    def install(self, wheels: Path) -> None:
        """Ours alone; nothing is asked of an index."""
        built = sorted(map(str, wheels.glob("*.whl")))
        run(str(self.python), "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--force-reinstall", *built)

    def borrow_dependencies(self) -> None:
        """Behind what is installed here; path files in the borrowed folder, as of editable installs, are not read."""
        (self.site_packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def run(self, *arguments: str, cwd: Path) -> str:
        """Run a module of the environment."""
        return run(str(self.python), "-m", *arguments, cwd=cwd)


def run(*command: str, cwd: Path | None = None) -> str:
    """Its output; what it said when it failed."""
    # Nothing of the caller's paths and nothing from the checkout may be seen.
    settings = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(command, cwd=cwd, env=settings, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def build(*projects: Path, into: Path) -> None:
    """Wheels of some projects, by the setuptools that is here."""
    options = ("--no-deps", "--no-index", "--no-build-isolation", "-w", str(into))
    run(sys.executable, "-m", "pip", "wheel", "-q", *options, *map(str, projects), cwd=into)


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Environment:
    """With wheels of this project, of the example and of one new distribution of each kind."""
    folder = tmp_path_factory.mktemp("distributions")
    wheels, project = folder / "wheels", folder / "project"
    wheels.mkdir()
    project.mkdir()
    for name in ("mta_framework", "plugins"):
        shutil.copytree(ROOT / name, project / name, ignore=GENERATED)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, project)
    shutil.copytree(HELLO, folder / "mta-hello", ignore=GENERATED)
    build(project, folder / "mta-hello", into=wheels)
    made = Environment(folder / "environment")
    made.install(wheels)
    made.borrow_dependencies()
    for kind in KINDS:
        made.run("mta_framework", "plugins", "new", kind, f"new_{kind}", cwd=folder)
    others = folder / "others"
    others.mkdir()
    build(*sorted(folder.glob("mta-new-*")), into=others)
    made.install(others)
    return made


def test_the_environment_has_the_wheel_and_not_the_checkout(environment):
    shown = environment.run("mta_framework", "--version", cwd=environment.folder)
    assert shown.startswith("mta, version ")
    for module in ("mta_framework", "mta_plugins", "mta_hello"):
        code = f"import {module}; print({module}.__file__)"
        path = Path(run(str(environment.python), "-c", code, cwd=environment.folder).strip())
        assert environment.site_packages in path.parents
    assert Path(run(str(environment.python), "-c", "import torch; print(torch.__file__)").strip()).is_file()


def test_all_plugins_are_listed_with_their_distributions(environment, monkeypatch):
    monkeypatch.setenv("COLUMNS", "240")  # a plugin in each line
    listing = environment.run("mta_framework", "plugins", cwd=environment.folder)
    rows = [line.split() for line in listing.splitlines() if line.startswith("  ")]
    providers = {name: f"{distribution} {version}" for name, distribution, version, *_ in rows}
    assert providers["clauses"] == providers["squared_logits"] == "mta-hello 0.1.0"
    for kind in KINDS:
        assert providers[f"new_{kind}"] == f"mta-new-{kind.replace('_', '-')} 0.1.0"


def test_the_example_passes_its_tests_from_its_wheel(environment, tmp_path):
    shutil.copytree(HELLO / "tests", tmp_path / "tests")
    output = environment.run("pytest", "-q", "--import-mode=importlib", "-p", "no:cacheprovider", "tests", cwd=tmp_path)
    assert "passed" in output
    assert "skipped" not in output


def test_new_plugins_of_every_kind_pass_the_contract_tests_as_they_are(environment, tmp_path):
    for folder in environment.folder.parent.glob("mta-new-*"):
        shutil.copytree(folder / "tests", tmp_path / folder.name)
    output = environment.run("pytest", "-q", "--import-mode=importlib", "-p", "no:cacheprovider", ".", cwd=tmp_path)
    assert "passed" in output
    assert "skipped" not in output


def test_a_student_is_trained_with_the_plugins_of_the_example(
    environment, trained_teacher, spec_dict, write_spec, tmp_path
):
    spec = {
        **spec_dict,
        "base_loss": {"name": "squared_logits"},
        "alignment": {"spans": {"name": "clauses", "params": {"min_words": 1}}},
        "evaluation": None,
    }
    environment.run("mta_framework", "run", str(write_spec(spec)), cwd=tmp_path)
    resolved = json.loads((tmp_path / "runs" / "student" / "spec.json").read_text())
    assert resolved["base_loss"]["name"] == "squared_logits"
    assert (tmp_path / "runs" / "student" / "student" / "model.safetensors").is_file()
