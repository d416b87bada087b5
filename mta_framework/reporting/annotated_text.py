"""A text with all that can be shown of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from mta_framework.types import Span


@dataclass(frozen=True)
class AnnotatedText:
    """A text and its spans.

    Args:
        text: Prompt and response.
        spans: Granularity -> character ranges, sorted by start.
        tokens: Character range of each token; None: not asked for. Tokens without characters are left out.
        tokens_in_spans: Granularity -> how many of them lie in some span.
        weights: Granularity -> the importance of each character's token, relative to the weightiest one of the text.
    """

    text: str
    spans: Mapping[str, Sequence[Span]]
    tokens: Sequence[Span] | None = None
    tokens_in_spans: Mapping[str, int] = field(default_factory=dict)
    weights: Mapping[str, Sequence[float]] = field(default_factory=dict)


def tracks(spans: Sequence[Span]) -> list[list[Span]]:
    """Spans on as few tracks as it takes that none overlap on one; enclosing spans come before what they enclose.

    Args:
        spans: In any order.
    """
    found: list[list[Span]] = []
    for span in sorted(spans, key=lambda span: (span[0], -span[1])):
        free = next((track for track in found if track[-1][1] <= span[0]), None)
        if free is None:
            found.append([span])
        else:
            free.append(span)
    return found


def edges(text: AnnotatedText) -> list[int]:
    """Where anything that is shown begins or ends, and both ends of the text: ascending offsets."""
    places = {0, len(text.text), *chain.from_iterable(chain.from_iterable(text.spans.values()))}
    places |= set(chain.from_iterable(text.tokens or ()))
    for weights in text.weights.values():
        places |= {place for place in range(1, len(weights)) if weights[place] != weights[place - 1]}
    return sorted(places)
