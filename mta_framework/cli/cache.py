"""``mta cache``, and its commands that list, check and prune a cache."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mta_framework.cli.cache_make import make
from mta_framework.cli.group import say, say_error
from mta_framework.cli.options import set_option
from mta_framework.tables.table import Table
from mta_framework.tables.terminal import size_text, terminal_table

if TYPE_CHECKING:
    from mta_framework.teacher_cache.kept_folders import KeptRecords, KeptTeacher

_DAY = 86_400.0

_spec = click.argument("spec", required=False, type=click.Path(path_type=Path))
_folder = click.option(
    "--folder",
    type=click.Path(path_type=Path),
    help="Folder of the cache, or of one teacher in it, in place of the one that SPEC names.",
)


class _OrSpec(click.Group):
    """Makes a cache unless a command comes first: then the words are the spec and options, in any order."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in {*self.commands, *ctx.help_option_names}:
            args = ["make", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_OrSpec, subcommand_metavar="SPEC | COMMAND [ARGS]...")
def cache() -> None:
    """Make, list, check or prune what is kept of teachers.

    `mta cache SPEC` is short for `mta cache make SPEC`, and takes the same options.
    """


cache.add_command(make)


@cache.command("list")
@_spec
@_folder
@set_option
def list_cache(spec: Path | None, folder: Path | None, overrides: tuple[str, ...]) -> None:
    """List teachers and what is kept of them: texts, size, last use."""
    from mta_framework.teacher_cache.kept_folders import kept_teachers

    path = _cache_folder(spec, folder, overrides)
    teachers = kept_teachers(path)
    if not teachers:
        say(f"{path} holds no teacher.")
        return
    header = ("TEACHER, WHAT IS KEPT", "TEXTS", "SIZE", "LAST USE")
    say(*terminal_table(Table(header, [row for teacher in teachers for row in _rows(teacher)], alignment="lrrr")))
    say("", f"{size_text(sum(teacher.num_bytes for teacher in teachers))} in {path}.")


@cache.command("check")
@_spec
@_folder
@set_option
@click.option("--delete", is_flag=True, help="Delete the damaged files; what they held is computed anew when needed.")
@click.pass_context
def check_cache(
    context: click.Context, spec: Path | None, folder: Path | None, overrides: tuple[str, ...], delete: bool
) -> None:
    """Verify every checksum of a cache, and name the files that are damaged.

    Exits with 1 if any is, unless --delete is given.
    """
    from mta_framework.errors import counted, writing_to
    from mta_framework.teacher_cache.kept_folders import damaged_paths
    from mta_framework.teacher_cache.kept_folders import delete as delete_path

    path = _cache_folder(spec, folder, overrides)
    damaged = list(damaged_paths(path))
    say_error(*(f"{file}: {problem}" for file, problem in damaged))
    if delete:
        with writing_to(path, "delete the files where it can be written to"):
            for file, _ in damaged:
                delete_path(file)
    count = counted(len(damaged), "damaged file")
    say(f"{path}: {f'{count} deleted' if delete and damaged else count}.")
    context.exit(1 if damaged and not delete else 0)


@cache.command()
@_spec
@_folder
@set_option
@click.option("--unused-for", type=click.FloatRange(min=0), metavar="DAYS", help="Delete what was unused for so long.")
@click.option("--teacher", metavar="NAME", help="Delete this teacher alone: a name or a folder of `mta cache list`.")
@click.option("--yes", is_flag=True, help="Delete without asking.")
def prune(
    spec: Path | None,
    folder: Path | None,
    overrides: tuple[str, ...],
    unused_for: float | None,
    teacher: str | None,
    yes: bool,
) -> None:
    """Delete teachers, or kinds of records, by the time of their last use or by name.

    What a process is filling at the moment is left.
    """
    from mta_framework.errors import require_known, writing_to
    from mta_framework.teacher_cache.kept_folders import delete, kept_teachers

    if unused_for is None and teacher is None:
        raise click.UsageError("Give --unused-for, --teacher or both.")
    path = _cache_folder(spec, folder, overrides)
    teachers = kept_teachers(path)
    if teacher is not None:
        names = sorted({name for kept in teachers for name in (kept.name, kept.folder.name)})
        require_known("--teacher", "teacher of the cache", [teacher], names)
        teachers = [kept for kept in teachers if teacher in (kept.name, kept.folder.name)]
    before = None if unused_for is None else time.time() - unused_for * _DAY
    busy = [kept for kept in teachers if kept.is_being_filled]
    say(*(f"{kept.folder} is being filled, and is left as it is." for kept in busy))
    chosen = [part for kept in teachers if kept not in busy for part in _unused(kept, before)]
    if not chosen:
        say("Nothing to delete.")
        return
    rows = [(str(part.folder.relative_to(path)), size_text(part.num_bytes), _day(part.last_used)) for part in chosen]
    say(*terminal_table(Table(("FOLDER", "SIZE", "LAST USE"), rows, alignment="lrr")))
    freed = size_text(sum(part.num_bytes for part in chosen))
    if not yes:
        click.confirm(f"Delete {'it' if len(chosen) == 1 else 'them'}, which frees {freed}?", abort=True)
    with writing_to(path, "delete the folders where it can be written to"):
        for part in chosen:
            delete(part.folder)
    say(f"Freed {freed}.")


def _unused(teacher: KeptTeacher, before: float | None) -> Sequence[KeptTeacher | KeptRecords]:
    """The teacher as a whole, or the kinds of its records, that were last used before a time; None: the teacher."""
    if before is None or teacher.last_used < before:
        return [teacher]
    return [kind for kind in teacher.records if kind.last_used < before]


def _cache_folder(spec: Path | None, folder: Path | None, overrides: tuple[str, ...]) -> Path:
    from mta_framework.errors import Fault, InputError

    if (spec is None) == (folder is None):
        raise click.UsageError("Give either a spec or --folder.")
    if spec is None and overrides:
        raise click.UsageError("--set changes a spec; give one in place of --folder.")
    if folder is None:
        assert spec is not None
        from mta_framework.spec.reading import read_spec
        from mta_framework.teacher_cache.kept_folders import folder_of

        reading = read_spec(spec, overrides)
        if reading.spec is None:
            raise InputError(reading.faults)
        views = list(map(reading.spec.with_teacher, reading.spec.teacher_names))
        kept = [view for view in views if view.teacher and view.teacher.keeps_records]
        folders = list(dict.fromkeys(map(folder_of, kept or views)))
        if len(folders) > 1:
            problem = f"keep their records in several folders (got {', '.join(map(str, folders))})"
            raise InputError([Fault("teachers", problem, "one folder for all", "Give one of them as --folder.")])
        return folders[0]
    if not folder.is_dir():
        problem = f"is not a folder (got {folder})"
        raise InputError([Fault("--folder", problem, "the folder of a teacher cache", "Check the path.")])
    return folder


def _rows(teacher: KeptTeacher) -> Iterator[tuple[str, str, str, str]]:
    name = f"{teacher.name}, {teacher.dtype}" if teacher.dtype else f"{teacher.name} (no intact teacher.json)"
    yield name, "", size_text(teacher.num_bytes), _day(teacher.last_used)
    for kind in teacher.records:
        yield f"  {kind.label}", f"{kind.texts:,}", size_text(kind.num_bytes), _day(kind.last_used)


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(seconds))
