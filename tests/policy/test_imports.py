"""Who may import whom."""

from __future__ import annotations

import subprocess
import sys

import pytest
from sources import CORE, EXAMPLE, PLUGINS, files, imports, module_of

BASE = {"errors", "types", "tables", "files", "processes"}
CONTRACTS = BASE | {"interfaces", "hookspecs"}
SHARED = CONTRACTS | {"spec", "registry"}
ALLOWED = {
    "errors": set(),
    "types": set(),
    "tables": set(),
    "files": set(),
    "clock": set(),
    "processes": set(),
    "ranks": BASE,
    "interfaces": BASE,
    "batch_policies": CONTRACTS,
    "stretches": CONTRACTS,
    "chat": BASE,
    "phrases": {"types"},
    "hookspecs": BASE | {"interfaces"},
    "spec": CONTRACTS,
    "registry": CONTRACTS,
    "binding": SHARED,
    "run_folder": SHARED,
    "data": SHARED,
    "models": SHARED,
    "vocabulary": SHARED,
    "alignment": SHARED | {"vocabulary", "models.states"},
    "generation": SHARED | {"models"},
    "training": SHARED | {"ranks", "data", "models", "vocabulary", "alignment", "generation"},
    "evaluation": SHARED | {"ranks", "data", "models", "vocabulary", "alignment", "generation"},
    "comparison": SHARED | {"run_folder", "evaluation"},
    "reporting": SHARED | {"evaluation", "comparison"},
    "testing": SHARED | {"data"},
}
PIPELINE = {
    "pipeline",
    "remains",
    "assessment",
    "plan",
    "facts",
    "geometry",
    "key_layers",
    "assembly",
    "inspection",
    "sweeps",
}
PACKAGES = {"vocabulary", "batch_policies", "stretches", "phrases", "chat"}
HEAVY = {"torch", "transformers", "datasets", "peft", "spacy", "accelerate", "rouge_score"}
HEAVY |= {"matplotlib", "numpy", "httpx2"}


def part_of(module: str) -> str:
    """``mta_framework.data.records`` -> ``data``."""
    return module.split(".")[1] if "." in module else ""


@pytest.mark.parametrize("path", files(CORE), ids=module_of)
def test_core_module_imports_only_what_lies_below_it(path):
    own = part_of(module_of(path))
    if own in {"", "cli", "__main__"}:
        return
    allowed = {*ALLOWED, *PIPELINE} if own in PIPELINE else {*ALLOWED[own], own}
    targets = {name for name in imports(path) if name.startswith("mta_framework.")}
    wrong = [
        name
        for name in targets
        if not any(name.removeprefix("mta_framework.").startswith(prefix) for prefix in allowed)
        and name != "mta_framework.__version__"
    ]
    assert not wrong, f"{module_of(path)} may import {sorted(allowed)}"


@pytest.mark.parametrize("path", files(CORE), ids=module_of)
def test_core_never_names_the_built_in_plugins(path):
    assert "mta_plugins" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", files(PLUGINS, EXAMPLE / "src"), ids=module_of)
def test_plugin_imports_the_public_surface_alone_and_no_other_plugin(path):
    import mta_framework

    for name in imports(path):
        if name.startswith("mta_framework."):
            public = name.removeprefix("mta_framework.").split(".")[0]
            assert public in {*PACKAGES, *mta_framework.__all__}, name
        if name.startswith("mta_plugins"):
            assert path.name == "hooks.py", f"{path.name} imports {name}"


@pytest.mark.parametrize("path", files(PLUGINS, EXAMPLE / "src"), ids=module_of)
def test_plugin_module_loads_no_heavy_library_at_import(path):
    heavy = {name.split(".")[0] for name in imports(path, only_at_import_time=True)} & HEAVY
    assert not heavy
    assert "mta_framework.chunked_loss" not in set(imports(path, only_at_import_time=True))


def test_no_module_is_named_after_nothing():
    vague = {"utils", "util", "common", "helpers", "misc", "tools"}
    assert not [path for path in files(CORE, PLUGINS) if vague & {path.stem, *path.parent.parts}]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["plugins"],
        ["schema"],
        ["check", "--help"],
        ["spans", "--help"],
        ["run", "--help"],
        ["evaluate", "--help"],
        ["compare", "--help"],
        ["sweep", "--help"],
    ],
)
def test_command_loads_no_torch(arguments):
    code = (
        "import sys\nfrom mta_framework.cli import main\n"
        f"sys.argv = ['mta', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "loaded = {'torch', 'transformers', 'spacy', 'datasets'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)


def test_help_loads_neither_pydantic_nor_pluggy():
    code = (
        "import sys\nfrom mta_framework.cli import main\nsys.argv = ['mta', '--help']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "loaded = {'pydantic', 'pluggy'} & set(sys.modules)\nassert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)


def test_every_public_name_is_found_where_it_is_promised():
    import mta_framework

    assert [name for name in mta_framework.__all__ if not hasattr(mta_framework, name)] == []
    with pytest.raises(AttributeError, match="no_such_name"):
        mta_framework.no_such_name  # noqa: B018
