"""The sections of a run spec: structure, types and ranges. No torch, no plugin code.

Relative paths are relative to the folder of the spec file; loading makes them absolute.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, model_validator

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
DType = Literal["auto", "float32", "bfloat16", "float16"]


def _absolute(path: str, info: ValidationInfo) -> str:
    folder = (info.context or {}).get("folder")
    return path if folder is None else str((Path(folder) / Path(path).expanduser()).resolve())


Location = Annotated[str, Field(min_length=1), AfterValidator(_absolute)]


class Section(BaseModel):
    """Base of all sections: immutable, an unknown field is an error, no field is coerced from another type."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def exactly_one(section: Section, *names: str) -> None:
    """Raise unless exactly one of the fields is given."""
    given = [name for name in names if getattr(section, name) is not None]
    if len(given) != 1:
        raise ValueError(f"give exactly one of {', '.join(names)} (got {', '.join(given) or 'none'})")


class PluginSection(Section):
    """A plugin by name, with its options."""

    name: str = Field(min_length=1, description="Name of an installed plugin; `mta plugins` lists them.")
    params: dict[str, Any] = Field(default_factory=dict, description="The plugin's options; `mta plugins NAME`.")


class TeacherSection(Section):
    """The model that is imitated."""

    hub: str | None = Field(None, description="Model id on the Hugging Face hub.")
    revision: str | None = Field(None, description="Branch, tag or commit on the hub.")
    path: Location | None = Field(None, description="Local transformers folder, or a .gguf file.")
    run: Location | None = Field(None, description="Another spec: its exported student, trained first unless there.")
    dtype: DType = Field("auto", description="Weights of the frozen teacher; auto follows training.precision.")

    @model_validator(mode="after")
    def _one_source(self) -> TeacherSection:
        exactly_one(self, "hub", "path", "run")
        _revision_needs_hub(self)
        return self


class LoraSection(Section):
    """Low-rank adapters (peft); the rest of the student is frozen, the export is merged."""

    rank: int = Field(8, ge=1, description="Rank of the update.")
    alpha: float = Field(16.0, gt=0, description="Scale: the update is multiplied by alpha / rank.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on the adapter's input.")
    target_modules: list[str] | None = Field(
        None, min_length=1, description="Names of the linear modules that are adapted; null: all but the head."
    )


class StudentSection(Section):
    """The model that is trained."""

    hub: str | None = Field(None, description="Model id on the Hugging Face hub.")
    revision: str | None = Field(None, description="Branch, tag or commit on the hub.")
    path: Location | None = Field(None, description="Local transformers folder, or a .gguf file.")
    config: dict[str, Any] | None = Field(
        None, description="A transformers configuration (model_type and its fields), freshly initialised."
    )
    teacher_layers: list[int] | None = Field(
        None, min_length=1, description="1-based decoder blocks of the teacher that the student starts from."
    )
    tokenizer: Location | None = Field(None, description="Tokenizer folder; null: the model's own or the teacher's.")
    lora: LoraSection | None = Field(None, description="Train low-rank adapters instead of all weights.")

    @model_validator(mode="after")
    def _one_source(self) -> StudentSection:
        exactly_one(self, "hub", "path", "config", "teacher_layers")
        _revision_needs_hub(self)
        if self.config is not None and not isinstance(self.config.get("model_type"), str):
            raise ValueError("config needs model_type, the name of a transformers architecture (got none)")
        layers = self.teacher_layers
        if layers is not None and (min(layers) < 1 or sorted(set(layers)) != layers):
            raise ValueError(f"teacher_layers must be ascending layers, counted from 1 (got {layers})")
        return self


def _revision_needs_hub(section: TeacherSection | StudentSection) -> None:
    if section.revision is not None and section.hub is None:
        raise ValueError("revision has no effect without hub")


class DatasetSection(Section):
    """One data set: a JSON Lines file or a data set on the hub."""

    path: Location | None = Field(None, description="JSON Lines file.")
    hub: str | None = Field(None, description="Data set id on the Hugging Face hub.")
    revision: str | None = Field(None, description="Branch, tag or commit on the hub.")
    split: str | None = Field(None, description="Split of the hub data set, e.g. train.")
    limit: int | None = Field(None, ge=1, description="Use only the first rows.")

    @model_validator(mode="after")
    def _one_source(self) -> DatasetSection:
        exactly_one(self, "path", "hub")
        for name in ("revision", "split"):
            if self.hub is None and getattr(self, name) is not None:
                raise ValueError(f"{name} has no effect without hub")
        if self.hub is not None and self.split is None:
            raise ValueError("hub needs split, e.g. train (got none)")
        return self


class DataSection(Section):
    """What is trained on."""

    train: DatasetSection = Field(description="Training set.")
    validation: DatasetSection | None = Field(None, description="Its loss is taken after each epoch.")
    template: Literal["alpaca", "chat"] = Field(
        "alpaca", description="How instruction rows become prompts: the Alpaca prompt, or the tokenizer's chat template."
    )
    max_length: int = Field(256, ge=2, description="Tokens of prompt and response; longer responses are cut.")
    max_prompt_length: int = Field(128, ge=1, description="Tokens of a prompt; rows with longer ones are left out.")
    processes: int | None = Field(None, ge=1, description="Processes that parse spans; null: one per core.")
    cache_dir: Location | None = Field(None, description="Folder of the span cache; null: output_dir/span-cache.")

    @model_validator(mode="after")
    def _room_for_responses(self) -> DataSection:
        if self.max_prompt_length >= self.max_length:
            raise ValueError(
                f"max_prompt_length must be below max_length {self.max_length} (got {self.max_prompt_length})"
            )
        return self


class AlignmentSection(Section):
    """MTA: which spans of which layers are compared, and how much it counts."""

    spans: PluginSection = Field(description="Span extractor.")
    importance: PluginSection = Field(PluginSection(name="attention"), description="Importance estimator.")
    layers: PluginSection = Field(PluginSection(name="proportional"), description="Layer mapper.")
    lambda_dsa: float = Field(2.0, ge=0, description="Weight of dynamic structural alignment; 0 leaves it out.")
    lambda_hid: float = Field(0.2, ge=0, description="Weight of hidden alignment; 0 leaves it out.")
    dsa_reduction: Literal["example", "batch"] = Field(
        "example", description="Divide by the pair weights per text, or once over the micro-batch (authors' code)."
    )
    hid_reduction: Literal["mean", "sum"] = Field("mean", description="Over key layers: mean (authors' code) or sum.")
    projection_learning_rate: float = Field(5e-4, gt=0, description="Learning rate of Hid's linear maps.")

    @model_validator(mode="after")
    def _every_setting_counts(self) -> AlignmentSection:
        if self.lambda_dsa == 0 and self.lambda_hid == 0:
            raise ValueError("lambda_dsa and lambda_hid are both 0: set alignment to null")
        without_effect = []
        if self.lambda_dsa == 0:
            without_effect = ["dsa_reduction"]
        if self.lambda_hid == 0:
            without_effect = ["hid_reduction", "projection_learning_rate"]
        for name in without_effect:
            if name in self.model_fields_set:
                raise ValueError(f"{name} has no effect: its term has weight 0")
        return self


class TrainingSection(Section):
    """The optimiser and its schedule (AdamW)."""

    epochs: int | None = Field(None, ge=1, description="Passes over the training set.")
    max_steps: int | None = Field(None, ge=1, description="Optimiser steps, instead of epochs.")
    batch_size: int = Field(16, ge=1, description="Texts per optimiser step, over all micro-batches and processes.")
    micro_batch_size: int | None = Field(None, ge=1, description="Texts per forward pass; null: batch_size.")
    learning_rate: float = Field(1e-4, gt=0, description="Peak learning rate of the student.")
    weight_decay: float = Field(0.01, ge=0, description="On matrices; not on biases, norms.")
    warmup_ratio: float = Field(0.0, ge=0, lt=1, description="Share of the steps with rising learning rate.")
    schedule: Literal["cosine", "linear", "constant"] = Field("cosine", description="After the warm-up.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are clipped to this norm.")
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="Of the forward pass; weights stay fp32.")
    gradient_checkpointing: bool = Field(False, description="Recompute activations: less memory, more time.")
    save_steps: int | None = Field(None, ge=1, description="Steps between checkpoints; null: one per epoch.")
    keep_checkpoints: int = Field(2, ge=1, description="How many of the latest checkpoints are kept.")
    log_steps: int = Field(10, ge=1, description="Steps between log entries.")
    trackers: list[Literal["tensorboard", "wandb", "mlflow", "trackio"]] = Field(
        ["tensorboard"], description="Where the log goes, besides the run folder."
    )

    @model_validator(mode="after")
    def _length_and_batches(self) -> TrainingSection:
        exactly_one(self, "epochs", "max_steps")
        if self.micro_batch_size is not None and self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"micro_batch_size must divide batch_size {self.batch_size} (got {self.micro_batch_size})"
            )
        return self


class EvaluationSection(Section):
    """Responses are sampled for every data set and seed, and scored."""

    sets: dict[Name, DatasetSection] = Field(min_length=1, description="Data sets by name.")
    models: list[Literal["student", "teacher", "initial_student"]] = Field(
        ["student"], min_length=1, description="Which models: the trained student, its teacher, it before training."
    )
    metrics: list[PluginSection] = Field(
        [PluginSection(name="rouge_l")], min_length=1, description="Metrics, in the order of the table."
    )
    seeds: list[int] = Field([10, 20, 30, 40, 50], min_length=1, description="Sampling seeds.")
    temperature: float = Field(0.7, ge=0, description="Of sampling; 0: greedy.")
    top_p: float = Field(1.0, gt=0, le=1, description="Nucleus sampling.")
    max_prompt_length: int = Field(256, ge=1, description="Tokens of a prompt; longer ones are cut on the left.")
    max_new_tokens: int = Field(512, ge=1, description="Tokens of a response.")
    batch_size: int = Field(32, ge=1, description="Prompts per batch.")

    @model_validator(mode="after")
    def _every_setting_counts(self) -> EvaluationSection:
        for name in ("seeds", "models"):
            values = getattr(self, name)
            if len(set(values)) != len(values):
                raise ValueError(f"{name} repeats a value (got {values})")
        if self.temperature == 0:
            if "top_p" in self.model_fields_set:
                raise ValueError("top_p has no effect at temperature 0")
            if len(self.seeds) > 1:
                raise ValueError(f"greedy decoding gives every seed the same text: give one seed (got {self.seeds})")
        return self


class RunSpec(Section):
    """One run: everything that is needed to repeat it."""

    name: Name = Field(description="Name of the run and of its folder.")
    seed: int = Field(42, ge=0, lt=2**32, description="Of initialisation, data order and dropout.")
    output_dir: Location = Field("runs", description="The run folder is output_dir/name.", validate_default=True)
    teacher: TeacherSection | None = Field(None, description="Null where neither the base loss nor alignment uses one.")
    student: StudentSection = Field(description="The model that is trained.")
    data: DataSection = Field(description="What is trained on.")
    base_loss: PluginSection = Field(description="The loss that MTA is added to.")
    alignment: AlignmentSection | None = Field(None, description="MTA; null: the base loss alone.")
    training: TrainingSection = Field(description="Optimiser and schedule.")
    evaluation: EvaluationSection | None = Field(None, description="Null: train only.")

    @model_validator(mode="after")
    def _teacher_where_needed(self) -> RunSpec:
        if self.teacher is None:
            users = ["alignment"] if self.alignment is not None else []
            if self.student.teacher_layers is not None:
                users.append("student.teacher_layers")
            if self.evaluation is not None and "teacher" in self.evaluation.models:
                users.append("evaluation.models")
            if users:
                raise ValueError(f"{', '.join(users)} needs a teacher (got teacher: null)")
        return self
