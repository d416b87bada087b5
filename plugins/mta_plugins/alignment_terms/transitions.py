"""Transitions: how hidden states move from one span token of a text to the next, in student and teacher."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from mta_framework import AlignmentTerm, KeyLayer, ModelShape, PluginParams, TeacherNeed

if TYPE_CHECKING:
    from torch import Tensor, nn

_EPSILON = 1e-6


class Transitions(AlignmentTerm):
    """Directions of the moves between neighbouring span tokens, and the angles between these directions.

    For the span tokens t_1 < ... < t_m of a text, the moves are ``h(t_{i+1}) - h(t_i)`` and d_i their directions. The
    value of a text is the mean of two parts. Direction: the mean of ``1 - cos(A d^S_i, d^T_i)``, where A is a trained
    linear map of each key layer, or the identity. Geometry: the mean of ``(d^S_i d^S_j - d^T_i d^T_j)^2`` over all
    pairs i != j of moves within a window of tokens, which needs no map.

    Source: after PHF (arXiv 2606.29340v1), Eq. 4-8; the reference page lists the differences.
    """

    NAME = "transitions"
    TITLE = "transitions"

    class Params(PluginParams):
        """Options."""

        parts: Literal["both", "direction", "geometry"] = Field(
            "both", description="The mean of both parts (PHF), or one alone; geometry has no parameters."
        )
        projection: Literal["linear", "none"] = Field(
            "linear",
            description="What lies between the directions of both models: a trained linear map of the student's, or "
            "nothing (PHF), which takes equal widths.",
        )
        window: int = Field(
            128,
            ge=3,
            le=512,
            description="Number of consecutive span tokens among which moves are compared with each other (geometry).",
        )

        @model_validator(mode="after")
        def _every_setting_counts(self) -> Self:
            for name, parts in (("projection", "geometry"), ("window", "direction")):
                value = getattr(self, name)
                if self.parts == parts and value != type(self).model_fields[name].default:
                    raise ValueError(f"{name} has no effect where parts is {parts!r} (got {value!r})")
            return self

    params: Params

    @property
    def has_parameters(self) -> bool:
        """Whether directions are compared through a linear map, one for each key layer."""
        return self.params.parts != "geometry" and self.params.projection == "linear"

    @property
    def needs_shared_tokenizer(self) -> bool:
        """True: moves are compared token by token."""
        return True

    def teacher_needs(self, has_shared_tokenizer: bool) -> Collection[TeacherNeed]:
        """States of span tokens."""
        return ["span_tokens"]

    def make_module(self, student: ModelShape, teacher: ModelShape) -> nn.Module | None:
        """Make the linear map from the student's width to the teacher's, which needs no bias: moves are differences.

        Raises:
            ValueError: Directions are to be compared without a map, and the widths differ.
        """
        from torch import nn

        widths = student.hidden_size, teacher.hidden_size
        if self.has_parameters:
            return nn.Linear(*widths, bias=False)
        if self.params.parts != "geometry" and widths[0] != widths[1]:
            raise ValueError(
                f"compares directions of different widths (got {widths[0]} and {widths[1]}); expected models of one "
                "width, or a projection. Set projection to linear, or parts to geometry."
            )
        return None

    def compute(self, layer: KeyLayer, module: nn.Module | None) -> Tensor:
        """Compute the term at one key layer, summed over the texts; one with too few span tokens for a part adds 0."""
        import torch

        texts, length = layer.batch.input_ids_BT.shape
        text_U = layer.student.index.token_U // length
        # A move from one text to the next belongs to none, and is kept under the index ``texts``.
        text_N = torch.where(text_U[1:] == text_U[:-1], text_U[1:], texts)
        student_ND, teacher_ND = (side.span_token_UD.diff(dim=0) for side in (layer.student, layer.teacher))
        parts = []
        if self.params.parts != "geometry":
            mapped_ND = student_ND if module is None else module(student_ND).to(teacher_ND.dtype)
            parts.append(_direction(mapped_ND, teacher_ND, text_N, texts))
        if self.params.parts != "direction":
            reach = max(1, min(self.params.window, length) - 2)
            with torch.autocast(student_ND.device.type, enabled=False):
                parts.append(_geometry(student_ND, teacher_ND, text_N, texts, reach))
        return torch.stack(parts).mean()


def _direction(student_ND: Tensor, teacher_ND: Tensor, text_N: Tensor, texts: int) -> Tensor:
    """Mean of 1 - cos over the moves of each text, summed over the texts."""
    from torch.nn import functional

    cosine_N = functional.cosine_similarity(student_ND, teacher_ND, dim=-1, eps=_EPSILON)
    is_move_N = (text_N < texts).to(cosine_N.dtype)
    return (is_move_N * (1 - cosine_N) / _text_totals(is_move_N, text_N, texts)).sum()


def _geometry(student_ND: Tensor, teacher_ND: Tensor, text_N: Tensor, texts: int, reach: int) -> Tensor:
    """Mean of the squared differences between the cosines of moves at most ``reach`` apart, summed over the texts.

    Each block of ``reach`` moves is compared with itself and the block before it, so that no matrix is larger than
    the number of moves times twice ``reach``.
    """
    import torch
    from torch.nn import functional

    from mta_framework.alignment.pairwise_cosines import directions

    padding = reach - len(text_N) % reach  # at least one, so that there is a block
    text_KR = functional.pad(text_N, (0, padding), value=texts).view(-1, reach)
    text_KC = torch.cat([functional.pad(text_KR[:-1], (0, 0, 1, 0), value=texts), text_KR], dim=1)
    distance_RC = reach + torch.arange(reach, device=text_N.device)[:, None]
    distance_RC = distance_RC - torch.arange(2 * reach, device=text_N.device)
    is_pair_KRC = (text_KR[:, :, None] == text_KC[:, None]) & (distance_RC >= 1) & (distance_RC <= reach)
    is_pair_KRC &= (text_KR < texts)[:, :, None]
    pairs_N = is_pair_KRC.sum(2).flatten().to(student_ND.dtype)
    total_N = _text_totals(pairs_N, text_KR.flatten(), texts)

    cosines = []
    for move_ND in (student_ND, teacher_ND):
        direction_ND = functional.pad(directions(move_ND), (0, 0, 0, padding))
        direction_KRD = direction_ND.view(-1, reach, direction_ND.shape[1])
        before_KRR = functional.pad(direction_KRD[1:] @ direction_KRD[:-1].mT, (0, 0, 0, 0, 1, 0))
        cosines.append(torch.cat([before_KRR, direction_KRD @ direction_KRD.mT], dim=2))
    difference_KRC = (cosines[0] - cosines[1]) * is_pair_KRC
    return (difference_KRC.square().sum(2).flatten() / total_N).sum()


def _text_totals(count_N: Tensor, text_N: Tensor, texts: int) -> Tensor:
    """Sum counts over each text, at least 1; return the sum of each row's text."""
    total_B = count_N.new_zeros(texts + 1).index_add(0, text_N, count_N)
    return total_B.clamp_min(1).index_select(0, text_N)
