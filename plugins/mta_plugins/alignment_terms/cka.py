"""Linear CKA of a text's spans, in student and teacher."""

from __future__ import annotations

from collections.abc import Collection
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Final

from mta_framework import AlignmentTerm, KeyLayer, TeacherNeed, texts_with_spans

if TYPE_CHECKING:
    from torch import Tensor, nn

_FEWEST_SPANS: Final = 4
"""The estimator divides by n - 3."""

_EPSILON = 1e-6


class LinearCKA(AlignmentTerm):
    """One minus the linear centred kernel alignment (CKA) of a text's spans in student and teacher.

    The value of a text is ``1 - HSIC(X, Y) / sqrt(HSIC(X, X) HSIC(Y, Y))``, where X and Y hold the directions of its
    span vectors in student and teacher, and each HSIC is estimated without bias, with linear kernels. It lies between
    0, for directions that differ by a rotation, and 2; it is about 1 for unrelated spans, however few they are, and 1
    where all spans are alike.

    Source: CKA by Kornblith et al. 2019 (arXiv 1905.00414); estimator by Song et al. 2012; directions as in the layer
    mapper of this name.
    """

    NAME = "cka"
    TITLE = "CKA"

    def teacher_needs(self, has_shared_tokenizer: bool) -> Collection[TeacherNeed]:
        """Span vectors."""
        return ["span_vectors"]

    def unit(self, granularity: str) -> str:
        """Texts with at least four spans."""
        return texts_with_spans(granularity, _FEWEST_SPANS)

    def compute(self, layer: KeyLayer, module: nn.Module | None) -> Tensor:
        """Compute 1 - CKA at one key layer, summed over the texts with at least four spans."""
        import torch

        from mta_framework.alignment.pairwise_cosines import directions

        student_SD, teacher_SD = directions(layer.student.span_vector_SD), directions(layer.teacher.span_vector_SD)
        with torch.autocast(student_SD.device.type, enabled=False):
            values = [student_SD.sum() * 0]  # part of the graph where no text has enough spans
            for start, end in pairwise(accumulate(layer.spans_per_text, initial=0)):
                if end - start >= _FEWEST_SPANS:
                    values.append(1 - _cka(student_SD[start:end], teacher_SD[start:end]))
            return torch.stack(values).sum()


def _cka(student_nD: Tensor, teacher_nD: Tensor) -> Tensor:
    """CKA of the spans of one text: the cosine between both centred kernels."""
    student_nn, teacher_nn = _centred_kernel(student_nD), _centred_kernel(teacher_nD)
    # Below the bound, as where all spans are alike, a kernel is rounding noise: it has no gradient there.
    norms = [(kernel_nn * kernel_nn).sum().clamp_min(_EPSILON**2).sqrt() for kernel_nn in (student_nn, teacher_nn)]
    return (student_nn * teacher_nn).sum() / (norms[0] * norms[1])


def _centred_kernel(vector_nD: Tensor) -> Tensor:
    """The linear kernel without its diagonal, centred so that HSIC is a plain product (Szekely and Rizzo 2014)."""
    count = len(vector_nD)
    # Subtracting the mean changes nothing but rounding, where all vectors point the same way.
    vector_nD = vector_nD - vector_nD.mean(0)
    kernel_nn = _without_diagonal(vector_nD @ vector_nD.T)
    row_n = kernel_nn.sum(1) / (count - 2)
    mean = row_n.sum() / (count - 1)
    return _without_diagonal(kernel_nn - row_n[:, None] - row_n + mean)


def _without_diagonal(kernel_nn: Tensor) -> Tensor:
    return kernel_nn - kernel_nn.diagonal().diag_embed()
