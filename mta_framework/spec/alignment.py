"""The section ``alignment``: spans, key layers and terms of the alignment loss."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from mta_framework.spec.section import (
    Contradiction,
    PluginSection,
    Section,
    Text,
    plugin_family,
)


class TermSection(PluginSection):
    """An alignment term by name, with its weight and options."""

    name: Text = Field(description="Name of an installed alignment term; `mta plugins` lists them.", examples=["dsa"])
    weight: float = Field(gt=0, description="Factor of the term in the loss.", examples=[2.0])


class AlignmentSection(Section):
    """MTA: the spans and layers that are compared, and the weights of its terms."""

    spans: PluginSection = Field(
        description="Span extractor.", examples=[{"name": "words"}], json_schema_extra=plugin_family("span_extractors")
    )
    importance: PluginSection = Field(
        PluginSection(name="attention"),
        description="Importance estimator: weighs the tokens and spans that the terms compare.",
        json_schema_extra=plugin_family("importance_estimators"),
    )
    pooling: Annotated[PluginSection, Field(json_schema_extra=plugin_family("importance_estimators"))] | None = Field(
        None,
        description="Importance estimator whose weights pool the states of a span's tokens; null: that of importance.",
    )
    layers: PluginSection = Field(
        PluginSection(name="proportional"),
        description="Layer mapper.",
        json_schema_extra=plugin_family("layer_mappers"),
    )
    terms: list[Annotated[TermSection, Field(json_schema_extra=plugin_family("alignment_terms"))]] = Field(
        [TermSection(name="dsa", weight=2.0), TermSection(name="hid", weight=0.2)],
        min_length=1,
        description="Alignment terms, each once; by default the two of MTA.",
    )
    projection_learning_rate: float = Field(
        5e-4, gt=0, description="Learning rate of the terms' own parameters, e.g. the linear maps of hid."
    )

    def contradictions(self) -> Iterator[Contradiction]:
        if self.pooling == self.importance:
            problem = f"has no effect: it is that of importance (got {self.importance.name!r})"
            yield Contradiction("pooling", ("pooling", "importance"), problem, "another one, or null", "Remove it.")
        names = [term.name for term in self.terms]
        if len(set(names)) != len(names):
            problem = f"repeats a term (got {', '.join(names)})"
            yield Contradiction("terms", ("terms",), problem, "each term once", "Remove the repetition.")
