"""Who may import whom."""

from __future__ import annotations

import graphlib
import subprocess
import sys
from pathlib import Path

import pytest
from rooms import PUBLIC, ROOMS
from sources import CORE, EXAMPLE, PLUGINS, files, imports, module_of

VERSION = "mta_framework.__version__"
HEAVY = {"torch", "transformers", "datasets", "peft", "spacy", "accelerate", "rouge_score"}
HEAVY |= {"matplotlib", "numpy", "httpx2"}
SHELF = files(PLUGINS, EXAMPLE / "src")


TOP = ("__init__", "__main__")
"""Modules at the top that are no rooms: the public names, and the command line."""


def room_of(module: str) -> str:
    """``mta_framework.data.records`` -> ``data``; the package itself -> ``__init__``."""
    return module.split(".")[1] if "." in module else "__init__"


def imported_rooms(path: Path) -> set[str]:
    """The other rooms that a file of the core imports from."""
    names = {name for name in imports(path) if name.startswith("mta_framework.") and name != VERSION}
    return {room_of(name) for name in names} - {room_of(module_of(path))}


def test_rooms_import_what_their_list_says_and_nothing_else():
    imported: dict[str, set[str]] = {room: set() for room in ROOMS}
    for path in files(CORE):
        if room_of(module_of(path)) not in TOP:
            imported.setdefault(room_of(module_of(path)), set()).update(imported_rooms(path))
    assert imported == {room: set(names) for room, names in ROOMS.items()}, "mend the import, or the table in rooms.py"


def test_no_room_imports_one_that_stands_below_it():
    rooms = list(ROOMS)
    assert not [
        f"{room} -> {name}" for index, room in enumerate(rooms) for name in ROOMS[room] if name not in rooms[:index]
    ]


def test_modules_import_each_other_in_no_circle():
    modules = {module_of(path): path for path in files(CORE)}
    arrows = {module: {name for name in imports(path) if name in modules} for module, path in modules.items()}
    # ``from a import b`` gives a and a.b: the package is meant only where b is no module.
    for module, names in arrows.items():
        arrows[module] = {name for name in names if not any(inner.startswith(f"{name}.") for inner in names)} - {module}
    graphlib.TopologicalSorter(arrows).prepare()  # raises CycleError, which names the circle


def test_the_top_of_the_core_is_seen_at_a_glance():
    assert len(list(CORE.glob("*.py"))) <= 9


def test_every_folder_with_modules_is_a_package_that_says_what_it_is_for():
    folders = {path.parent for path in files(CORE)}
    said = {folder for folder in folders if (folder / "__init__.py").is_file() and (folder / "__init__.py").read_text()}
    assert folders == said


def test_training_and_evaluation_know_nothing_of_each_other():
    assert "evaluation" not in ROOMS["training"]
    assert "training" not in ROOMS["evaluation"]


def is_public(name: str) -> bool:
    """Whether a plugin may import the name, as far as it is the core's."""
    import mta_framework

    inner = name.removeprefix("mta_framework.")
    in_public_package = any(f"{inner}.".startswith(f"{package}.") for package in PUBLIC)
    return inner == name or in_public_package or inner in {"spans", *mta_framework.__all__}


def test_plugins_import_the_public_surface_alone():
    assert not [f"{module_of(path)}: {name}" for path in SHELF for name in imports(path) if not is_public(name)]


def test_plugins_import_no_other_plugin():
    inner = {path: [name for name in imports(path) if name.startswith("mta_plugins")] for path in SHELF}
    assert not [f"{module_of(path)}: {names}" for path, names in inner.items() if names and path.name != "hooks.py"]


def test_plugin_modules_load_no_heavy_library_at_import():
    loaded = {path: set(imports(path, only_at_import_time=True)) for path in SHELF}
    heavy = {
        module_of(path): {name for name in names if name.split(".")[0] in HEAVY or name == "mta_framework.chunked_loss"}
        for path, names in loaded.items()
    }
    assert not {module: names for module, names in heavy.items() if names}


def test_no_module_is_named_after_nothing():
    vague = {"utils", "util", "common", "helpers", "misc", "tools"}
    assert not [path for path in files(CORE, PLUGINS) if vague & {path.stem, *path.parent.parts}]


COMMANDS = (
    ["--help"],
    ["check", "--help"],
    ["spans", "--help"],
    ["run", "--help"],
    ["evaluate", "--help"],
    ["compare", "--help"],
    ["sweep", "--help"],
    ["push", "--help"],
    ["cache", "--help"],
    ["cache", "list", "--folder", "."],
    ["cache", "check", "--folder", "."],
    ["plugins"],
    ["schema"],
)


def test_commands_load_no_torch():
    """One process does for all: what one command loads is not there for the next, or the test fails."""
    code = (
        "import sys\nfrom mta_framework.cli import main\n"
        f"for arguments in {COMMANDS!r}:\n"
        "    sys.argv = ['mta', *arguments]\n"
        "    try:\n        main()\n    except SystemExit as end:\n        assert not end.code, (arguments, end.code)\n"
        "    loaded = {'torch', 'transformers', 'spacy', 'datasets'} & set(sys.modules)\n"
        "    assert not loaded, (arguments, loaded)\n"
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
