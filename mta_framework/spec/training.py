"""The section ``training``: length, batches, optimiser and schedule."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from mta_framework.spec.effects import affects
from mta_framework.spec.section import (
    Contradiction,
    EngineName,
    Section,
    exactly_one,
    repeated,
)

DTYPE_OF_PRECISION = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
"""``training.precision`` -> what the forward pass computes in."""


class GenerationSection(Section):
    """How models write responses during training."""

    engine: EngineName = Field("transformers", description="What generates; vllm must be installed, and needs a GPU.")
    max_new_tokens: int | None = Field(
        None, ge=1, description="Tokens of a response; null: data.max_length - data.max_prompt_length."
    )
    batch_tokens: int = Field(
        24576,
        ge=1,
        description="Tokens of prompts and responses that a process holds at once; at least one row.",
        json_schema_extra=affects("nothing"),
    )


class TrainingSection(Section):
    """The optimiser and its schedule (AdamW)."""

    epochs: int | None = Field(None, ge=1, description="Passes over the training set.")
    max_steps: int | None = Field(None, ge=1, description="Optimiser steps, instead of epochs.")
    batch_size: int = Field(16, ge=1, description="Texts per optimiser step, over all micro-batches and processes.")
    micro_batch_size: int | None = Field(
        None,
        ge=1,
        description="Texts per forward pass (pairs: two for each); null: batch_size / processes.",
        json_schema_extra=affects("nothing"),
    )
    learning_rate: float = Field(1e-4, gt=0, description="Peak learning rate of the student.")
    weight_decay: float = Field(0.01, ge=0, description="On matrices; not on biases, norms.")
    warmup_ratio: float = Field(0.0, ge=0, lt=1, description="Share of the steps with rising learning rate.")
    schedule: Literal["cosine", "linear", "constant"] = Field("cosine", description="After the warm-up.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are clipped to this norm.")
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="Of the forward pass; weights stay fp32.")
    gradient_checkpointing: bool = Field(False, description="Recompute activations: less memory, more time.")
    generation: GenerationSection | None = Field(
        None, description="How responses are written; only for base losses that train on them, which need it."
    )
    save_steps: int | None = Field(
        None, ge=1, description="Steps between checkpoints; null: one per epoch.", json_schema_extra=affects("nothing")
    )
    keep_checkpoints: int = Field(
        2, ge=1, description="How many of the latest checkpoints are kept.", json_schema_extra=affects("nothing")
    )
    log_steps: int = Field(10, ge=1, description="Steps between log entries.", json_schema_extra=affects("nothing"))
    trackers: list[Literal["tensorboard", "wandb", "mlflow", "trackio"]] = Field(
        ["tensorboard"], description="Where the log goes, besides the run folder.", json_schema_extra=affects("nothing")
    )

    def contradictions(self) -> Iterator[Contradiction]:
        yield from exactly_one(self, "epochs", "max_steps")
        yield from repeated(self, "trackers")
        if self.micro_batch_size is not None and self.batch_size % self.micro_batch_size:
            yield Contradiction(
                "micro_batch_size",
                ("micro_batch_size", "batch_size"),
                f"must divide batch_size (got {self.micro_batch_size})",
                f"a divisor of {self.batch_size}",
                "Change one of the two.",
            )
