"""The group of commands, which turns their errors into messages and exit codes."""

from __future__ import annotations

import codecs
import errno
import io
import os
import shlex
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import click

from mta_framework.cli.visible_records import show_foreign_text
from mta_framework.errors import InputError, RunError, counted, error_text, is_out_of_memory, refusal
from mta_framework.tables.terminal_chars import visible


class Commands(click.Group):
    """Exits with 2 and every fault for faulty input, with 1 for a failed run, with 130 if interrupted."""

    def invoke(self, context: click.Context) -> Any:
        """Run the selected command."""
        show_foreign_text()
        _write_any_text(sys.stdout)
        try:
            return super().invoke(context)
        except InputError as error:
            # Two models can stumble over the same setting.
            faults = list(dict.fromkeys(map(str, error.faults)))
            say_error(*faults, f"{counted(len(faults), 'fault')}; nothing was run.")
            context.exit(2)
        except RunError as error:
            self._end_failed(context, str(error))
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader of the output has gone, which click handles
                raise
            self._end_failed(context, _os_error_text(error))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            self._end_failed(context, f"there is too little memory ({error_text(error)}). Use a larger machine.")
        except SystemExit as error:  # no command of this package ends this way
            say_error(f"The command was ended from within ({error_text(error)}), and is not finished.")
            context.exit(1)
        except KeyboardInterrupt:
            say_error("Interrupted. To continue a run: mta run SPEC --resume; any other command: run it again.")
            context.exit(130)

    def _end_failed(self, context: click.Context, reason: str) -> NoReturn:
        what = "The run" if context.invoked_subcommand == "run" else f"mta {context.invoked_subcommand}"
        say_error(f"{what} failed: {reason}")
        context.exit(1)

    def list_commands(self, context: click.Context) -> list[str]:
        """Names of the commands in the order in which they were added, which is the order of use."""
        return list(self.commands)


def _write_any_text(stream: Any) -> None:
    """Have characters that the encoding of a stream lacks written as escapes, such as the minus signs of tables."""
    if isinstance(stream, io.TextIOWrapper) and codecs.lookup(stream.encoding).name != "utf-8":
        with suppress(OSError):
            stream.reconfigure(errors="backslashreplace")


def _os_error_text(error: OSError) -> str:
    if error.filename is None:
        return error_text(error)
    hint = "Check that it is there and that you may use it, then run the command again."
    return f"{error.filename}: cannot be used ({refusal(error, Path(error.filename))}). {hint}"


def typed() -> str:
    """The command line, quoted for a shell."""
    return shlex.join(["mta", *sys.argv[1:]])


def is_main_process() -> bool:
    """Whether this is the process of a distributed run that prints."""
    return os.environ.get("RANK", "0") == "0"


def on_terminal() -> bool:
    """Whether standard output is a terminal, which shows styles."""
    return sys.stdout.isatty()


def say(*lines: str, styled: bool = False) -> None:
    """Print lines to standard output, on the main process only.

    Args:
        lines: The lines. Specs, models and data are foreign text, so what would steer the terminal is shown instead.
        styled: Whether the lines hold escape codes on purpose, and foreign text in them is harmless already.
    """
    if is_main_process():
        for line in lines:
            click.echo(line if styled else visible(line))


def say_error(*lines: str) -> None:
    """Print lines to standard error, on the main process only; what would steer the terminal is shown instead."""
    if is_main_process():
        for line in lines:
            click.echo(visible(line), err=True)
