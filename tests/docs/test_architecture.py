"""The page on architecture shows the rooms, their imports and the public packages as they are."""

from __future__ import annotations

import re
import runpy

from blocks import ROOT

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
    named = {name.split(".")[0] for stage in stages for name in stage.split(", ")}
    assert named
    assert named <= set(RULES["ROOMS"])
