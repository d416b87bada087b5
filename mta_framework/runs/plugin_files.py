"""The plugin files that the steps of a run were computed with: a run may go on after one was mended, and says so."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from mta_framework.runs.folder import RunFolder
from mta_framework.storage import read_json, write_json
from mta_framework.training.arguments import CHECKPOINTS

_FILE = "plugin-files.json"

_log = logging.getLogger(__name__)


def note_plugin_files(folder: RunFolder, digests: Mapping[str, str]) -> None:
    """Record what training begins or goes on with, and warn if that is another content than its checkpoints come from.

    Args:
        folder: Folder of the run, which is held.
        digests: SHA-256 digest of each file given by ``-p`` that a plugin of the run comes from, by its path.
    """
    checkpoints = folder.path / CHECKPOINTS
    starts = _starts(folder) if checkpoints.is_dir() and any(checkpoints.iterdir()) else []
    if dict(digests) not in (starts[-1:] or [{}]):
        write_json(folder.path / _FILE, [*starts, dict(digests)])
    for sentence in changed_plugin_files(folder):
        _log.warning("%s", sentence)


def changed_plugin_files(folder: RunFolder) -> Iterator[str]:
    """A sentence on the plugin files that were not the same during all of training, if there are any."""
    starts = _starts(folder)
    names = sorted({name for start in starts for name in start})
    changed = [Path(name).name for name in names if len({start.get(name) for start in starts}) > 1]
    if changed:
        yield f"Steps were computed by different contents of {', '.join(changed)}, changed before the run went on."


def _starts(folder: RunFolder) -> list[dict[str, str]]:
    """The digests at each start of training whose steps count; empty where nothing is known."""
    with suppress(OSError, ValueError):
        starts: list[dict[str, str]] = read_json(folder.path / _FILE)
        return starts
    return []
