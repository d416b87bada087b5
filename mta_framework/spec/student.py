"""The section ``student``: the model that is trained."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from mta_framework.spec.document import shown
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


class LoraSection(Section):
    """Low-rank adapters (peft): all other weights of the student are frozen, in the dtype of training.precision."""

    rank: int = Field(8, ge=1, description="Rank of the adapters.")
    alpha: float = Field(16.0, gt=0, description="Scale of the adapters: their output is multiplied by alpha / rank.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout probability on the adapters' input.")
    target_modules: list[Text] | None = Field(
        None, min_length=1, description="Names of the linear modules that get adapters; null: all except the head."
    )
    export: Literal["merged", "adapters"] = Field(
        "merged",
        description="Exported student: a whole model with the adapters merged into its weights, or the adapters alone, "
        "in peft's format.",
    )


class StudentSection(Section):
    """The model that is trained."""

    hub: HubId | None = Field(None, description="Model id on the Hugging Face hub.")
    revision: Revision | None = Field(None, description="Branch, tag or commit on the hub.")
    path: Location | None = Field(None, description="Path of a local transformers folder or a .gguf file.")
    config: dict[str, Any] | None = Field(
        None, description="Configuration of a new, randomly initialised model: model_type and fields of transformers."
    )
    teacher_layers: list[int] | None = Field(
        None,
        min_length=1,
        description="Decoder blocks of the teacher, counted from 1, that the student is initialised with.",
    )
    tokenizer: Location | None = Field(
        None, description="Path of a tokenizer folder; null: the model's own or, without one, the teacher's."
    )
    lora: LoraSection | None = Field(
        None, description="Low-rank adapters to train instead of all weights; null: all weights."
    )
    quantization: QuantizationSection | None = Field(None, description=f"{QUANTIZATION} Needs lora.")
    attention: Attention | None = Field(None, description=ATTENTION, json_schema_extra=affects("nothing"))

    @property
    def exports_adapters(self) -> bool:
        """Whether the adapters alone are exported, not a whole model."""
        return self.lora is not None and self.lora.export == "adapters"

    def contradictions(self) -> Iterator[Contradiction]:
        yield from exactly_one(self, "hub", "path", "config", "teacher_layers")
        if self.hub is None:
            yield from without_effect(self, "revision", "hub", "without hub")
        if self.config is not None and not isinstance(self.config.get("model_type"), str):
            yield Contradiction(
                "config",
                ("config",),
                f"must name its architecture in model_type (got {shown(self.config.get('model_type'))})",
                "the model_type of a transformers configuration, e.g. 'llama'",
                "Add it.",
            )
        yield from self._frozen_contradictions()
        layers = self.teacher_layers
        if layers is not None and (min(layers) < 1 or sorted(set(layers)) != layers):
            yield Contradiction(
                "teacher_layers",
                ("teacher_layers",),
                f"must ascend without repetition, from 1 (got {layers})",
                "1-based decoder blocks, e.g. [1, 3, 5]",
                "Correct the list.",
            )

    def _frozen_contradictions(self) -> Iterator[Contradiction]:
        if self.quantization is not None and self.lora is None:
            yield Contradiction(
                "quantization",
                ("quantization", "lora"),
                "makes weights that cannot be trained, and lora is null",
                "null, or low-rank adapters to train",
                'Add "lora": {}, or set it to null.',
            )
        new = next((name for name in ("config", "teacher_layers") if getattr(self, name) is not None), None)
        if new is not None and self.quantization is not None:
            problem = f"quantises weights while they are read from files, and {new} makes them anew"
            expected, hint = "null, or a student by hub or path", "Set it to null, or give the student by hub or path."
            yield Contradiction("quantization", ("quantization", new), problem, expected, hint)
        if new is not None and self.exports_adapters:
            problem = f"leaves out the weights that {new} makes, which nothing else has (got 'adapters')"
            expected, hint = "'merged', or a student by hub or path", "Set it to merged."
            yield Contradiction("lora.export", ("lora.export", new), problem, expected, hint)
