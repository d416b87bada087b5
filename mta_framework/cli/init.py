"""``mta init``."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mta_framework.cli.group import say
from mta_framework.cli.options import plugin_option
from mta_framework.tables.terminal import terminal_list

if TYPE_CHECKING:
    from mta_framework.registry import Registry

_TEACHER, _STUDENT = "HuggingFaceTB/SmolLM2-360M-Instruct", "HuggingFaceTB/SmolLM2-135M-Instruct"
_EXTRACTOR = "spacy_phrases"
_TRAIN, _VALIDATION, _TEST, _EPOCHS = "train.jsonl", "validation.jsonl", "test.jsonl", 5


@click.command()
@click.option(
    "--teacher",
    metavar="MODEL",
    help=f"Teacher: hub id, folder, .gguf file, or the spec of a run.  [default: {_TEACHER}]",
)
@click.option(
    "--student", metavar="MODEL", default=_STUDENT, show_default=True, help="Student: hub id, folder or .gguf file."
)
@click.option("--base-loss", metavar="NAME", default="kl", show_default=True, help="Base loss, one of `mta plugins`.")
@click.option("--no-alignment", is_flag=True, help="Leave out MTA: train with the base loss alone.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("spec.json"),
    show_default=True,
    help="File to write; an existing one is never overwritten.",
)
@plugin_option
@click.pass_obj
def init(
    plugin_files: tuple[Path, ...],
    teacher: str | None,
    student: str,
    base_loss: str,
    no_alignment: bool,
    output: Path,
) -> None:
    """Write a complete spec to edit."""
    from mta_framework.errors import Fault, InputError, writing_to
    from mta_framework.registry import discover
    from mta_framework.storage import write_atomically

    _refuse_existing(output)
    registry = discover(plugin_files)
    loss = registry.find("base_losses", base_loss, "--base-loss").plugin
    if no_alignment and getattr(loss, "NEEDS_ALIGNMENT", False):
        problem = f"leaves nothing to train by (got --base-loss {base_loss})"
        hint = "Leave --no-alignment out, or name another base loss."
        raise InputError([Fault("--no-alignment", problem, "a base loss that has a loss of its own", hint)])
    # Without a user, a teacher would be a setting without effect; an explicit one is left for `mta check` to judge.
    needs_teacher = getattr(loss, "NEEDS_TEACHER", True) or not no_alignment
    teacher = teacher or (_TEACHER if needs_teacher else None)
    generates, validates = _needs(base_loss, registry)
    given: dict[str, Any] = {
        "name": _run_name(output),
        "teacher": _model(teacher, output) if teacher else None,
        "student": _model(student, output),
        "data": {"train": {"path": _TRAIN}, **({"validation": {"path": _VALIDATION}} if validates else {})},
        "base_loss": {"name": base_loss},
        "alignment": None if no_alignment else {"spans": {"name": _extractor(registry)}},
        "training": {"epochs": _EPOCHS, **({"generation": {}} if generates else {})},
        "evaluation": {"sets": {"test": {"path": _TEST}}},
    }
    document = json.dumps(_complete(given, registry), indent=2, ensure_ascii=False) + "\n"
    with writing_to(output, "make room, or name another file with -o"):
        write_atomically(output, document)
    say(*_explanation(output, [_TRAIN, *[_VALIDATION] * validates, _TEST]))


def _refuse_existing(output: Path) -> None:
    from mta_framework.errors import Fault, InputError

    if output.exists():
        problem = f"already exists (got {output})"
        raise InputError([Fault("--output", problem, "a new file", "Choose another name, or remove it.")])
    if not output.parent.is_dir():
        raise InputError([Fault("--output", f"lies in no folder (got {output})", "a file in a folder", "Create it.")])


def _run_name(output: Path) -> str:
    name = "".join(mark if mark.isascii() and (mark.isalnum() or mark in "._-") else "-" for mark in output.stem)
    return name.lstrip("._-")[:100] or "run"


def _model(text: str, output: Path) -> dict[str, str]:
    path = Path(text).expanduser()
    if not (path.exists() or text.startswith((".", "/", "~")) or path.suffix in (".gguf", ".json")):
        return {"hub": text}
    # On the command line paths start here; in a spec, at the spec.
    relative = os.path.relpath(path.resolve(), output.resolve().parent)
    return {"run" if path.suffix == ".json" else "path": Path(relative).as_posix()}


def _needs(base_loss: str, registry: Registry) -> tuple[bool, bool]:
    """Whether a base loss, with its default options, trains on generated responses, and follows the validation loss."""
    from pydantic import ValidationError

    from mta_framework.errors import InputError

    try:
        policy = registry.create("base_losses", base_loss).batch_policy()
    except (InputError, ValidationError):  # an option without default
        return False, False
    return policy is not None, policy is not None and policy.NEEDS_VALIDATION


def _extractor(registry: Registry) -> str:
    """The default extractor, or one with the granularities of the default layer mapper, if possible one that runs."""
    from pydantic import ValidationError

    from mta_framework.errors import InputError
    from mta_framework.registry import missing_fault
    from mta_framework.spec.alignment import AlignmentSection

    default = AlignmentSection.model_fields["layers"].default.name
    needed = set(registry.create("layer_mappers", default).granularities)
    fitting = []
    for name in registry.names("span_extractors"):
        try:
            extractor = registry.create("span_extractors", name)
        except (InputError, ValidationError):  # two providers, or an option without default
            continue
        if needed <= set(extractor.granularities):
            fitting.append((name != _EXTRACTOR, missing_fault(extractor, name) is not None, name))
    return min(fitting)[-1] if fitting else _EXTRACTOR


def _complete(given: dict[str, Any], registry: Registry) -> dict[str, Any]:
    """The spec with all defaults, including those of plugin options; paths are unchanged."""
    from mta_framework.spec.run import RunSpec

    spec = RunSpec.model_validate(given, strict=True).model_dump(mode="json")
    spec["base_loss"] = _with_options(spec["base_loss"], "base_losses", registry)
    families = {"spans": "span_extractors", "importance": "importance_estimators", "layers": "layer_mappers"}
    if spec["alignment"]:
        for field, family in families.items():
            spec["alignment"][field] = _with_options(spec["alignment"][field], family, registry)
        terms = spec["alignment"]["terms"]
        spec["alignment"]["terms"] = [_with_options(term, "alignment_terms", registry) for term in terms]
    metrics = spec["evaluation"]["metrics"]
    spec["evaluation"]["metrics"] = [_with_options(metric, "metrics", registry) for metric in metrics]
    return spec


def _with_options(section: dict[str, Any], family: str, registry: Registry) -> dict[str, Any]:
    params = registry.find(family, section["name"], family).plugin.Params
    # Options without default are null, which `mta check` then asks for by name.
    options = {
        name: None if field.is_required() else field.get_default(call_default_factory=True)
        for name, field in params.model_fields.items()
    }
    return section | {"params": params.model_construct(**options).model_dump(mode="json")}


def _explanation(output: Path, files: Sequence[str]) -> Iterator[str]:
    from mta_framework.spec.run import RunSpec

    yield f"Wrote {output}:"
    yield from terminal_list((name, field.description or "") for name, field in RunSpec.model_fields.items())
    names = f"{', '.join(files[:-1])} and {files[-1]}"
    yield f"Put your data into {names} beside it, or change the paths; one JSON object per line:"
    yield '  {"instruction": "...", "output": "..."}'
    yield "For chat models set data.template to chat; on a GPU set training.precision to bf16. Then:"
    yield f"  mta check {output}"
    yield f"  mta run {output} --dry-run"
