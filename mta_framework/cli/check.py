"""``mta check``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mta_framework.cli.group import say
from mta_framework.cli.options import plugin_option, set_option, spec_argument
from mta_framework.errors import counted
from mta_framework.tables.terminal import terminal_list

if TYPE_CHECKING:
    from mta_framework.runs.plugin_binding import BoundRun
    from mta_framework.spec.data import DatasetSection
    from mta_framework.spec.student import StudentSection
    from mta_framework.spec.teacher import TeacherSection


@click.command()
@spec_argument
@set_option
@plugin_option
@click.pass_obj
def check(plugin_files: tuple[Path, ...], spec: Path, overrides: tuple[str, ...]) -> None:
    """Check a spec, its plugins and its paths without opening a model."""
    from mta_framework.registry import discover
    from mta_framework.runs.plugin_binding import bind

    bound = bind(spec, discover(plugin_files), overrides)
    say(f"{spec} is valid:", *terminal_list(_summary(bound)))


def _summary(bound: BoundRun) -> Iterator[tuple[str, str]]:
    spec = bound.spec
    yield "run folder", str(bound.spec.folder)
    for name, section in spec.teacher_sections.items():
        yield name, _source(section) + _server(section) + (", with a cache" if section.cache and spec.teachers else "")
    if not spec.teacher_sections:
        yield "teacher", "none"
    yield "student", _source(spec.student) + (f", LoRA of rank {spec.student.lora.rank}" if spec.student.lora else "")
    yield "data", _dataset(spec.data.train)
    yield "base loss", _plugin("base_loss", spec.base_loss.name, bound)
    if spec.alignment is None:
        yield "alignment", "none"
    else:
        for name in ("spans", "importance", "pooling", "layers"):
            section = getattr(spec.alignment, name)
            if section is not None:
                yield name, _plugin(f"alignment.{name}", section.name, bound)
        for index, term in enumerate(spec.alignment.terms):
            yield "term", f"{term.weight:g} x {_plugin(f'alignment.terms.{index}', term.name, bound)}"
    training = spec.training
    length = counted(training.epochs, "epoch") if training.epochs else counted(training.max_steps or 0, "step")
    yield "training", f"{length} of batches of {spec.training.batch_size}, {spec.training.precision}"
    yield "evaluation", _evaluation(bound)


def _source(section: TeacherSection | StudentSection) -> str:
    for name in ("hub", "path", "run", "config", "teacher_layers"):
        value = getattr(section, name, None)
        if value is not None:
            return f"a new {value['model_type']}" if name == "config" else f"{name.replace('_', ' ')} {value}"
    return "none"


def _server(section: TeacherSection) -> str:
    server = section.server
    return "" if server is None else f", behind {server.url} as {server.model}"


def _dataset(section: DatasetSection) -> str:
    source = section.path or f"{section.hub} ({section.split})"
    return source + (f", first {counted(section.limit, 'row')}" if section.limit else "")


def _plugin(field: str, name: str, bound: BoundRun) -> str:
    return f"{name}, from {bound.providers[field]}"


def _evaluation(bound: BoundRun) -> str:
    section = bound.spec.evaluation
    if section is None:
        return "none"
    metrics = ", ".join(metric.name for metric in section.metrics)
    seeds = counted(len(section.seeds), "seed")
    return f"{', '.join(section.models)} on {', '.join(section.sets)} by {metrics}, {seeds}"
