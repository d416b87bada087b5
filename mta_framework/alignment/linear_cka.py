"""Linear CKA between the layers of two models, by the minibatch estimator."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from mta_framework.errors import Fault, InputError
from mta_framework.types import LayerSimilarity

_FEWEST_ROWS = 4
"""The estimator divides by n - 3."""

Rows = Sequence[Tensor]
"""The representations of the same n items by each layer of a model: one (n, D) per layer, D being its width."""


def linear_cka(minibatches: Iterable[tuple[Rows, Rows]]) -> LayerSimilarity:
    """Compute the linear centred kernel alignment of all layers of two models, in float64 on the CPU.

    ``CKA(X, Y) = HSIC(X, Y) / sqrt(HSIC(X, X) HSIC(Y, Y))`` with linear kernels. Each HSIC is estimated without bias
    and averaged over the minibatches before the division, so that its value does not depend, but for noise, on their
    size.

    Args:
        minibatches: Rows of the student and of the teacher for each minibatch. Those of fewer than 4 items are left
            out.

    Returns:
        Values from -1 to 1; 0 for a layer that represents all items alike.

    Raises:
        InputError: No minibatch has 4 items.

    Source: Nguyen, Raghu and Kornblith 2021 (arXiv 2010.15327); the estimator is that of Song et al. 2012.
    """
    sums: list[Tensor] = []
    for student, teacher in minibatches:
        count = len(student[0])
        if count < _FEWEST_ROWS:
            continue
        student_LP, teacher_LP = _centred(student), _centred(teacher)
        products = student_LP @ teacher_LP.T, student_LP @ student_LP.T, teacher_LP.square().sum(1)
        hsics = [product / (count * (count - 3)) for product in products]
        sums = [total + hsic for total, hsic in zip(sums, hsics, strict=True)] if sums else hsics
    if not sums:
        problem = "has too few spans to compare layers, as every batch of texts has fewer than 4"
        hint = "Take another span extractor, or a layer mapper that measures nothing."
        raise InputError([Fault("alignment.layers", problem, "at least 4 spans in some batch", hint)])
    across, within, teacher_L = sums
    student_L = within.diagonal()
    return LayerSimilarity(_ratios(across, student_L, teacher_L), _ratios(within, student_L, student_L))


def _centred(rows: Rows) -> Tensor:
    """Each layer's kernel without its diagonal, centred so that HSIC is a plain product (Szekely and Rizzo 2014)."""
    # Subtracting the mean changes nothing but rounding, where all states point the same way.
    states = [layer_nD.cpu().double() - layer_nD.cpu().double().mean(0) for layer_nD in rows]
    kernel_Lnn = torch.stack([layer_nD @ layer_nD.T for layer_nD in states])
    count = kernel_Lnn.shape[-1]
    kernel_Lnn.diagonal(dim1=1, dim2=2).zero_()
    sum_Ln = kernel_Lnn.sum(2)
    kernel_Lnn -= (sum_Ln[:, :, None] + sum_Ln[:, None, :]) / (count - 2)
    kernel_Lnn += (sum_Ln.sum(1) / ((count - 1) * (count - 2)))[:, None, None]
    kernel_Lnn.diagonal(dim1=1, dim2=2).zero_()
    return kernel_Lnn.flatten(1)


def _ratios(product: Tensor, row_L: Tensor, column_L: Tensor) -> tuple[tuple[float, ...], ...]:
    scale = torch.outer(row_L, column_L).sqrt()
    return tuple(tuple(row) for row in torch.where(scale > 0, product / scale, 0.0).tolist())
