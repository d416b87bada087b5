"""The section ``teacher``: the model that the student imitates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from mta_framework.spec.effects import affects
from mta_framework.spec.model_options import ATTENTION, QUANTIZATION, Attention, QuantizationSection
from mta_framework.spec.section import (
    Contradiction,
    HubId,
    Location,
    Revision,
    Section,
    Text,
    exactly_one,
    without_effect,
)

DType = Literal["auto", "float32", "bfloat16", "float16"]


class TeacherCacheSection(Section):
    """Where and how the teacher's states are kept, so that it is run once for each text."""

    path: Location | None = Field(
        None,
        description="Folder of the cache, which runs and machines may share; null (the default) means teacher-cache in "
        "output_dir.",
    )
    layer_states: Literal["exact", "8bit"] = Field(
        "exact",
        description="How states of layers are kept: exact, in the teacher's dtype; or as 8-bit integers with a scale "
        "per row. Final states are always exact.",
        json_schema_extra=affects("weights"),
    )


class TeacherServerSection(Section):
    """A server that has the teacher, with vLLM's ``prompt_logprobs``, and limits of its use."""

    url: Text = Field(
        description="Base URL of an OpenAI-compatible server, up to /v1; requests go to its /completions.",
        examples=["http://localhost:8000/v1"],
        json_schema_extra=affects("nothing"),
    )
    model: Text = Field(description="Name of the teacher at the server.", examples=["teacher-2026-01"])
    top_logprobs: int = Field(
        20,
        ge=1,
        le=1000,
        description="Number k of the teacher's likeliest tokens at each position; losses compare these and the rest as "
        "one class. The server must allow as many: vLLM's --max-logprobs.",
    )
    key_env: str | None = Field(
        None,
        pattern=r"^[A-Z][A-Z0-9_]*_API_KEY$",
        description="Environment variable that holds the API key, *_API_KEY; null: no key is sent. MTA_KEY_HOSTS must "
        "name the host.",
        json_schema_extra=affects("nothing"),
    )
    max_requests: int | None = Field(
        None,
        ge=1,
        description="Maximum number of requests for log-probabilities that each process of a command sends, failed "
        "ones and retries included; null: no limit.",
        json_schema_extra=affects("nothing"),
    )
    concurrency: int = Field(
        16,
        ge=1,
        le=1024,
        description="Maximum number of concurrent requests, shared among processes.",
        json_schema_extra=affects("nothing"),
    )
    timeout: float = Field(
        300.0, gt=0, le=3600, description="Maximum seconds for a request.", json_schema_extra=affects("nothing")
    )
    retries: int = Field(
        8,
        ge=0,
        le=20,
        description="Maximum number of retries of a text; with 8 a server may be away for some minutes.",
        json_schema_extra=affects("nothing"),
    )


class TeacherSection(Section):
    """The model that the student imitates."""

    hub: HubId | None = Field(None, description="Model id on the Hugging Face hub.")
    revision: Revision | None = Field(None, description="Branch, tag or commit on the hub.")
    path: Location | None = Field(
        None, description="Path of a transformers folder, a .gguf file, or a teacher's folder in a teacher cache."
    )
    run: Location | None = Field(
        None, description="Path of another spec, whose student is the teacher; it is trained first unless it exists."
    )
    dtype: DType = Field("auto", description="Dtype of the frozen teacher's weights; auto follows training.precision.")
    quantization: QuantizationSection | None = Field(None, description=QUANTIZATION)
    attention: Attention | None = Field(None, description=ATTENTION, json_schema_extra=affects("nothing"))
    server: TeacherServerSection | None = Field(
        None,
        description="Server that has the teacher; hub or path then name its configuration and tokenizer alone. null: "
        "the teacher is loaded.",
    )
    cache: TeacherCacheSection | None = Field(
        None,
        description="Keep what the losses read of the teacher on disk; null (the default) means that the teacher is "
        "run in every step. Answers of a server are always kept.",
        json_schema_extra=affects("nothing"),
    )

    @property
    def keeps_records(self) -> bool:
        """Whether what the losses read of the teacher is kept on disk."""
        return self.cache is not None or self.server is not None

    def contradictions(self) -> Iterator[Contradiction]:
        yield from exactly_one(self, "hub", "path", "run")
        if self.server is not None:
            yield from self._without_effect_at_a_server()
        if self.hub is None:
            yield from without_effect(self, "revision", "hub", "without hub")

    def _without_effect_at_a_server(self) -> Iterator[Contradiction]:
        reason = "where server has the teacher"
        for name in ("dtype", "quantization", "attention"):
            yield from without_effect(self, name, "server", reason)
        if self.cache is not None:
            yield from without_effect(self.cache, "layer_states", "server", reason, prefix="cache.")
        if self.run is not None:
            problem = "trains the teacher on this machine, and server says that it is elsewhere"
            hint = "Give hub or path, or remove server."
            yield Contradiction("run", ("run", "server"), problem, "null with server", hint)
