"""A text with everything that can be shown of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from mta_framework.types import Span


@dataclass(frozen=True)
class AnnotatedText:
    """A text, its spans, and its tokens and weights where they were asked for.

    Args:
        text: Prompt and response.
        spans: Granularity -> character ranges, sorted by start.
        tokens: Character range of each token, without tokens of no characters; None: not asked for.
        tokens_in_spans: Granularity -> number of tokens that lie in some span.
        weights: Granularity -> weight of each character's token, relative to the largest weight of the text.
    """

    text: str
    spans: Mapping[str, Sequence[Span]]
    tokens: Sequence[Span] | None = None
    tokens_in_spans: Mapping[str, int] = field(default_factory=dict)
    weights: Mapping[str, Sequence[float]] = field(default_factory=dict)


def tracks(spans: Sequence[Span]) -> list[list[Span]]:
    """Distribute spans over as few tracks as possible, so that none overlap on a track.

    Args:
        spans: Spans in any order; a span comes before those that it encloses.
    """
    tracks: list[list[Span]] = []
    for span in sorted(spans, key=lambda span: (span[0], -span[1])):
        free = next((track for track in tracks if track[-1][1] <= span[0]), None)
        if free is None:
            tracks.append([span])
        else:
            free.append(span)
    return tracks


def edges(text: AnnotatedText) -> list[int]:
    """Ascending offsets at which anything that is shown begins or ends, both ends of the text included."""
    offsets = {0, len(text.text), *chain.from_iterable(chain.from_iterable(text.spans.values()))}
    offsets |= set(chain.from_iterable(text.tokens or ()))
    for weights in text.weights.values():
        offsets |= {offset for offset in range(1, len(weights)) if weights[offset] != weights[offset - 1]}
    return sorted(offsets)
