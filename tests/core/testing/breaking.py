"""Which checks of a contract a plugin fails."""

from __future__ import annotations

import pytest


def breaks(contract, plugin, *checks, errors=(AssertionError,)):
    """Exactly these checks of a contract fail; those of no interest here take a process of their own."""
    slow = {"test_its_module_loads_no_heavy_library", "test_it_travels_to_another_process_after_use"}
    failed = []
    for name in sorted(name for name in dir(contract) if name.startswith("test_") and name not in slow):
        check = getattr(contract(), name)
        marks = getattr(check, "pytestmark", [])
        values = marks[0].args[1] if marks else [None]
        try:
            for value in values:
                check(plugin) if value is None else check(plugin, value)
        except (*errors, pytest.fail.Exception):
            failed.append(name)
    assert [name for name in failed if not any(word in name for word in checks)] == []
    assert [word for word in checks if not any(word in name for name in failed)] == []
