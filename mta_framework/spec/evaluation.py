"""The section ``evaluation``: data sets, sampling and metrics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from mta_framework.spec.data import DatasetSection
from mta_framework.spec.document import shown
from mta_framework.spec.effects import affects
from mta_framework.spec.section import (
    Contradiction,
    EngineName,
    Name,
    PluginSection,
    Section,
    Seed,
    expected_temperature,
    plugin_family,
    repeated,
    without_effect,
)

TEACHER_MODEL = r"^teachers\."
"""Pattern of the names of models that are one of several teachers."""

METRIC_CACHE = "metric-cache"
"""Name of the folder for expensive results of metrics, beside the folders of runs and evaluations."""


class ScoringSection(Section):
    """Evaluation: responses are sampled for every data set and seed, and scored."""

    sets: dict[Name, DatasetSection] = Field(
        min_length=1, description="Data sets by name.", examples=[{"test": {"path": "test.jsonl"}}]
    )
    metrics: list[Annotated[PluginSection, Field(json_schema_extra=plugin_family("metrics"))]] = Field(
        [PluginSection(name="rouge_l")],
        min_length=1,
        description="Metrics, in the order of the tables.",
        json_schema_extra=affects("scores"),
    )
    seeds: list[Seed] = Field(
        [10, 20, 30, 40, 50],
        min_length=1,
        description="Sampling seeds; each prompt gets one response per seed.",
        json_schema_extra=affects("scores"),
    )
    temperature: float = Field(
        0.7, ge=0, description="Sampling temperature; 0 means greedy decoding. vllm samples at 0.01 to 2 alone."
    )
    top_p: float = Field(
        1.0, gt=0, le=1, description="Probability mass of nucleus sampling; 1 means the whole distribution."
    )
    max_prompt_length: int = Field(256, ge=1, description="Maximal number of tokens of a prompt.")
    long_prompts: Literal["cut", "refuse"] = Field(
        "cut",
        description="Whether longer prompts are shortened inside what is asked, and counted in the report, or refused.",
        json_schema_extra=affects("nothing"),
    )
    max_new_tokens: int = Field(512, ge=1, description="Maximal number of tokens of a response.")
    strip_reasoning: bool | None = Field(
        None,
        description="Whether metrics see answers without their reasoning block; null: where the chat template has one.",
        json_schema_extra=affects("scores"),
    )
    engine: EngineName = Field(
        "transformers",
        description="Engine that generates responses: transformers, with the model itself; vllm, which must be "
        "installed, with a copy of it in processes of its own.",
    )
    batch_tokens: int = Field(
        24576,
        ge=1,
        description="Number of prompt and response tokens that are held at a time, at least one row.",
        json_schema_extra=affects("nothing"),
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
        if expected := expected_temperature(self.engine, self.temperature):
            problem = f"is none that vllm samples at (got {shown(self.temperature)})"
            hint = "Change it, or set engine to 'transformers'."
            yield Contradiction("temperature", ("temperature", "engine"), problem, f"0, or {expected}", hint)


class EvaluationSection(ScoringSection):
    """Evaluation of a run: its models, data sets, sampling and metrics."""

    models: list[Literal["student", "teacher", "initial_student"] | Annotated[str, Field(pattern=TEACHER_MODEL)]] = (
        Field(
            ["student"],
            min_length=1,
            description="Models that are evaluated: the trained student, its teacher, the student before training; "
            "teachers.NAME is one of several teachers.",
            json_schema_extra=affects("nothing"),
        )
    )

    def contradictions(self) -> Iterator[Contradiction]:
        yield from super().contradictions()
        yield from repeated(self, "models")
