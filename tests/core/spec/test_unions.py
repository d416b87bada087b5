"""Alternatives that a field tells apart: faults without pydantic's tags, and fields of all of them in one list."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mta_framework.spec.schema_text import fields_within, phrase, property_at, untagged
from mta_framework.spec.validation_faults import faults_of


class Square(BaseModel):
    model_config = ConfigDict(extra="forbid")
    shape: Literal["square"] = Field("square", description="Four corners.")
    side: int = Field(1, ge=1, description="Of the square.")
    colour: str = Field("red", description="Of the paint.")

    @model_validator(mode="after")
    def _fits(self):
        if self.side > 9:
            raise ValueError("the square is too large for its frame")
        return self


class Circle(BaseModel):
    model_config = ConfigDict(extra="forbid")
    shape: Literal["circle"] = Field("circle", description="No corners.")
    colour: str = Field("red", description="Of the paint.")
    radius: float = Field(description="Of the circle.")


class Dot(BaseModel):
    model_config = ConfigDict(extra="forbid")
    shape: Literal["dot"] = Field("dot", description="Nothing else.")


class Picture(BaseModel):
    model_config = ConfigDict(extra="forbid")
    figure: Annotated[Square | Circle | Dot, Field(discriminator="shape")] = Dot()


SCHEMA = Picture.model_json_schema()


@pytest.mark.parametrize(
    ("figure", "expected"),
    [
        ({"side": 3}, "figure.shape: is missing; expected one of 'square', 'circle', 'dot'. Add it."),
        (
            {"shape": "sqare"},
            "figure.shape: is not one of the choices (got 'sqare'); expected one of 'square', 'circle', 'dot'. "
            "Did you mean 'square'?",
        ),
        (
            {"shape": 4},
            "figure.shape: is not one of the choices (got 4); expected one of 'square', 'circle', 'dot'. "
            "Correct the value.",
        ),
        (
            {"shape": "square", "side": "3"},
            "figure.side: has the wrong type (got '3'); expected an integer >= 1. Remove the quotes.",
        ),
        ({"shape": "circle"}, "figure.radius: is missing; expected a number. Add it."),
        (
            {"shape": "square", "sid": 3},
            "figure.sid: is not an option (got 'sid'); expected one of the options: shape, side, colour. "
            "Did you mean 'side'?",
        ),
        (
            {"shape": "dot", "side": 3},
            "figure.side: is not an option (got 'side'); expected one of the options: shape. Remove it.",
        ),
        (
            {"shape": "square", "side": 10},
            'figure: the square is too large for its frame (got {"shape": "square", "side": 10}); '
            "expected values that fit together. Correct it.",
        ),
        (3, "figure: has the wrong type (got 3); expected an object. Correct the value."),
    ],
)
def test_fault_is_that_of_the_chosen_alternative(figure: object, expected: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        Picture.model_validate_json(json.dumps({"figure": figure}), strict=True)
    faults = faults_of(refusal.value, SCHEMA, lambda key_path: ".".join(map(str, key_path)), "option")
    assert [str(fault) for fault in faults] == [expected]


def test_fields_of_all_alternatives_are_listed_once_and_say_where_they_count() -> None:
    fields = list(fields_within(SCHEMA, SCHEMA["properties"]["figure"]))
    assert [name for name, _, required in fields if required] == ["shape", "radius"]
    assert {name: (phrase(SCHEMA, field), field["description"]) for name, field, _ in fields} == {
        "shape": (
            "one of 'square', 'circle', 'dot'",
            "square: Four corners. circle: No corners. dot: Nothing else.",
        ),
        "side": ("an integer >= 1", "With shape square: Of the square."),
        "colour": ("a string", "With shape square or circle: Of the paint."),
        "radius": ("a number", "With shape circle: Of the circle."),
    }


def test_a_place_leads_to_its_schema_with_and_without_the_tag() -> None:
    for key_path in (("figure", "radius"), ("figure", "circle", "radius")):
        assert (property_at(SCHEMA, key_path) or {})["description"] == "Of the circle."
    assert property_at(SCHEMA, ("figure", "square", "radius")) is None
    assert property_at(SCHEMA, ("figure", "corner")) is None


def test_tags_alone_are_taken_out_of_a_place() -> None:
    assert untagged(SCHEMA, ("figure", "circle", "radius")) == ("figure", "radius")
    assert untagged(SCHEMA, ("figure", "circle", "corner", "circle")) == ("figure", "corner", "circle")
    assert untagged(SCHEMA, ("circle",)) == ("circle",)
