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
        "per row. Final states, cosines and weights are always exact.",
        json_schema_extra=affects("weights"),
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
    cache: TeacherCacheSection | None = Field(
        None,
        description="Keep what the losses read of the teacher on disk; null (the default) means that the teacher is "
        "run in every step.",
        json_schema_extra=affects("nothing"),
    )

    def contradictions(self) -> Iterator[Contradiction]:
        yield from exactly_one(self, "hub", "path", "run")
        if self.hub is None:
            yield from without_effect(self, "revision", "hub", "without hub")
