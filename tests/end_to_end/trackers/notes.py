"""Where the stand-ins of trackers write what they are told: a line of JSON each."""

from __future__ import annotations

import json
import os
from pathlib import Path


def note(tracker: str, run: str, event: str, values: dict | None = None) -> None:
    with Path(os.environ["TRACKED"]).open("a", encoding="utf-8") as file:
        file.write(json.dumps([tracker, run, event, values]) + "\n")


class Settings(dict):
    """A run's configuration."""

    def update(self, values, allow_val_change=False):
        super().update(values)
