"""Where the tests keep what is expensive to make and never changes: a browser, trained parsers."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(name: str) -> Path:
    """Return a folder that outlives the session, in ``MTA_TEST_CACHE`` or in ``.test-cache`` of the checkout."""
    root = os.environ.get("MTA_TEST_CACHE") or Path(__file__).parents[2] / ".test-cache"
    folder = Path(root).resolve() / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder
