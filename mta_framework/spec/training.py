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
    Text,
    exactly_one,
    repeated,
    without_effect,
)

DTYPE_OF_PRECISION = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
"""``training.precision`` -> dtype of the forward pass."""

VALIDATION_LOSSES = ("loss", "cross_entropy")
"""Values of ``training.metric_for_best_model`` for which nothing is generated."""

_BEST = "load_best_model_at_end"


class GenerationSection(Section):
    """Generation of responses during training."""

    engine: EngineName = Field(
        "transformers",
        description="Engine that generates responses: transformers, with the model itself; vllm, which must be "
        "installed, with a copy of it in processes of its own.",
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
    """Training: duration, batches, optimiser, learning rate, precision, checkpoints."""

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
    optimizer: Literal["adamw_torch_fused", "adamw_torch", "adamw_8bit", "paged_adamw_8bit", "adafactor"] = Field(
        "adamw_torch_fused",
        description="Optimiser by its name in transformers: AdamW, fused in one kernel or not; AdamW with "
        "moments in 8 bit, which a GPU may page out to main memory (both need bitsandbytes); Adafactor.",
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
        "fp32", description="Precision of the forward pass and of frozen weights; trained weights stay fp32."
    )
    sharding: Literal["fsdp2"] | None = Field(
        None,
        description="How student, teacher, gradients and optimiser are divided among several processes: fsdp2 gives "
        "each an equal share of every parameter; null gives each all of them. A single process has all in any case.",
        json_schema_extra=affects("nothing"),
    )
    gradient_checkpointing: bool = Field(
        False, description="Recompute activations in the backward pass: less memory, more time."
    )
    generation: GenerationSection | None = Field(
        None,
        description="Generation of responses; required by base losses that train on them and by metrics that choose "
        "the best checkpoint, otherwise null.",
    )
    eval_steps: int | None = Field(
        None,
        ge=1,
        description="Number of steps between validations, of which one follows the last step; null: one per epoch.",
    )
    load_best_model_at_end: bool = Field(
        False,
        description="Export the student of the validation with the best metric_for_best_model, not that of the last "
        "step; its checkpoint is kept.",
    )
    metric_for_best_model: Text = Field(
        "loss",
        description="What the best checkpoint is chosen by: loss (the validation loss), cross_entropy (the student's, "
        "on the validation set), or the name of a metric, which scores greedy answers to validation prompts.",
    )
    eval_prompts: int | None = Field(
        None,
        ge=1,
        description="Number of validation prompts, from the first, that the student answers for "
        "metric_for_best_model; null: all.",
    )
    early_stopping_patience: int | None = Field(
        None,
        ge=1,
        description="Number of validations in a row without a better metric_for_best_model after which training "
        "stops; null: it never does.",
    )
    early_stopping_threshold: float = Field(
        0.0, ge=0, description="Amount by which metric_for_best_model must improve to reset the patience."
    )
    save_steps: int | None = Field(
        None,
        ge=1,
        description="Number of steps between checkpoints; null: one per epoch.",
        json_schema_extra=affects("nothing"),
    )
    checkpoints: Literal["full", "sharded"] = Field(
        "full",
        description="Who writes checkpoints with sharding: full, the main process, which gathers weights and state of "
        "the optimiser; sharded, each process its share.",
        json_schema_extra=affects("nothing"),
    )
    keep_checkpoints: int = Field(
        2,
        ge=1,
        description="Number of latest checkpoints that are kept, besides the best one if load_best_model_at_end.",
        json_schema_extra=affects("nothing"),
    )
    log_steps: int = Field(
        10, ge=1, description="Number of steps between log entries.", json_schema_extra=affects("nothing")
    )
    trackers: list[Literal["tensorboard", "wandb", "mlflow", "trackio"]] = Field(
        ["tensorboard"],
        description="Trackers that receive the log, besides the run folder.",
        json_schema_extra=affects("nothing"),
    )

    @property
    def answer_metric(self) -> str | None:
        """Name of the metric of generated answers that the best checkpoint is chosen by; None where there is none."""
        by_answers = self.load_best_model_at_end and self.metric_for_best_model not in VALIDATION_LOSSES
        return self.metric_for_best_model if by_answers else None

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
        if self.sharding is not None:
            yield from self._sharding_contradictions()
        else:
            yield from without_effect(self, "checkpoints", "sharding", "where sharding is null")
        if self.load_best_model_at_end:
            yield from self._selection_contradictions()
        else:
            for name in ("metric_for_best_model", "eval_prompts", "early_stopping_patience"):
                yield from without_effect(self, name, _BEST, f"where {_BEST} is false")
        if self.early_stopping_patience is None:
            reason = "where early_stopping_patience is null"
            yield from without_effect(self, "early_stopping_threshold", "early_stopping_patience", reason)

    def _sharding_contradictions(self) -> Iterator[Contradiction]:
        if self.precision == "fp16":
            problem = "cannot be fp16 with sharding: each process would scale its gradients for itself (got 'fp16')"
            yield Contradiction("precision", ("precision", "sharding"), problem, "bf16 or fp32", "Use bf16.")
        if not self.optimizer.startswith("adamw_torch"):
            problem = f"keeps a state that cannot be sharded (got {self.optimizer!r})"
            expected, hint = (
                "adamw_torch_fused or adamw_torch with sharding",
                "Use one of these, or set sharding to null.",
            )
            yield Contradiction("optimizer", ("optimizer", "sharding"), problem, expected, hint)

    def _selection_contradictions(self) -> Iterator[Contradiction]:
        steps = ("eval_steps", "save_steps")
        if (self.eval_steps is None) != (self.save_steps is None):
            missing, given = steps if self.eval_steps is None else steps[::-1]
            problem = f"must be given with {given} and {_BEST} (got null)"
            expected, hint = "a number of steps, or null for both", "Set both, or neither for one per epoch."
            yield Contradiction(missing, (_BEST, *steps), problem, expected, hint)
        elif self.eval_steps and self.save_steps and self.save_steps % self.eval_steps:
            problem = f"must be a multiple of eval_steps with {_BEST} (got {self.save_steps})"
            expected = f"a multiple of {self.eval_steps}"
            yield Contradiction("save_steps", (_BEST, *steps), problem, expected, "Change one of the two.")
        if self.metric_for_best_model in VALIDATION_LOSSES:
            reason = f"where metric_for_best_model is {self.metric_for_best_model}, for which nothing is generated"
            yield from without_effect(self, "eval_prompts", "metric_for_best_model", reason)
