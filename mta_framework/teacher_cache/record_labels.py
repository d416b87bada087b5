"""What is kept of a teacher, in words."""

from __future__ import annotations

from mta_framework.types import RecordedQuantity

LABELS: dict[RecordedQuantity, str] = {
    "final_states": "final states at supervised positions",
    "attended_states": "states of all tokens",
    "span_token_states": "states of span tokens",
    "span_vectors": "span vectors",
    "geometry": "cosines of spans",
    "change_geometry": "cosines of the changes of spans",
    "token_weights": "weights of span tokens",
    "top_tokens": "likeliest tokens at supervised positions",
}


def record_label(quantity: RecordedQuantity, layer: int, granularity: str) -> str:
    """Describe a kind of records, e.g. ``cosines of spans of layer 24, phrases``.

    Args:
        quantity: What is kept.
        layer: 1-based layer of the teacher; 0 for what belongs to none.
        granularity: Granularity of the spans; empty for what does not depend on spans.
    """
    of_layer = f" of layer {layer}" if layer else ""
    of_spans = f", {granularity}" if granularity else ""
    return f"{LABELS[quantity]}{of_layer}{of_spans}"
