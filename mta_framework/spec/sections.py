"""The sections of a run spec: structure, types and ranges. No torch, no plugin code.

Relative paths are relative to the folder of the spec file; loading makes them absolute.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue

from mta_framework.spec.document import shown
from mta_framework.spec.section import (
    Contradiction,
    HubId,
    Location,
    Name,
    Section,
    Seed,
    Text,
    exactly_one,
    repeated,
    without_effect,
)

METRIC_CACHE = "metric-cache"
"""Folder, beside those of runs and evaluations, of what was dear for metrics to get."""

DType = Literal["auto", "float32", "bfloat16", "float16"]
EngineName = Literal["transformers", "vllm"]
DTYPE_OF_PRECISION = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
"""``training.precision`` -> what the forward pass computes in."""


def _family(name: str) -> dict[str, JsonValue]:
    """Marks a plugin section in the JSON Schema with the family that it chooses from."""
    return {"plugin_family": name}


class PluginSection(Section):
    """A plugin by name, with its options."""

    name: Text = Field(description="Name of an installed plugin; `mta plugins` lists them.", examples=["kl"])
    params: dict[str, Any] = Field(default_factory=dict, description="The plugin's options; `mta plugins NAME`.")


class TeacherSection(Section):
    """The model that is imitated."""

    hub: HubId | None = Field(None, description="Model id on the Hugging Face hub.")
    revision: Text | None = Field(None, description="Branch, tag or commit on the hub.")
    path: Location | None = Field(None, description="Local transformers folder, or a .gguf file.")
    run: Location | None = Field(None, description="Another spec: its exported student, trained first unless there.")
    dtype: DType = Field("auto", description="Weights of the frozen teacher; auto follows training.precision.")

    def contradictions(self) -> Iterator[Contradiction]:
        yield from exactly_one(self, "hub", "path", "run")
        if self.hub is None:
            yield from without_effect(self, "revision", "hub", "without hub")


class LoraSection(Section):
    """Low-rank adapters (peft); the rest of the student is frozen, the export is merged."""

    rank: int = Field(8, ge=1, description="Rank of the update.")
    alpha: float = Field(16.0, gt=0, description="Scale: the update is multiplied by alpha / rank.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on the adapter's input.")
    target_modules: list[Text] | None = Field(
        None, min_length=1, description="Names of the linear modules that are adapted; null: all but the head."
    )


class StudentSection(Section):
    """The model that is trained."""

    hub: HubId | None = Field(None, description="Model id on the Hugging Face hub.")
    revision: Text | None = Field(None, description="Branch, tag or commit on the hub.")
    path: Location | None = Field(None, description="Local transformers folder, or a .gguf file.")
    config: dict[str, Any] | None = Field(
        None, description="A transformers configuration (model_type and its fields), freshly initialised."
    )
    teacher_layers: list[int] | None = Field(
        None, min_length=1, description="1-based decoder blocks of the teacher that the student starts from."
    )
    tokenizer: Location | None = Field(None, description="Tokenizer folder; null: the model's own or the teacher's.")
    lora: LoraSection | None = Field(None, description="Train low-rank adapters instead of all weights.")

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
        layers = self.teacher_layers
        if layers is not None and (min(layers) < 1 or sorted(set(layers)) != layers):
            yield Contradiction(
                "teacher_layers",
                ("teacher_layers",),
                f"must ascend without repetition, from 1 (got {layers})",
                "1-based decoder blocks, e.g. [1, 3, 5]",
                "Correct the list.",
            )


class DatasetSection(Section):
    """One data set: a JSON Lines file or a data set on the hub."""

    path: Location | None = Field(None, description="JSON Lines file.")
    hub: HubId | None = Field(None, description="Data set id on the Hugging Face hub.")
    revision: Text | None = Field(None, description="Branch, tag or commit on the hub.")
    split: Text | None = Field(None, description="Split of the hub data set, e.g. train.")
    limit: int | None = Field(None, ge=1, description="Use only the first rows.")

    def contradictions(self) -> Iterator[Contradiction]:
        yield from exactly_one(self, "path", "hub")
        if self.hub is None:
            for name in ("revision", "split"):
                yield from without_effect(self, name, "hub", "without hub")
        elif self.split is None:
            yield Contradiction(
                "split",
                ("hub", "split"),
                "must be given with hub (got null)",
                "a split of the data set, e.g. 'train'",
                "Add it.",
            )


class DataSection(Section):
    """What is trained on."""

    train: DatasetSection = Field(description="Training set.", examples=[{"path": "train.jsonl"}])
    validation: DatasetSection | None = Field(None, description="Its loss is taken after each epoch.")
    template: Literal["alpaca", "chat"] = Field(
        "alpaca",
        description="How instruction rows become prompts: the Alpaca prompt, or the tokenizer's chat template.",
    )
    max_length: int = Field(256, ge=2, description="Tokens of prompt and response; longer responses are cut.")
    max_prompt_length: int = Field(128, ge=1, description="Tokens of a prompt; rows with longer ones are left out.")
    parse: Literal["text", "fields"] = Field(
        "text",
        description="What spans are found in: whole texts, as in the paper; or every field of a prompt and the "
        "response for itself, and the template around them once for all texts.",
    )
    processes: int | None = Field(None, ge=1, description="Processes that parse spans; null: one per core.")
    cache_dir: Location | None = Field(None, description="Folder of the span cache; null: output_dir/span-cache.")

    def contradictions(self) -> Iterator[Contradiction]:
        if self.max_prompt_length >= self.max_length:
            yield Contradiction(
                "max_prompt_length",
                ("max_prompt_length", "max_length"),
                f"leaves no room for a response (got {self.max_prompt_length})",
                f"less than max_length {self.max_length}",
                "Lower it, or raise max_length.",
            )


class AlignmentSection(Section):
    """MTA: which spans of which layers are compared, and how much it counts."""

    spans: PluginSection = Field(
        description="Span extractor.", examples=[{"name": "words"}], json_schema_extra=_family("span_extractors")
    )
    importance: PluginSection = Field(
        PluginSection(name="attention"),
        description="Importance estimator.",
        json_schema_extra=_family("importance_estimators"),
    )
    layers: PluginSection = Field(
        PluginSection(name="proportional"), description="Layer mapper.", json_schema_extra=_family("layer_mappers")
    )
    lambda_dsa: float = Field(2.0, ge=0, description="Weight of dynamic structural alignment; 0 leaves it out.")
    lambda_hid: float = Field(0.2, ge=0, description="Weight of hidden alignment; 0 leaves it out.")
    dsa_reduction: Literal["example", "batch"] = Field(
        "example", description="Divide by the pair weights per text, or once over the micro-batch (authors' code)."
    )
    max_spans: int | None = Field(
        None,
        ge=2,
        description="How many spans of a text DSA compares: the heaviest by the teacher's weights; null: all.",
    )
    hid_reduction: Literal["mean", "sum"] = Field("mean", description="Over key layers: mean (authors' code) or sum.")
    projection_learning_rate: float = Field(5e-4, gt=0, description="Learning rate of Hid's linear maps.")

    def contradictions(self) -> Iterator[Contradiction]:
        if self.lambda_dsa == 0 and self.lambda_hid == 0:
            yield Contradiction(
                "",
                ("lambda_dsa", "lambda_hid"),
                "has no effect where both weights are 0 (got lambda_dsa 0, lambda_hid 0)",
                "at least one weight > 0",
                "Raise one, or set alignment to null.",
            )
        elif self.lambda_dsa == 0:
            for name in ("dsa_reduction", "max_spans"):
                yield from without_effect(self, name, "lambda_dsa", "where lambda_dsa is 0")
        elif self.lambda_hid == 0:
            for name in ("hid_reduction", "projection_learning_rate"):
                yield from without_effect(self, name, "lambda_hid", "where lambda_hid is 0")


class GenerationSection(Section):
    """How models write responses during training."""

    engine: EngineName = Field("transformers", description="What generates; vllm must be installed, and needs a GPU.")
    max_new_tokens: int | None = Field(
        None, ge=1, description="Tokens of a response; null: data.max_length - data.max_prompt_length."
    )
    batch_tokens: int = Field(
        24576, ge=1, description="Tokens of prompts and responses that a process holds at once; at least one row."
    )


class TrainingSection(Section):
    """The optimiser and its schedule (AdamW)."""

    epochs: int | None = Field(None, ge=1, description="Passes over the training set.")
    max_steps: int | None = Field(None, ge=1, description="Optimiser steps, instead of epochs.")
    batch_size: int = Field(16, ge=1, description="Texts per optimiser step, over all micro-batches and processes.")
    micro_batch_size: int | None = Field(
        None, ge=1, description="Texts per forward pass (pairs: two for each); null: batch_size / processes."
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
    save_steps: int | None = Field(None, ge=1, description="Steps between checkpoints; null: one per epoch.")
    keep_checkpoints: int = Field(2, ge=1, description="How many of the latest checkpoints are kept.")
    log_steps: int = Field(10, ge=1, description="Steps between log entries.")
    trackers: list[Literal["tensorboard", "wandb", "mlflow", "trackio"]] = Field(
        ["tensorboard"], description="Where the log goes, besides the run folder."
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


class ScoringSection(Section):
    """Responses are sampled for every data set and seed, and scored."""

    sets: dict[Name, DatasetSection] = Field(
        min_length=1, description="Data sets by name.", examples=[{"test": {"path": "test.jsonl"}}]
    )
    metrics: list[Annotated[PluginSection, Field(json_schema_extra=_family("metrics"))]] = Field(
        [PluginSection(name="rouge_l")], min_length=1, description="Metrics, in the order of the table."
    )
    seeds: list[Seed] = Field([10, 20, 30, 40, 50], min_length=1, description="Sampling seeds.")
    temperature: float = Field(0.7, ge=0, description="Of sampling; 0: greedy.")
    top_p: float = Field(1.0, gt=0, le=1, description="Nucleus sampling.")
    max_prompt_length: int = Field(256, ge=1, description="Tokens of a prompt.")
    long_prompts: Literal["cut", "refuse"] = Field(
        "cut", description="Longer prompts are cut on the left, and counted in the report; or nothing is run."
    )
    max_new_tokens: int = Field(512, ge=1, description="Tokens of a response.")
    engine: EngineName = Field("transformers", description="What generates; vllm must be installed, and needs a GPU.")
    batch_tokens: int = Field(
        24576, ge=1, description="Tokens of prompts and responses that are held at once; at least one row."
    )

    def contradictions(self) -> Iterator[Contradiction]:
        yield from repeated(self, "seeds")
        if self.temperature == 0:
            yield from without_effect(self, "top_p", "temperature", "at temperature 0")
            if len(self.seeds) > 1:
                yield Contradiction(
                    "seeds",
                    ("seeds", "temperature"),
                    f"must be one seed at temperature 0, where all give the same text (got {self.seeds})",
                    "a list of one seed",
                    "Give one seed, or raise temperature.",
                )


class EvaluationSection(ScoringSection):
    """Which models of a run are evaluated, and how."""

    models: list[Literal["student", "teacher", "initial_student"]] = Field(
        ["student"], min_length=1, description="Which models: the trained student, its teacher, it before training."
    )

    def contradictions(self) -> Iterator[Contradiction]:
        yield from super().contradictions()
        yield from repeated(self, "models")


class RunSpec(Section):
    """One run: everything that is needed to repeat it."""

    name: Name = Field(description="Name of the run and of its folder.", examples=["my-run"])
    seed: Seed = Field(42, description="Of initialisation, data order and dropout.")
    output_dir: Location = Field("runs", description="The run folder is output_dir/name.", validate_default=True)
    teacher: TeacherSection | None = Field(None, description="The model that is imitated; null where nothing uses one.")
    student: StudentSection = Field(description="The model that is trained.", examples=[{"hub": "gpt2"}])
    data: DataSection = Field(description="What is trained on.", examples=[{"train": {"path": "train.jsonl"}}])
    base_loss: PluginSection = Field(
        description="The loss that MTA is added to.",
        examples=[{"name": "kl"}],
        json_schema_extra=_family("base_losses"),
    )
    alignment: AlignmentSection | None = Field(
        None, description="MTA: the spans and layers that are compared; null: the base loss alone."
    )
    training: TrainingSection = Field(description="Length, batches, optimiser and schedule.", examples=[{"epochs": 3}])
    evaluation: EvaluationSection | None = Field(
        None, description="Responses are sampled and scored; null: train only."
    )

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.output_dir) / self.name

    @property
    def metric_cache(self) -> Path:
        """Where metrics keep what was dear to get: beside the run folder, for all runs there."""
        return Path(self.output_dir) / METRIC_CACHE

    def contradictions(self) -> Iterator[Contradiction]:
        if self.teacher is None:
            yield from self._teacher_missing()
        if (generation := self.training.generation) is not None:
            room = self.data.max_length - self.data.max_prompt_length
            if generation.max_new_tokens is not None and generation.max_new_tokens > room > 0:
                yield Contradiction(
                    "training.generation.max_new_tokens",
                    ("training.generation.max_new_tokens", "data.max_length", "data.max_prompt_length"),
                    f"leaves some texts longer than data.max_length (got {generation.max_new_tokens})",
                    f"at most {room}, the room after a prompt of {self.data.max_prompt_length} tokens",
                    "Lower it, or raise data.max_length.",
                )
        if self.alignment is None:
            for name in ("parse", "processes", "cache_dir"):
                for found in without_effect(self.data, name, "", "without alignment, which alone parses spans"):
                    yield replace(found, at=f"data.{name}", involved=(f"data.{name}", "alignment"))

    def _teacher_missing(self) -> Iterator[Contradiction]:
        users = {
            "alignment": self.alignment is not None,
            "student.teacher_layers": self.student.teacher_layers is not None,
            "evaluation.models": self.evaluation is not None and "teacher" in self.evaluation.models,
        }
        for name in (name for name, uses in users.items() if uses):
            yield Contradiction(
                "teacher",
                ("teacher", name),
                f"must be given, since {name} needs it (got null)",
                "a teacher section",
                f"Add a teacher, or change {name}.",
            )
