"""The group of commands: turns what they raise into messages and exit codes."""

from __future__ import annotations

import os
import shlex
import sys
from typing import Any

import click

from mta_framework.errors import InputError, RunError


class Commands(click.Group):
    """Exits with 2 and every fault for faulty input, with 1 for a failed run, with 130 when interrupted."""

    def invoke(self, context: click.Context) -> Any:
        """Run the chosen command."""
        try:
            return super().invoke(context)
        except InputError as error:
            # Two models can stumble over the same setting.
            faults = list(dict.fromkeys(map(str, error.faults)))
            say_error(*faults, f"{len(faults)} fault{'s' if len(faults) != 1 else ''}; nothing was run.")
            context.exit(2)
        except RunError as error:
            what = "The run" if context.invoked_subcommand == "run" else f"mta {context.invoked_subcommand}"
            say_error(f"{what} failed: {error}")
            context.exit(1)
        except KeyboardInterrupt:
            say_error(
                "Interrupted. A run that has begun goes on with: mta run SPEC --resume; any other command as it was"
            )
            context.exit(130)

    def list_commands(self, context: click.Context) -> list[str]:
        """In the order of use, which is the order of adding."""
        return list(self.commands)


def typed() -> str:
    """The command, as a shell would take it again."""
    return shlex.join(["mta", *sys.argv[1:]])


def is_main_process() -> bool:
    """Whether this process speaks for all ranks of a distributed run."""
    return os.environ.get("RANK", "0") == "0"


def say(*lines: str) -> None:
    """Print, on the main process."""
    if is_main_process():
        for line in lines:
            click.echo(line)


def say_error(*lines: str) -> None:
    """Print to standard error, on the main process."""
    if is_main_process():
        for line in lines:
            click.echo(line, err=True)
