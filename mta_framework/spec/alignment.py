"""The section ``alignment``: MTA's terms."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from mta_framework.spec.section import (
    Contradiction,
    PluginSection,
    Section,
    plugin_family,
    without_effect,
)


class AlignmentSection(Section):
    """MTA: the spans and layers that are compared, and the weights of its terms."""

    spans: PluginSection = Field(
        description="Span extractor.", examples=[{"name": "words"}], json_schema_extra=plugin_family("span_extractors")
    )
    importance: PluginSection = Field(
        PluginSection(name="attention"),
        description="Importance estimator.",
        json_schema_extra=plugin_family("importance_estimators"),
    )
    layers: PluginSection = Field(
        PluginSection(name="proportional"),
        description="Layer mapper.",
        json_schema_extra=plugin_family("layer_mappers"),
    )
    lambda_dsa: float = Field(2.0, ge=0, description="Weight of dynamic structural alignment; 0 leaves it out.")
    lambda_hid: float = Field(0.2, ge=0, description="Weight of hidden alignment; 0 leaves it out.")
    dsa_reduction: Literal["example", "batch"] = Field(
        "example",
        description="Normalise DSA by the pair weights of each text, or once per micro-batch (authors' code).",
    )
    max_spans: int | None = Field(
        None,
        ge=2,
        description="Maximal number of spans of a text in DSA, those with the largest teacher weights; null: all.",
    )
    hid_reduction: Literal["mean", "sum"] = Field(
        "mean", description="Reduction of Hid over key layers: mean (authors' code) or sum."
    )
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
