"""``mta cache SPEC``."""

from __future__ import annotations

import warnings
from pathlib import Path

import click

from mta_framework.cli.group import say
from mta_framework.cli.options import plugin_option, set_option, spec_argument


@click.command()
@spec_argument
@set_option
@plugin_option
@click.pass_obj
def make(plugin_files: tuple[Path, ...], spec: Path, overrides: tuple[str, ...]) -> None:
    """Make what a run reads of its teacher, without training.

    `mta cache SPEC` is short for this. What is there already is not made again, so that an interrupted command is
    continued by the same one.
    """
    from mta_framework.errors import Fault, InputError
    from mta_framework.registry import discover
    from mta_framework.runs.plugin_binding import bind

    bound = bind(spec, discover(plugin_files), overrides)
    sections = bound.spec.teacher_sections
    if not any(section.keeps_records for section in sections.values()):
        field = f"{next(iter(sections), 'teacher')}.cache"
        hint = f"Add it to the spec, or --set {field}={{}}."
        problem = "is null, so that the run keeps nothing"
        raise InputError([Fault(field, problem, "a section, e.g. {}", hint)])
    if not bound.reads_teacher:
        problem = f"reads nothing of a teacher, so that the run keeps nothing (got {bound.spec.base_loss.name!r})"
        expected = "a base loss or an alignment that reads its states"
        raise InputError([Fault("base_loss", problem, expected, "Such a run needs no cache.")])
    warnings.simplefilter("ignore", FutureWarning)  # of libraries, about each other: users cannot act on them
    from mta_framework.distributed import shutdown
    from mta_framework.runs import pipeline

    for name, (folder, texts) in pipeline.make_cache(bound).items():
        answered = "The server answered" if sections[name].server else "The teacher was run on"
        named, which = (f"{name}: ", f" of {name}") if len(sections) > 1 else ("", "")
        made = f"{answered} {texts:,} texts." if texts else "Every text was there."
        say(f"{named}{made}", f"Teacher cache{which}: {folder}")
    shutdown()
