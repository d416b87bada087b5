"""The sections of an evaluation without training, which ``mta evaluate`` builds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field

from mta_framework.spec.data import (
    ADD_SPECIAL_TOKENS,
    SPECIAL_TOKENS_OF_CHAT,
    TEMPLATE_OPTIONS,
    TemplateOptions,
    reserved_options,
)
from mta_framework.spec.effects import affects
from mta_framework.spec.evaluation import METRIC_CACHE, ScoringSection
from mta_framework.spec.section import (
    Contradiction,
    HubId,
    Location,
    Name,
    Revision,
    Section,
    Text,
    exactly_one,
    without_effect,
)


class ModelSection(Section):
    """The model that is evaluated."""

    hub: HubId | None = Field(None, description="Model id on the Hugging Face hub.")
    revision: Revision | None = Field(None, description="Branch, tag or commit on the hub.")
    path: Location | None = Field(None, description="Path of a local transformers folder or a .gguf file.")
    tokenizer: Location | None = Field(None, description="Path of a tokenizer folder; null: the model's own.")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="Dtype of the weights.")

    def contradictions(self) -> Iterator[Contradiction]:
        yield from exactly_one(self, "hub", "path")
        if self.hub is None:
            yield from without_effect(self, "revision", "hub", "without hub")


class EvaluationSpec(Section):
    """One evaluation of one model, with everything that is needed to repeat it."""

    name: Name = Field(
        description="Name of the model in tables.", examples=["model"], json_schema_extra=affects("responses")
    )
    folder: Location = Field(
        description="Folder of predictions and report.",
        examples=["evaluations/model"],
        json_schema_extra=affects("nothing"),
    )
    model: ModelSection = Field(
        description="Model that is evaluated.", examples=[{"hub": "gpt2"}], json_schema_extra=affects("responses")
    )
    template: Literal["alpaca", "chat"] = Field(
        "alpaca",
        description="Template that turns instruction rows into prompts: Alpaca's, or the tokenizer's chat template.",
        json_schema_extra=affects("responses"),
    )
    template_options: TemplateOptions = Field(
        default_factory=dict, description=TEMPLATE_OPTIONS, json_schema_extra=affects("responses")
    )
    add_special_tokens: bool = Field(True, description=ADD_SPECIAL_TOKENS, json_schema_extra=affects("responses"))
    teacher_field: Text = Field(
        "teacher",
        description="Key of a row that names its teacher in training; an evaluation does not read it.",
        json_schema_extra=affects("nothing"),
    )
    evaluation: ScoringSection = Field(
        description="Data sets, metrics and sampling.",
        examples=[{"sets": {"test": {"path": "test.jsonl"}}}],
        json_schema_extra=affects("responses"),
    )

    @property
    def metric_cache(self) -> Path:
        """Folder of expensive results of metrics, shared by all evaluations beside this one."""
        return Path(self.folder).parent / METRIC_CACHE

    def contradictions(self) -> Iterator[Contradiction]:
        yield from reserved_options(self.template_options)
        if self.template == "chat":
            yield from without_effect(self, "add_special_tokens", "template", SPECIAL_TOKENS_OF_CHAT)
