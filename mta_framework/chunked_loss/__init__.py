"""Divergences between next-token distributions, from hidden states, without whole logits.

What a base loss needs: choose the supervised positions, and sum a kernel over them::

    student, teacher = supervised(student_states, batch), supervised(teacher_states, batch)
    total = chunked_sum(forward_kl, student, teacher)
"""

from mta_framework.chunked_loss.chunked import Kernel, chunked_sum, chunked_values
from mta_framework.chunked_loss.divergences import cross_entropy, forward_kl, log_softmax, reverse_kl
from mta_framework.chunked_loss.head_inputs import HeadInputs, at, supervised
from mta_framework.chunked_loss.layer_trajectories import KeyStates, distinct_positions, key_states, trajectory_sums
from mta_framework.chunked_loss.mixtures import jensen_shannon, skew_forward_kl, skew_reverse_kl, total_variation
from mta_framework.chunked_loss.trajectories import Trajectories

__all__ = [
    "HeadInputs",
    "Kernel",
    "KeyStates",
    "Trajectories",
    "at",
    "chunked_sum",
    "chunked_values",
    "cross_entropy",
    "distinct_positions",
    "forward_kl",
    "jensen_shannon",
    "key_states",
    "log_softmax",
    "reverse_kl",
    "skew_forward_kl",
    "skew_reverse_kl",
    "supervised",
    "total_variation",
    "trajectory_sums",
]
