"""Hidden MSE: squared distance of the student's states to the teacher's, as they are or behind a projection (OPRD)."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from mta_framework import (
    TEXTS,
    AlignmentTerm,
    Batch,
    KeyLayer,
    ModelShape,
    PluginParams,
    TeacherNeed,
    texts_with_spans,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

_CUTOFF = 1e-10
"""Share of the largest eigenvalue below which a direction of the student's states counts as rounding."""


class HiddenMSE(AlignmentTerm):
    """Squared distance between the student's hidden states and the teacher's, divided by the width (OPRD).

    The value of a text is the mean over its positions of ``||a(h^S_t) - b(h^T_t)||^2 / d``, where d is the width of
    what is compared. ``projection`` says what a and b are: the identity; a trained linear map of the student's states;
    or OPRD's bridge, which is fitted before the first step and then frozen: b projects the teacher's centred states on
    their first principal components, and a is the linear map of the student's states that comes closest to that.
    ``positions`` says which tokens count. With student responses (``on_policy``) as training texts, this is OPRD.

    Source: OPRD (arXiv 2606.06021), Eq. 6 and 12-14, and its authors' code.
    """

    NAME = "hidden_mse"
    TITLE = "Hidden MSE"

    class Params(PluginParams):
        """Options."""

        projection: Literal["linear", "pca", "none"] = Field(
            "linear",
            description="What lies between the two widths: a trained linear map of the student's states, OPRD's frozen "
            "bridge by principal components of the teacher's states, or nothing, which takes equal widths.",
        )
        positions: Literal["all", "spans", "first_k", "last_k"] = Field(
            "all",
            description="Tokens that are compared: all supervised ones, those of spans, or the first or last k "
            "supervised ones of each text.",
        )
        k: int = Field(50, ge=1, le=1_000_000, description="Number of tokens of first_k and last_k.")
        normalise: bool = Field(
            False,
            description="Scale both vectors to length 1 before they are compared, as OPRD does behind its bridge.",
        )
        rank: int = Field(8, ge=1, le=1_000_000, description="Number of principal components of pca.")
        texts: int = Field(
            256, ge=1, le=1_000_000, description="Number of random training texts that the bridge of pca is fitted on."
        )

        @model_validator(mode="after")
        def _every_setting_counts(self) -> Self:
            if self.positions not in ("first_k", "last_k"):
                self._require_default("k", f"positions is {self.positions!r}")
            if self.projection != "pca":
                for name in ("rank", "texts"):
                    self._require_default(name, f"projection is {self.projection!r}")
            return self

        def _require_default(self, name: str, reason: str) -> None:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} has no effect where {reason} (got {getattr(self, name)})")

    params: Params

    @property
    def has_parameters(self) -> bool:
        """Whether the projection is trained."""
        return self.params.projection == "linear"

    @property
    def needs_shared_tokenizer(self) -> bool:
        """True for single tokens; spans exist in any two tokenizers."""
        return self.params.positions != "spans"

    @property
    def num_texts(self) -> int:
        """``texts`` for the bridge."""
        return self.params.texts if self.params.projection == "pca" else 0

    def teacher_needs(self, has_shared_tokenizer: bool) -> Collection[TeacherNeed]:
        """All states; of spans the states and weights of their tokens, or of spans between different tokenizers."""
        if self.params.positions != "spans":
            return ["states"]
        return ("span_tokens", "token_weights") if has_shared_tokenizer else ("span_vectors", "span_weights")

    def unit(self, granularity: str) -> str:
        """Texts that have a position."""
        return texts_with_spans(granularity) if self.params.positions == "spans" else TEXTS

    def make_module(self, student: ModelShape, teacher: ModelShape) -> nn.Module | None:
        """Make the linear map, or the buffers of the bridge.

        Raises:
            ValueError: The widths differ without a projection, or ``rank`` exceeds one of them.
        """
        from torch import nn

        if self.params.projection == "pca":
            return _bridge(self.params.rank, student.hidden_size, teacher.hidden_size)
        if self.params.projection == "linear":
            return nn.Linear(student.hidden_size, teacher.hidden_size)
        if student.hidden_size != teacher.hidden_size:
            widths = f"{student.hidden_size} and {teacher.hidden_size}"
            raise ValueError(
                f"compares states of different widths (got {widths}); expected models of one width, or a projection. "
                "Set projection to linear or pca."
            )
        return None

    def compute(self, layer: KeyLayer, module: nn.Module | None) -> Tensor:
        """Compute the distance at one key layer, summed over the texts with a position."""
        import torch
        from torch.nn import functional

        student_ND, teacher_ND, weight_N = self._rows(layer)
        # In 16 bits the difference of two large states would be lost.
        with torch.autocast(weight_N.device.type, enabled=False):
            if module is not None and self.params.projection == "linear":
                student_ND = module(student_ND)
            elif module is not None:
                student_rD, teacher_rD, mean_D = map(module.get_buffer, ("student_rD", "teacher_rD", "mean_D"))
                student_ND, teacher_ND = student_ND @ student_rD.T, (teacher_ND - mean_D) @ teacher_rD.T
            if self.params.normalise:
                student_ND, teacher_ND = functional.normalize(student_ND), functional.normalize(teacher_ND)
            return (weight_N * (student_ND - teacher_ND).square().mean(-1)).sum()

    def collect(self, layer: KeyLayer, module: nn.Module | None) -> None:
        """Add the moments of both models' states at the positions, weighted as in the distance, in float64."""
        assert module is not None
        student_ND, teacher_ND, weight_N = map(_in_float64, self._rows(layer))
        moments = vars(module).setdefault("moments", {})
        added = {
            "weight": weight_N.sum(),
            "student": weight_N @ student_ND,
            "teacher": weight_N @ teacher_ND,
            "student_student": student_ND.T @ (weight_N[:, None] * student_ND),
            "student_teacher": student_ND.T @ (weight_N[:, None] * teacher_ND),
            "teacher_teacher": teacher_ND.T @ (weight_N[:, None] * teacher_ND),
        }
        for name, value in added.items():
            moments[name] = moments[name] + value if name in moments else value

    def fit(self, module: nn.Module | None) -> None:
        """Set the bridge by the moments.

        Raises:
            ValueError: None of the texts has a position.
        """
        import torch

        assert module is not None
        moments = vars(module).pop("moments", None)
        if moments is None or moments["weight"] == 0:
            raise ValueError(
                f"finds nothing to fit its bridge on (got positions {self.params.positions!r}); expected a token to "
                f"compare in {self.params.texts} training texts. Raise texts, or choose other positions."
            )
        mean_D = moments["teacher"] / moments["weight"]
        covariance_DD = moments["teacher_teacher"] / moments["weight"] - mean_D.outer(mean_D)
        # Eigenvalues ascend.
        components_rD = torch.linalg.eigh(covariance_DD).eigenvectors.T.flip(0)[: self.params.rank]
        products_Dr = (moments["student_teacher"] - moments["student"].outer(mean_D)) @ components_rD.T
        inverse_DD = torch.linalg.pinv(moments["student_student"], rtol=_CUTOFF, hermitian=True)
        bridge = {"mean_D": mean_D, "teacher_rD": components_rD, "student_rD": (inverse_DD @ products_Dr).T}
        for name, value in bridge.items():
            module.get_buffer(name).copy_(value)

    def _rows(self, layer: KeyLayer) -> tuple[Tensor, Tensor, Tensor]:
        """The states to compare of student and teacher, and the weight of each; the weights of a text sum to 1."""
        import torch

        student, teacher = layer.student, layer.teacher
        if self.params.positions != "spans":
            dtype = torch.promote_types(student.hidden_BTD.dtype, torch.float32)
            token_N, weight_N = self._tokens(layer.batch, dtype)
            both = student.hidden_BTD, teacher.hidden_BTD
            student_ND, teacher_ND = (hidden.flatten(0, 1).index_select(0, token_N).to(dtype) for hidden in both)
            return student_ND, teacher_ND, weight_N
        if layer.has_shared_tokenizer:
            return student.span_token_UD, teacher.span_token_UD, teacher.token_weight_U
        return student.span_vector_SD, teacher.span_vector_SD, teacher.span_weight_S

    def _tokens(self, batch: Batch, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Flat positions of the supervised tokens that are compared, and the weight of each.

        Of ``first_k`` and ``last_k`` every text has as many, some of them other tokens of weight 0: the number of those
        that count is known to the device alone.
        """
        import torch

        width = batch.input_ids_BT.shape[1]
        text_N, token_N = batch.text_N, batch.position_N + 1
        count_B = torch.zeros_like(batch.input_ids_BT[:, 0]).index_add(0, text_N, torch.ones_like(text_N))
        if self.params.positions == "all":
            return token_N, count_B.to(dtype).reciprocal().index_select(0, text_N)
        kept_B, end_B = count_B.clamp(max=self.params.k), count_B.cumsum(0)
        first_B = end_B - (count_B if self.params.positions == "first_k" else kept_B)
        step_K = torch.arange(min(self.params.k, width, len(token_N)), device=token_N.device)
        row_BK = (first_B[:, None] + step_K).clamp(max=max(len(token_N) - 1, 0))
        weight_BK = (step_K < kept_B[:, None]).to(dtype) / kept_B.clamp(min=1)[:, None]
        return token_N.index_select(0, row_BK.flatten()), weight_BK.flatten()


def _in_float64(rows: Tensor) -> Tensor:
    """The rows in float64; on the CPU where their device has none."""
    import torch

    from mta_framework.chunked_loss import widest_dtype

    return (rows if widest_dtype(rows.device) == torch.float64 else rows.cpu()).double()


def _bridge(rank: int, student_width: int, teacher_width: int) -> nn.Module:
    import torch
    from torch import nn

    if rank > min(student_width, teacher_width):
        raise ValueError(
            f"has a rank beyond the widths of the models (got {rank}); expected at most "
            f"{min(student_width, teacher_width)}. Lower rank."
        )
    module = nn.Module()
    module.register_buffer("mean_D", torch.zeros(teacher_width))
    module.register_buffer("teacher_rD", torch.zeros(rank, teacher_width))
    module.register_buffer("student_rD", torch.zeros(rank, student_width))
    return module
