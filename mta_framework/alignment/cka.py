"""Linear CKA between layers, by the minibatch estimator."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from mta_framework.errors import Fault, InputError
from mta_framework.types import LayerSimilarity

_LEAST = 4
"""The estimator divides by n - 3."""

Rows = Sequence[Tensor]
"""For each layer of a model what it makes of the same n things: (n, D), D as wide as the layer."""


def linear_cka(minibatches: Iterable[tuple[Rows, Rows]]) -> LayerSimilarity:
    """Centred kernel alignment of all layers of two models (Nguyen, Raghu and Kornblith 2021, arXiv 2010.15327).

    ``CKA(X, Y) = HSIC(X, Y) / sqrt(HSIC(X, X) HSIC(Y, Y))``, each HSIC with linear kernels, by the unbiased estimator
    (Song et al. 2012), and the mean over the minibatches before it is divided: so the value does not depend, but for
    noise, on how large they are. In float64 on the CPU.

    Args:
        minibatches: The student's rows and the teacher's. Those of fewer than 4 things are left out.

    Returns:
        Values from -1 to 1; 0 for a layer that makes the same of all things.

    Raises:
        InputError: No minibatch has 4 things.
    """
    sums: list[Tensor] = []
    for student, teacher in minibatches:
        count = len(student[0])
        if count < _LEAST:
            continue
        student_LP, teacher_LP = _centred(student), _centred(teacher)
        products = student_LP @ teacher_LP.T, student_LP @ student_LP.T, teacher_LP.square().sum(1)
        found = [product / (count * (count - 3)) for product in products]
        sums = [total + part for total, part in zip(sums, found, strict=True)] if sums else found
    if not sums:
        problem = "finds too few spans to compare layers by (got fewer than 4 in every batch of texts)"
        hint = "Take another span extractor, or a layer mapper that measures nothing."
        raise InputError([Fault("alignment.layers", problem, "texts with spans", hint)])
    across, within, teacher_L = sums
    student_L = within.diagonal()
    return LayerSimilarity(_ratios(across, student_L, teacher_L), _ratios(within, student_L, student_L))


def _centred(rows: Rows) -> Tensor:
    """Each layer's kernel without its diagonal, centred so that HSIC is a plain product (Szekely and Rizzo 2014)."""
    # Taking off the mean changes nothing but rounding, where all states point the same way.
    states = [layer_nD.cpu().double() - layer_nD.cpu().double().mean(0) for layer_nD in rows]
    kernel_Lnn = torch.stack([layer_nD @ layer_nD.T for layer_nD in states])
    count = kernel_Lnn.shape[-1]
    kernel_Lnn.diagonal(dim1=1, dim2=2).zero_()
    sum_Ln = kernel_Lnn.sum(2)
    kernel_Lnn -= (sum_Ln[:, :, None] + sum_Ln[:, None, :]) / (count - 2)
    kernel_Lnn += (sum_Ln.sum(1) / ((count - 1) * (count - 2)))[:, None, None]
    kernel_Lnn.diagonal(dim1=1, dim2=2).zero_()
    return kernel_Lnn.flatten(1)


def _ratios(product: Tensor, own: Tensor, other: Tensor) -> tuple[tuple[float, ...], ...]:
    scale = torch.outer(own, other).sqrt()
    return tuple(tuple(row) for row in torch.where(scale > 0, product / scale, 0.0).tolist())
