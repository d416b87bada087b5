"""Removes the paths of this machine from a report that is to be shared."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from mta_framework.evaluation.report import Report

_PATH = re.compile(r"""(?<![\w.:/\\~])(?:~?/|[A-Za-z]:[\\/])[^\s"',;={}\[\]]*""")
"""An absolute path within a command. A path with a space matches up to the space, and again from the next slash."""


def redact(report: Report) -> Report:
    """A copy of the report in which absolute paths of the spec and the command are cut down to their last part."""
    return dataclasses.replace(report, spec=_names(report.spec), command=_PATH.sub(_last, report.command))


def _names(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _names(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_names(entry) for entry in value]
    if not isinstance(value, str) or "\n" in value:
        return value
    for kind in (PurePosixPath, PureWindowsPath):
        if kind(value).is_absolute():
            return kind(value).name
    return value


def _last(path: re.Match[str]) -> str:
    return re.split(r"[\\/]", path[0].rstrip("\\/"))[-1]
