"""Identity of models by content: digests of their files, whatever their path and time; hub models by their commit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from mta_framework.spec.evaluation_spec import EvaluationSpec
from mta_framework.spec.input_fields import ModelInput, without_locations
from mta_framework.spec.run import RunSpec
from mta_framework.spec.several_teachers import teacher_field
from mta_framework.storage import file_digest

_SUFFIXES = {".safetensors", ".json", ".jinja", ".model", ".txt"}
"""Endings of the files of a model folder that weights, configuration, tokenizer or chat template are read from."""

Content = Mapping[str, str]
"""What identifies an input: names of files, or of another property such as a hub commit -> digest, or value."""


def model_content(path: Path) -> Content:
    """Digests of the files of a model or tokenizer folder by their name, or of a GGUF file.

    Args:
        path: The folder or file.
    """
    if path.is_file():
        return {"sha256": file_digest(path)}
    files = sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES and file.is_file())
    return {file.name: file_digest(file) for file in files}


def source_contents(where: str, section: ModelInput) -> dict[str, Content]:
    """Content of the model and the tokenizer that a section names, as far as it is known, by dotted field.

    Args:
        where: Name of the section.
        section: Section ``teacher``, ``student`` or ``model`` of a spec.
    """
    contents: dict[str, Content] = {}
    for name in ("path", "tokenizer"):
        path = getattr(section, name, None)
        if path is not None and Path(path).exists():
            contents[f"{where}.{name}"] = model_content(Path(path))
    if section.hub is not None and (commit := _commit(section.hub, section.revision)):
        contents[f"{where}.hub"] = {"commit": commit}
    return contents


def fingerprints(spec: RunSpec, contents: Mapping[str, Content], student: Content) -> dict[str, str]:
    """Compute a fingerprint of every model of a run.

    Args:
        spec: Spec of the run.
        contents: Content of the run's inputs, by dotted field.
        student: Content of the exported student.

    Returns:
        Name of the model (``student``, ``initial_student``, ``teacher`` or ``teachers.NAME``) -> a string that changes
        whenever its weights change; new adapters, which change no state yet, do not count.
    """
    precision, document = spec.training.precision, without_locations(RunSpec, spec.model_dump(mode="json"))
    teachers = {"teacher": document["teacher"]}
    teachers |= {teacher_field(name): section for name, section in (document["teachers"] or {}).items()}
    printed = {}
    for where, whole in teachers.items():
        section = whole and {name: value for name, value in whole.items() if name != "cache"}
        content = contents_of_teacher(contents, where.partition(".")[2])
        printed[where] = json.dumps([section, precision, _of(content, "teacher")], sort_keys=True)
    source = printed["teacher"] if spec.student.teacher_layers else ""
    seed = spec.seed if spec.student.config is not None else None  # all others have their weights from a model
    initial = [document["student"], seed, precision, _of(contents, "student"), source]
    return {
        "student": json.dumps([precision, student], sort_keys=True),
        "initial_student": json.dumps(initial, sort_keys=True),
        **printed,
    }


def contents_of_teacher(contents: Mapping[str, Content], name: str) -> dict[str, Content]:
    """Return the content of a run's inputs as one of several teachers sees it: its own is that of ``teacher``.

    Args:
        contents: Content of the run's inputs, by dotted field.
        name: Name of the teacher; empty: the one teacher, for which nothing changes.
    """
    field = f"{teacher_field(name)}."
    named = {where.replace(field, "teacher.", 1) if where.startswith(field) else where: where for where in contents}
    return {where: contents[given] for where, given in named.items()}


def evaluated_fingerprint(spec: EvaluationSpec, contents: Mapping[str, Content]) -> str:
    """The same for the model of an evaluation without training."""
    document = without_locations(EvaluationSpec, spec.model_dump(mode="json"))
    return json.dumps([document["model"], _of(contents, "model")], sort_keys=True)


def _of(contents: Mapping[str, Content], section: str) -> dict[str, Content]:
    return {name: content for name, content in contents.items() if name.partition(".")[0] == section}


def _commit(hub: str, revision: str | None) -> str | None:
    """The commit that a branch or tag of the hub stands for; None where it cannot be found out."""
    from transformers.utils.hub import cached_file, extract_commit_hash

    with suppress(OSError, ValueError):  # whoever loads the model reports them
        file = cached_file(hub, "config.json", revision=revision)
        return extract_commit_hash(file, None)
    return None
