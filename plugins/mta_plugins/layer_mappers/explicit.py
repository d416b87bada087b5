"""Key layers listed in the spec."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator

from mta_framework import LayerMapper, LayerPair, ModelShape, PluginParams


class _Pair(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    student: int = Field(ge=1, description="1-based layer of the student.")
    teacher: int = Field(ge=1, description="1-based layer of the teacher that it is compared to.")
    granularity: str = Field(
        min_length=1, description="Granularity of the spans that are compared, e.g. words or phrases."
    )


class Explicit(LayerMapper):
    """The key layers that the spec lists."""

    NAME = "explicit"

    class Params(PluginParams):
        """Options."""

        pairs: tuple[_Pair, ...] = Field(
            min_length=1, description="Key layers, as objects with student, teacher and granularity."
        )

        @field_validator("pairs")
        @classmethod
        def _no_repetition(cls, pairs: tuple[_Pair, ...]) -> tuple[_Pair, ...]:
            repeated = sorted({str(_layer_pair(pair)) for pair in pairs if pairs.count(pair) > 1})
            if repeated:
                raise ValueError(f"a pair may be listed once (got twice: {', '.join(repeated)})")
            return pairs

    params: Params

    @property
    def granularities(self) -> tuple[str, ...]:
        """Granularities of the pairs, in the order of the spec."""
        return tuple(dict.fromkeys(pair.granularity for pair in self.params.pairs))

    def map(self, student: ModelShape, teacher: ModelShape) -> list[LayerPair]:
        """Return the pairs of the spec, sorted.

        Raises:
            ValueError: A layer lies beyond its model's depth; every such pair is named.
        """
        pairs = sorted(_layer_pair(pair) for pair in self.params.pairs)
        beyond = [pair for pair in pairs if pair.student > student.num_layers or pair.teacher > teacher.num_layers]
        if beyond:
            raise ValueError(
                f"pairs of layers must lie within the models (got {', '.join(map(str, beyond))}); expected layers "
                f"1 to {student.num_layers} of the student and 1 to {teacher.num_layers} of the teacher. "
                "Correct these pairs."
            )
        return pairs


def _layer_pair(pair: _Pair) -> LayerPair:
    return LayerPair(pair.student, pair.teacher, pair.granularity)
