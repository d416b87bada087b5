"""Log records, warnings and tracebacks that cannot steer the terminal, whatever text they quote."""

from __future__ import annotations

import logging
import sys
import traceback
import warnings
from types import TracebackType

from mta_framework.tables.terminal_chars import visible

_format_warning = warnings.formatwarning


class _VisibleRecord(logging.LogRecord):
    def getMessage(self) -> str:
        return visible(super().getMessage())


def show_foreign_text() -> None:
    """Have logs, warnings and tracebacks of this process, libraries' included, show control characters as signs."""
    logging.setLogRecordFactory(_VisibleRecord)
    warnings.formatwarning = _visible_warning
    sys.excepthook = _print_visibly


def _visible_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    return visible(_format_warning(message, category, filename, lineno, line))


def _print_visibly(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sys.stderr.write(visible("".join(traceback.format_exception(kind, error, trace))))
