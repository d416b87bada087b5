"""Every spec under tests/specs: the good ones bind, the bad ones are refused with all that is wrong, word for word.

Beside bad/NAME.json stands bad/NAME.txt, one fault per line; ``{folder}`` is the folder of the spec, ``{specs}`` the
one above it, and ``{base_losses}`` and the other families are the names of what is installed.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from mta_framework import InputError
from mta_framework.registry import Registry, discover
from mta_framework.runs.plugin_binding import bind

SPECS = Path(__file__).parents[2] / "specs"


@pytest.fixture(scope="module")
def registry() -> Registry:
    return discover()


def expected(path: Path, registry: Registry) -> list[str]:
    text = path.with_suffix(".txt").read_text(encoding="utf-8")
    folders = {"folder": str(path.parent), "specs": str(SPECS)}
    installed = {family: ", ".join(registry.names(family)) for family in registry.families}
    for name, value in (folders | installed).items():
        text = text.replace(f"{{{name}}}", value)
    return text.splitlines()


@pytest.mark.parametrize("path", sorted((SPECS / "bad").glob("*.json")), ids=lambda path: path.stem)
def test_a_bad_spec_is_refused_with_every_fault(path: Path, registry: Registry) -> None:
    with pytest.raises(InputError) as refusal:
        bind(path, registry)
    assert [str(fault) for fault in refusal.value.faults] == expected(path, registry)


@pytest.mark.parametrize("path", sorted((SPECS / "good").glob("*.json")), ids=lambda path: path.stem)
def test_a_good_spec_binds(path: Path, registry: Registry) -> None:
    bound = bind(path, registry)
    assert bound.spec.name == path.stem.replace("_", "-")
    assert bound.spec.folder == path.parent / "runs" / bound.spec.name


def test_every_expectation_belongs_to_a_spec() -> None:
    assert (SPECS / "bad").is_dir()
    assert (SPECS / "good").is_dir()
    assert {path.stem for path in (SPECS / "bad").glob("*.txt")} == {
        path.stem for path in (SPECS / "bad").glob("*.json")
    }
