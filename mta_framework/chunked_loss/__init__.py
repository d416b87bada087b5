"""Losses on next-token distributions, computed from hidden states without whole logits.

A base loss selects the supervised positions and sums a kernel over them, chunk by chunk::

    student, teacher = select_supervised(student_states, batch), select_supervised(teacher_states, batch)
    total = chunked_sum(forward_kl, student, teacher)
"""

from mta_framework.chunked_loss.chunked import Kernel, chunked_sum, chunked_values
from mta_framework.chunked_loss.chunked_trajectories import trajectory_sums
from mta_framework.chunked_loss.divergences import (
    alpha_beta,
    cross_entropy,
    forward_kl,
    log_softmax,
    reverse_kl,
    sampled_reverse_kl,
)
from mta_framework.chunked_loss.key_layer_states import KeyLayerStates, distinct_positions, select_key_layers
from mta_framework.chunked_loss.likelihood_matching import likelihood_matching_sum
from mta_framework.chunked_loss.mixtures import (
    interpolated_cross_entropy,
    jensen_shannon,
    log_alpha_mixture,
    skew_forward_kl,
    skew_reverse_kl,
    total_variation,
)
from mta_framework.chunked_loss.projection import HeadInputs, select_positions, select_supervised, widest_dtype
from mta_framework.chunked_loss.top_tokens import class_log_probs, divergence_sum
from mta_framework.chunked_loss.trajectory_distances import TrajectoryDistances

__all__ = [
    "HeadInputs",
    "Kernel",
    "KeyLayerStates",
    "TrajectoryDistances",
    "alpha_beta",
    "chunked_sum",
    "chunked_values",
    "class_log_probs",
    "cross_entropy",
    "distinct_positions",
    "divergence_sum",
    "forward_kl",
    "interpolated_cross_entropy",
    "jensen_shannon",
    "likelihood_matching_sum",
    "log_alpha_mixture",
    "log_softmax",
    "reverse_kl",
    "sampled_reverse_kl",
    "select_key_layers",
    "select_positions",
    "select_supervised",
    "skew_forward_kl",
    "skew_reverse_kl",
    "total_variation",
    "trajectory_sums",
    "widest_dtype",
]
