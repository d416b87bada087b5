"""Key layers spread evenly over the upper part of the student."""

from __future__ import annotations

from pydantic import Field, model_validator

from mta_framework import LayerMapper, LayerPair, ModelShape, PluginParams


class Proportional(LayerMapper):
    """Key layers spread evenly up to the last layer, each paired with the teacher's layer at the same relative depth.

    The key layers of the student run from ``round(lowest_depth * n)`` to its last layer ``n``, both included; a single
    key layer is the last one. The lowest compare words, the others phrases. Layer ``l`` is compared to the teacher's
    ``round(l * n_teacher / n)``. The defaults give the paper's layers for GPT-2, 6 (words), 9 and 12 (phrases) of 12;
    its Qwen pair is ``phrases`` 5 with ``lowest_depth`` 14/24.

    Source: MTA (arXiv 2605.01374v2), section 4.
    """

    NAME = "proportional"

    class Params(PluginParams):
        """Options."""

        words: int = Field(
            1, ge=0, le=1000, description="Number of key layers that compare words; they are the lowest ones."
        )
        phrases: int = Field(
            2, ge=0, le=1000, description="Number of key layers that compare phrases, above those of words."
        )
        lowest_depth: float = Field(
            0.5, gt=0, le=1, description="Relative depth of the lowest key layer in the student."
        )

        @model_validator(mode="after")
        def _every_setting_counts(self) -> Proportional.Params:
            if self.words + self.phrases == 0:
                raise ValueError("words and phrases are both 0: at least one key layer is needed")
            spread = self.lowest_depth != type(self).model_fields["lowest_depth"].default
            if self.words + self.phrases == 1 and spread:
                raise ValueError("lowest_depth has no effect on a single key layer, which is the last layer")
            return self

    params: Params

    @property
    def granularities(self) -> tuple[str, ...]:
        """Granularities with at least one key layer."""
        counts = {"words": self.params.words, "phrases": self.params.phrases}
        return tuple(name for name, count in counts.items() if count)

    def map(self, student: ModelShape, teacher: ModelShape) -> list[LayerPair]:
        """Choose evenly spread key layers.

        Raises:
            ValueError: The student has too few layers from ``lowest_depth`` on.
        """
        names = ["words"] * self.params.words + ["phrases"] * self.params.phrases
        lowest = max(1, round(self.params.lowest_depth * student.num_layers))
        room = student.num_layers - lowest + 1
        if len(names) > room:
            raise ValueError(
                f"{len(names)} key layers do not fit into layers {lowest} to {student.num_layers} of the student; "
                f"expected at most {room} key layers. Lower words, phrases or lowest_depth."
            )
        layers = _spread(lowest, student.num_layers, len(names))
        return [
            LayerPair(layer, max(1, round(layer * teacher.num_layers / student.num_layers)), name)
            for layer, name in zip(layers, names, strict=True)
        ]


def _spread(lowest: int, highest: int, count: int) -> list[int]:
    if count == 1:
        return [highest]
    step = (highest - lowest) / (count - 1)
    return [round(lowest + index * step) for index in range(count)]
