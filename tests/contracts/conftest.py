"""What plugins need on disk before they can be held to their contracts with default options."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def parsers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny models where Stanza looks for its own; worker processes look there too."""
    callspec = getattr(request.node, "callspec", None)
    if callspec and callspec.params.get("plugin") == "stanza_phrases":
        monkeypatch.setenv("STANZA_RESOURCES_DIR", str(request.getfixturevalue("tiny_stanza")))
