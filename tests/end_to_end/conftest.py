from __future__ import annotations

import pytest


@pytest.fixture
def no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs write their report without its page, which takes a third of a tiny run; for tests that do not look at it."""
    monkeypatch.setattr("mta_framework.reporting.run_page.run_page", lambda report: "<!doctype html>")
