"""Identity of a teacher by content: two teachers with the same states have the same, wherever they are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mta_framework.errors import Fault, InputError
from mta_framework.models.fingerprint import Content
from mta_framework.models.saved_teacher import read_saved_teacher
from mta_framework.spec.model_files import is_saved_teacher
from mta_framework.spec.teacher import TeacherSection
from mta_framework.storage import json_digest
from mta_framework.teacher_cache.store import DIGEST_LENGTH

FORMAT = 1
"""Version of the cache: increased when the same teacher would give other records than before."""

_LOCATIONS = {"hub", "revision", "path", "run"}
_NO_EFFECT_ON_STATES = {"cache", "dtype"}  # the dtype is given resolved
_NAME_LENGTH = 40


@dataclass(frozen=True)
class TeacherIdentity:
    """What tells a teacher from others.

    Args:
        name: Hub id, or name of the model folder, for people; two names may stand for one teacher.
        content: Content of weights and configuration, dtype and settings that change states, as plain JSON values.
    """

    name: str
    content: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """The digest of ``content``."""
        return json_digest(self.content)

    @property
    def folder_name(self) -> str:
        """Name of the teacher's folder in a cache."""
        words = re.sub(r"[^A-Za-z0-9._]+", "-", self.name.rpartition("/")[2]).strip("-.")[:_NAME_LENGTH]
        return f"{words or 'teacher'}-{self.digest[:DIGEST_LENGTH]}"

    def folder_in(self, cache: Path) -> Path:
        """The teacher's folder in a cache: the one that is there, under whatever name of the model, or a new one.

        Args:
            cache: Folder of the cache.
        """
        return next(cache.glob(f"*-{self.digest[:DIGEST_LENGTH]}"), cache / self.folder_name)


def teacher_identity(section: TeacherSection, contents: Mapping[str, Content], dtype: str) -> TeacherIdentity:
    """Compute the identity of a teacher.

    A model of the hub is identified by its commit, any other by digests of weights and configuration: tokenizer,
    chat template and documentation change no states of given tokens. The folder of a teacher without weights has the
    identity of the teacher that it was made of. A teacher behind a server is identified by its name there and its
    configuration, wherever the server is.

    Args:
        section: Section ``teacher`` of the spec.
        contents: Content of the inputs of the run, by dotted field; that of ``teacher.path``, ``teacher.hub`` or
            ``teacher.run`` is read.
        dtype: Dtype of the teacher's weights, e.g. ``bfloat16``.

    Raises:
        InputError: The content of the teacher is not known, or its folder without weights is damaged.
    """
    if section.server is None and section.path is not None and is_saved_teacher(Path(section.path)):
        saved = read_saved_teacher(Path(section.path), "teacher.path")
        if saved.identity.get("format") != FORMAT:
            problem = f"has records of another version of the framework (got format {saved.identity.get('format')})"
            hint = "Make the cache again where the teacher's weights are: mta cache SPEC."
            raise InputError([Fault("teacher.path", problem, f"records of format {FORMAT}", hint)])
        return TeacherIdentity(saved.name, saved.identity)
    field = next(name for name in ("hub", "path", "run") if getattr(section, name) is not None)
    content = contents.get(f"teacher.{field}")
    if not content:
        problem = f"cannot be identified, as its files are not known (got {getattr(section, field)})"
        hint = "Train the run first." if field == "run" else "Download the model, and give its path."
        raise InputError([Fault(f"teacher.{field}", problem, "a model whose files are on this machine", hint)])
    if section.server is not None:
        served = {"format": FORMAT, "server": section.server.model, "files": _of_states(content)}
        return TeacherIdentity(section.server.model, served)
    settings = section.model_dump(mode="json", exclude=_LOCATIONS | _NO_EFFECT_ON_STATES, exclude_none=True)
    identity = {"format": FORMAT, "files": _of_states(content), "dtype": dtype, "settings": settings}
    name = section.hub or Path(section.path or section.run or "").stem
    return TeacherIdentity(name, identity)


def _of_states(content: Content) -> dict[str, str]:
    """The part of a model's content that decides the states of given tokens."""
    return {
        name: value
        for name, value in content.items()
        if name in {"config.json", "adapter_config.json", "commit", "sha256"} or name.endswith(".safetensors")
    }
