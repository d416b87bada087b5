"""FDD: a token-level loss on the output, plus a loss on the trajectory of the distribution through key layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from mta_framework import (
    ATTENDED_TOKENS,
    BaseLoss,
    Batch,
    BatchPolicy,
    LossTerm,
    LossTerms,
    ModelShape,
    PluginChoice,
    PluginParams,
    Progress,
    States,
)

_SHARES = (1 / 3, 1 / 2, 2 / 3)


class _Pair(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    student: int = Field(ge=1, description="1-based layer of the student.")
    teacher: int = Field(ge=1, description="1-based layer of the teacher that it is compared to.")

    def __str__(self) -> str:
        return f"{self.student}->{self.teacher}"


class FDD(BaseLoss):
    """An output loss, plus the distance of the next-token distributions' movement through key layers (FDD).

    Each model's head reads out the hidden states of K key layers at every attended token; p and q are the distributions
    of teacher and student. Per attended token,
    ``fdd = trajectory_weight * trajectory + derivative_weight * derivative``, where ``trajectory`` is the mean over key
    layers of ``KL(p_l || q_l)`` at logits / T, in nats and not multiplied by T^2, and ``derivative`` the mean over
    consecutive key layers of ``1 - cos(log q_(l+1) - log q_l, log p_(l+1) - log p_l)`` at temperature 1. The terms of
    ``output`` are added; its batch policy chooses the training texts.

    Source: the FDD baseline of MTA (arXiv 2605.01374v2) and its authors' code, whose settings are the defaults but for
    the training texts: their runs train on the student's responses too (``output`` with ``batches.policy`` adaptive).
    They set the temperature to 2 when they add MTA. Differences from that code: means are over the attended tokens of
    the global batch, not of each micro-batch; where the distribution does not move between two layers, the cosine is 0
    without gradient.
    """

    NAME = "fdd"
    TITLE = "FDD"

    class Params(PluginParams):
        """Options."""

        output: PluginChoice = Field(
            PluginChoice(name="distillm", params={"batches": {"policy": "fixed"}}),
            description="Loss on the output: any other base loss.",
        )
        layers: tuple[_Pair, ...] | None = Field(
            None,
            min_length=1,
            description="Key layers, as objects with student and teacher; null: the student's at a third, a half and "
            "two thirds of its depth, and the teacher's at the same relative depth.",
        )
        temperature: float = Field(
            5.0, gt=0, description="Temperature T that divides both models' logits in the trajectory."
        )
        trajectory_weight: float = Field(1.0, ge=0, description="Factor on the trajectory; at 0 it is not computed.")
        derivative_weight: float = Field(1.0, ge=0, description="Factor on the derivative; at 0 it is not computed.")
        final_norm: bool = Field(
            False, description="Whether the states of key layers pass the final norm before the head."
        )

        @model_validator(mode="after")
        def _every_setting_counts(self) -> Self:
            if self.trajectory_weight == self.derivative_weight == 0:
                raise ValueError("trajectory_weight and derivative_weight are both 0: only the output loss is left")
            if self.trajectory_weight == 0 and self.temperature != type(self).model_fields["temperature"].default:
                raise ValueError(f"temperature has no effect where trajectory_weight is 0 (got {self.temperature})")
            return self

        @model_validator(mode="after")
        def _layers_make_a_way(self) -> Self:
            pairs = self.layers or ()
            students = [pair.student for pair in pairs]
            repeated = [str(pair) for pair in pairs if students.count(pair.student) > 1]
            if repeated:
                raise ValueError(f"each layer of the student may be listed once (got {', '.join(repeated)})")
            if self.layers is not None and self.derivative_weight > 0 and len(pairs) < 2:
                raise ValueError("layers must name at least 2 pairs, or derivative_weight must be 0 (got 1 pair)")
            return self

    params: Params

    def __init__(self, params: Params, output: BaseLoss):
        super().__init__(params)
        if isinstance(output, FDD):
            raise ValueError("output must be another loss than fdd itself, whose terms have the same names")
        self.output = output
        self.NEEDS_LOG_PROBS = output.NEEDS_LOG_PROBS

    def key_layers(self, student: ModelShape, teacher: ModelShape) -> Sequence[tuple[int, int]]:
        """The pairs of key layers, lowest first, followed by those of the output loss.

        Raises:
            ValueError: A layer lies beyond its model's depth, or the derivative is undefined.
        """
        pairs = self._pairs(student, teacher)
        return [*pairs, *(pair for pair in self.output.key_layers(student, teacher) if pair not in pairs)]

    def compute(self, student: States, teacher: States | None, batch: Batch, progress: Progress) -> LossTerms:
        """Compute the terms of the output loss, and ``fdd`` per attended token.

        Its parts ``fdd_trajectory`` (nats) and ``fdd_derivative`` (1 - cosine) are terms of weight 0, for the log.
        """
        import torch

        from mta_framework import chunked_loss

        assert teacher is not None
        assert student.final_layers is not None
        assert teacher.final_layers is not None
        terms = tuple(self.output.compute(student, teacher, batch, progress))
        params = self.params
        pairs = self._pairs(student.final_layers.shape, teacher.final_layers.shape)
        student_layers, teacher_layers = zip(*pairs, strict=True)
        student_hidden = [student.layers[layer] for layer in student_layers]
        teacher_hidden = [teacher.layers[layer] for layer in teacher_layers]
        position_N, count_N = chunked_loss.distinct_positions(batch, *student_hidden, *teacher_hidden)
        with torch.no_grad(), torch.autocast(position_N.device.type, enabled=False):
            teacher_states = chunked_loss.select_key_layers(teacher, teacher_layers, position_N, params.final_norm)
        student_states = chunked_loss.select_key_layers(student, student_layers, position_N, params.final_norm)
        weights = params.trajectory_weight, params.derivative_weight
        distances = chunked_loss.TrajectoryDistances(params.temperature, *weights)
        total, trajectory, derivative = chunked_loss.trajectory_sums(student_states, teacher_states, distances, count_N)
        parts = {"trajectory": trajectory, "derivative": derivative}
        logged = [name for name in parts if getattr(params, f"{name}_weight") > 0]
        return (
            *terms,
            LossTerm(self.NAME, total, ATTENDED_TOKENS),
            *(LossTerm(f"{self.NAME}_{name}", parts[name], ATTENDED_TOKENS, 0.0) for name in logged),
        )

    def batch_policy(self) -> BatchPolicy | None:
        """The policy of the output loss."""
        return self.output.batch_policy()

    def observe(self, values: Mapping[str, float]) -> None:
        """Pass the values on to the output loss."""
        self.output.observe(values)

    def state(self) -> JsonValue:
        """The state of the output loss."""
        return self.output.state()

    def restore(self, state: JsonValue) -> None:
        """Restore the state of the output loss."""
        self.output.restore(state)

    def _pairs(self, student: ModelShape, teacher: ModelShape) -> list[tuple[int, int]]:
        if self.params.layers is None:
            layers = sorted({max(1, round(share * student.num_layers)) for share in _SHARES})
            ratio = teacher.num_layers / student.num_layers
            pairs = [(layer, max(1, round(layer * ratio))) for layer in layers]
        else:
            pairs = sorted((pair.student, pair.teacher) for pair in self.params.layers)
        _require_within(pairs, student, teacher)
        if self.params.derivative_weight > 0:
            _require_steps(pairs, student)
        return pairs


def _require_within(pairs: Sequence[tuple[int, int]], student: ModelShape, teacher: ModelShape) -> None:
    beyond = [pair for pair in pairs if pair[0] > student.num_layers or pair[1] > teacher.num_layers]
    if beyond:
        raise ValueError(
            f"pairs of layers must lie within the models (got {_labels(beyond)}); expected layers 1 to "
            f"{student.num_layers} of the student and 1 to {teacher.num_layers} of the teacher. Correct these pairs."
        )


def _require_steps(pairs: Sequence[tuple[int, int]], student: ModelShape) -> None:
    """The derivative compares the steps from one key layer to the next."""
    if len(pairs) < 2:
        raise ValueError(
            f"derivative_weight needs at least 2 key layers, but a student of {student.num_layers} layers has 1 by "
            "default; expected at least 2 key layers, or derivative_weight 0. Give layers, or set derivative_weight "
            "to 0."
        )
    still = [pair for pair, below in zip(pairs[1:], pairs, strict=False) if pair[1] == below[1]]
    if still:
        raise ValueError(
            "the teacher's layer must change from one key layer to the next, or the derivative has no direction "
            f"(got {_labels(still)}); expected different layers of the teacher. Give layers, or set derivative_weight "
            "to 0."
        )


def _labels(pairs: Sequence[tuple[int, int]]) -> str:
    return ", ".join(f"{student}->{teacher}" for student, teacher in pairs)
