"""Names of what is kept of a teacher, and what is known of one behind a server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

RecordedQuantity = Literal[
    "final_states",
    "attended_states",
    "span_token_states",
    "span_vectors",
    "geometry",
    "change_geometry",
    "token_weights",
    "pair_indices",
    "top_tokens",
]
"""What is kept of a teacher on a text, or on the texts of a batch one after another:

``final_states``: states after the final norm at supervised positions, (N, D). ``attended_states``: states of a layer at
all tokens, (A, D). ``span_token_states``: those of the distinct tokens of spans, (U, D). ``span_vectors``: (S, D).
``geometry``: cosines of the span vectors of each text, the upper triangle row by row, (P,), with one more value at the
end. ``change_geometry``: the same of changes between layers. ``token_weights``: normalised weights of the distinct
tokens of spans, (U,). ``pair_indices``: (3, S) int64, for each span the offset of its text in ``geometry``, its index
in its text, and the number of spans of that. ``top_tokens``: ids of the k likeliest next tokens at supervised
positions, then the bits of their log-probabilities in float32, (N, 2k) int32.
"""


class RecordSlot(NamedTuple):
    """Names one tensor of what is kept of a teacher on a batch.

    Args:
        quantity: What the tensor is.
        layer: 1-based layer of the teacher; 0 for what belongs to none.
        granularity: Granularity of the spans; empty for what does not depend on spans.
        estimator: Fingerprint of the importance estimator that the values depend on; empty without one.
        below: 1-based layer that the changes of spans begin at; 0 for all but ``change_geometry``.
    """

    quantity: RecordedQuantity
    layer: int = 0
    granularity: str = ""
    estimator: str = ""
    below: int = 0


@dataclass(frozen=True)
class TopTokens:
    """The likeliest next tokens of a teacher at each supervised position: all that is known of one behind a server.

    Args:
        id_NK: int64, their ids, each once per position.
        log_prob_NK: float32, their log-probabilities.
        vocabulary: Size of the teacher's vocabulary.
    """

    id_NK: Tensor
    log_prob_NK: Tensor
    vocabulary: int
