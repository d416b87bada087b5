"""What a training logs besides its losses, and the checkpoint that it chose: written by training, read by reports."""

from __future__ import annotations

from dataclasses import dataclass

EVAL = "eval_"
"""Prefix of the name of a quantity on the validation set."""

CROSS_ENTROPY = "cross_entropy"
"""Log entry of each validation: the student's cross-entropy, which is comparable between base losses."""

SHARE_BY_STUDENT = "share_by_student"
"""Log entry: the share of texts since the last entry whose response the student wrote."""

TRAINING_SECONDS = "training_seconds"
"""Log entry of each validation: seconds of all training steps so far, summed over the processes.

Validation, checkpoints and steps that an interruption lost are left out. On a CPU this is processor time, elsewhere
elapsed time.
"""

RESPONSE_HEALTH = {
    "response_length": "length in tokens",
    "response_cut": "share cut off at the limit",
    "response_distinct_2": "distinct bigrams",
    "response_entropy": "entropy in nats",
    "response_top_16_overlap": "overlap of the 16 likeliest tokens with the teacher's",
}
"""Log entries about the student's own responses -> what they are (see ``training.response_health``)."""


TEACHER_LOSS = "loss_"
"""Prefix of the weighted total on the texts of one of several teachers, before the teacher's name."""

_RESERVED = frozenset({"loss", "learning_rate", "grad_norm", "step", "epoch", "total_flos"})
_RESERVED |= {CROSS_ENTROPY, SHARE_BY_STUDENT, TRAINING_SECONDS, *RESPONSE_HEALTH}
_RESERVED_PREFIXES = (EVAL, "train_", TEACHER_LOSS)


def is_reserved(name: str) -> bool:
    """Whether a name is that of a log entry which is no term of a base loss, or may become one."""
    return name in _RESERVED or name.startswith(_RESERVED_PREFIXES)


@dataclass(frozen=True)
class BestCheckpoint:
    """The checkpoint whose student was exported, where that is the best one rather than the last.

    Args:
        metric: Name of the validation loss or metric that it was chosen by.
        step: Number of optimiser steps after which it was written.
        value: Value of the metric then.
        planned_steps: Number of steps of the whole training, had it not stopped early.
    """

    metric: str
    step: int
    value: float
    planned_steps: int
