"""The section ``training``: duration, batches, optimiser and schedule."""

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
"""``training.precision`` -> dtype of the forward pass."""


class GenerationSection(Section):
    """Generation of responses during training."""

    engine: EngineName = Field(
        "transformers", description="Engine that generates responses; vllm must be installed and needs a GPU."
    )
    max_new_tokens: int | None = Field(
        None,
        ge=1,
        description="Maximal number of tokens of a response; null: data.max_length - data.max_prompt_length.",
    )
    batch_tokens: int = Field(
        24576,
        ge=1,
        description="Number of prompt and response tokens that a process holds at a time, at least one row.",
        json_schema_extra=affects("nothing"),
    )


class TrainingSection(Section):
    """Training with AdamW: duration, batches, learning rate, precision, checkpoints."""

    epochs: int | None = Field(None, ge=1, description="Number of passes over the training set.")
    max_steps: int | None = Field(None, ge=1, description="Number of optimiser steps, instead of epochs.")
    batch_size: int = Field(
        16, ge=1, description="Number of texts per optimiser step, over all micro-batches and processes."
    )
    micro_batch_size: int | None = Field(
        None,
        ge=1,
        description="Number of texts per forward pass (with pairs, of prompts); null: batch_size / processes.",
        json_schema_extra=affects("nothing"),
    )
    learning_rate: float = Field(1e-4, gt=0, description="Peak learning rate of the student.")
    weight_decay: float = Field(0.01, ge=0, description="Weight decay of matrices; biases and norms have none.")
    warmup_ratio: float = Field(
        0.0, ge=0, lt=1, description="Share of the steps in which the learning rate rises to its peak."
    )
    schedule: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="Learning rate schedule after the warm-up."
    )
    max_grad_norm: float = Field(1.0, gt=0, description="Norm to which gradients are clipped.")
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="Precision of the forward pass; the student's weights stay fp32."
    )
    gradient_checkpointing: bool = Field(
        False, description="Recompute activations in the backward pass: less memory, more time."
    )
    generation: GenerationSection | None = Field(
        None, description="Generation of responses; required by base losses that train on them, otherwise null."
    )
    save_steps: int | None = Field(
        None,
        ge=1,
        description="Number of steps between checkpoints; null: one per epoch.",
        json_schema_extra=affects("nothing"),
    )
    keep_checkpoints: int = Field(
        2, ge=1, description="Number of latest checkpoints that are kept.", json_schema_extra=affects("nothing")
    )
    log_steps: int = Field(
        10, ge=1, description="Number of steps between log entries.", json_schema_extra=affects("nothing")
    )
    trackers: list[Literal["tensorboard", "wandb", "mlflow", "trackio"]] = Field(
        ["tensorboard"],
        description="Trackers that receive the log, besides the run folder.",
        json_schema_extra=affects("nothing"),
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
