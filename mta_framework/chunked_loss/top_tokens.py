"""Divergences between the student and a teacher of which only the likeliest tokens are known.

k  likeliest tokens of the teacher      C  classes: these, and one for all other tokens, C = k + 1
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from mta_framework.chunked_loss.chunked import Kernel, chunked_sum
from mta_framework.chunked_loss.projection import select_supervised, widest_dtype
from mta_framework.types import Batch, States

_LOWEST = -1e4
"""Logit and log-probability of a token that a model cannot write: 0 in every dtype, with finite differences."""

_LEAST_TAIL = 2.0**-23
"""Least probability of the teacher's class of other tokens: what the sum of rounded float32 probabilities resolves."""

Finish = Callable[..., Tensor]
"""Makes the values of a loss: ``finish(divergences, student_logits, *data) -> values``, all with n rows."""


def divergence_sum(
    divergence: Kernel, student: States, teacher: States, batch: Batch, *data_N: Tensor, finish: Finish | None = None
) -> Tensor:
    """Sum a divergence between teacher and student over the supervised positions.

    It is taken between distributions over the whole vocabulary; or, where ``teacher.top_tokens`` is all that is known,
    between distributions over k + 1 classes: the teacher's k likeliest tokens, and all other tokens together.

    Args:
        divergence: ``divergence(student_logits, teacher_logits) -> (n,)``, a kernel as for ``chunked_sum``; over
            classes it gets the logarithms of their probabilities.
        student: The student's states, which get gradients.
        teacher: The teacher's states; no gradient.
        batch: Micro-batch with the supervised positions.
        data_N: Further arguments of ``finish`` with one row per supervised position.
        finish: Makes the values that are summed from the divergences; it gets the student's logits: over the tokens
            that both models have beside a teacher with logits, over the student's whole vocabulary beside one without.
            None: the divergences are summed as they are.

    Returns:
        Scalar as of ``chunked_sum``.
    """

    def finished(values: Tensor, student_logits: Tensor, data: tuple[Tensor, ...]) -> Tensor:
        return values if finish is None else finish(values, student_logits, *data)

    def on_vocabulary(student_logits: Tensor, teacher_logits: Tensor, *data: Tensor) -> Tensor:
        return finished(divergence(student_logits, teacher_logits), student_logits, data)

    inputs, top = select_supervised(student, batch), teacher.top_tokens
    if top is None:
        return chunked_sum(on_vocabulary, inputs, select_supervised(teacher, batch), *data_N)
    vocabulary = top.vocabulary

    def on_classes(student_logits: Tensor, id_nk: Tensor, log_prob_nk: Tensor, *data: Tensor) -> Tensor:
        classes = class_log_probs(student_logits, id_nk, log_prob_nk, vocabulary)
        return finished(divergence(*classes), student_logits, data)

    return chunked_sum(on_classes, inputs, None, top.id_NK, top.log_prob_NK, *data_N)


def class_log_probs(
    student_logits: Tensor, id_nk: Tensor, log_prob_nk: Tensor, vocabulary: int
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of both models over the k + 1 classes of each position.

    Tokens that only the teacher has belong to the class of all others. The teacher's probability of that class is
    at least 1.2e-7, since the sum of its rounded log-probabilities says no more.

    Args:
        student_logits: The student's logits, (n, V), in at least float32.
        id_nk: int64, the teacher's likeliest tokens, (n, k).
        log_prob_nk: float32, their log-probabilities.
        vocabulary: Size of the teacher's vocabulary.

    Returns:
        log_q_nC, with gradient to the student's logits, and log_p_nC, both in the dtype of these; the class of all
        other tokens is the last.
    """
    missing = max(0, vocabulary - student_logits.shape[-1])
    is_shared = id_nk < student_logits.shape[-1]
    whole = functional.pad(student_logits, (0, missing), value=_LOWEST) if missing else student_logits
    others = whole.scatter(-1, id_nk, _LOWEST).logsumexp(-1, keepdim=True)
    normaliser = whole.logsumexp(-1, keepdim=True)
    log_q_nk = torch.where(is_shared, whole.gather(-1, id_nk) - normaliser, _LOWEST)
    log_q_nC = torch.cat([log_q_nk, others - normaliser], -1)
    log_p_nk = torch.where(is_shared, log_prob_nk, _LOWEST)
    covered = log_p_nk.to(widest_dtype(log_p_nk.device)).exp().sum(-1, keepdim=True)
    tail = (1 - covered).clamp_min(_LEAST_TAIL).log()
    return log_q_nC, torch.cat([log_p_nk.to(tail.dtype), tail], -1).to(log_q_nC.dtype)
