"""Linear CKA of a text's spans, in student and teacher."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Final

from mta_framework import AlignmentTerm, KeyLayer, TeacherNeed, texts_with_spans

if TYPE_CHECKING:
    from torch import Tensor, nn

_FEWEST_SPANS: Final = 4
"""The estimator divides by n - 3."""

_EPSILON = 1e-6

_MOST_ENTRIES: Final = 2**20
"""Most entries of the kernels that are in memory at once, unless one text has more."""


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
        bounds = pairwise(accumulate(layer.spans_per_text, initial=0))
        texts = [slice(start, end) for start, end in bounds if end - start >= _FEWEST_SPANS]
        with torch.autocast(student_SD.device.type, enabled=False):
            values = [student_SD.sum()[None] * 0]  # part of the graph where no text has enough spans
            values += [1 - _cka(student_SD, teacher_SD, group) for group in _groups(texts)]
            return torch.cat(values).sum()


def _groups(texts: Sequence[slice]) -> Iterator[list[slice]]:
    """Neighbouring texts whose kernels, padded to the largest, are no more than so many entries together."""
    group: list[slice] = []
    for text in texts:
        largest = max(one.stop - one.start for one in [*group, text])
        if group and (len(group) + 1) * largest**2 > _MOST_ENTRIES:
            yield group
            group = []
        group.append(text)
    if group:
        yield group


def _cka(student_SD: Tensor, teacher_SD: Tensor, texts: Sequence[slice]) -> Tensor:
    """CKA of the spans of each text, (B,): the cosine between both centred kernels."""
    student_Bnn, teacher_Bnn = _centred_kernels(student_SD, texts), _centred_kernels(teacher_SD, texts)
    # Where all spans are alike kernels are rounding noise: the bound keeps quotient and gradient finite.
    squares = [
        kernel_Bnn.square().sum((1, 2)).clamp_min(_EPSILON**2).sqrt() for kernel_Bnn in (student_Bnn, teacher_Bnn)
    ]
    return (student_Bnn * teacher_Bnn).sum((1, 2)) / (squares[0] * squares[1])


def _centred_kernels(vector_SD: Tensor, texts: Sequence[slice]) -> Tensor:
    """Linear kernels without their diagonal, centred so that HSIC is a plain product (Szekely and Rizzo 2014)."""
    import torch

    from mta_framework.alignment.pairwise_cosines import rows_of_texts

    vector_BnD = rows_of_texts(vector_SD, texts)
    there_Bn = rows_of_texts(vector_SD.new_ones(len(vector_SD)), texts)
    pair_Bnn = there_Bn[:, :, None] * there_Bn[:, None, :]
    pair_Bnn = pair_Bnn * (1 - torch.eye(there_Bn.shape[1], dtype=there_Bn.dtype, device=there_Bn.device))
    count_B = there_Bn.sum(1)
    # Subtracting the mean changes nothing but rounding, where all vectors point the same way.
    centred_BnD = (vector_BnD - vector_BnD.sum(1, keepdim=True) / count_B[:, None, None]) * there_Bn[:, :, None]
    kernel_Bnn = (centred_BnD @ centred_BnD.mT) * pair_Bnn
    row_Bn = kernel_Bnn.sum(2) / (count_B[:, None] - 2)
    mean_B = row_Bn.sum(1) / (count_B - 1)
    return (kernel_Bnn - row_Bn[:, :, None] - row_Bn[:, None, :] + mean_B[:, None, None]) * pair_Bnn
