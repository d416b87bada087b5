"""The page on architecture shows the rooms, their imports and the public packages as they are."""

from __future__ import annotations

import re
import runpy

from blocks import ROOT

CORE = ROOT / "mta_framework"
PAGE = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
RULES = runpy.run_path(str(ROOT / "tests" / "policy" / "rooms.py"))
ROWS = re.findall(
    r"^\| `(\w+)` \| [^|]+ \| ([^|]*?) ?\|$", PAGE.partition("## Rooms")[2].partition("\n## ")[0], re.MULTILINE
)


def test_the_table_shows_every_room_in_the_order_of_the_import_rules():
    assert [room for room, _ in ROWS] == list(RULES["ROOMS"])


def test_the_table_shows_what_every_room_imports():
    shown = {room: names.split(", ") if names else [] for room, names in ROWS}
    assert shown == {room: sorted(names) for room, names in RULES["ROOMS"].items()}


def test_the_page_names_the_packages_that_plugins_may_import():
    (sentence,) = re.findall(r"public packages (.+?), and never", PAGE, re.DOTALL)
    assert set(re.findall(r"`([\w.]+)`", sentence)) == RULES["PUBLIC"]


def test_the_data_flow_names_rooms():
    (flow,) = re.findall(r"^spec\.json\n(.*?)^runs/NAME/$", PAGE, re.DOTALL | re.MULTILINE)
    stages = re.findall(r"^  \| ([\w., ]+?)  ", flow, re.MULTILINE)
    named = {name for stage in stages for name in stage.split(", ")}
    assert named
    assert {name.partition(".")[0] for name in named} <= set(RULES["ROOMS"])
    assert not [name for name in named if not is_module(name)]


def test_modules_and_folders_that_the_page_names_are_there():
    rooms = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", PAGE, re.MULTILINE)
    folders = [f"{room}.{folder}" for room, contents in rooms for folder in re.findall(r"`(\w+)/`", contents)]
    assert {"spans.segments", "spans.phrases"} <= set(folders)
    packages = [name for name in folders if not (CORE / name.replace(".", "/")).is_dir()]
    modules = [name for name in RULES["PUBLIC"] if not is_module(name)]
    files = [name for name in re.findall(r"`(mta_framework/[\w/]+\.py)`", PAGE) if not (ROOT / name).is_file()]
    assert [packages, modules, files] == [[], [], []]


def is_module(name: str) -> bool:
    """Whether the core has a package or module of this dotted name."""
    path = CORE / name.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").is_file()
