"""The contract of span extractors."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from mta_framework.interfaces.plugin import Plugin, fingerprint
from mta_framework.types import Overlap, SpanSet


class SpanExtractor(Plugin):
    """Finds the spans of texts.

    Attributes:
        VERSION: Version of the spans, part of the span cache's key. Raise it whenever the same text and options give
            different spans.
    """

    VERSION: ClassVar[str]

    @property
    @abstractmethod
    def granularities(self) -> tuple[str, ...]:
        """The granularities of every span set that ``extract`` returns, e.g. ``("words", "phrases")``."""

    @abstractmethod
    def extract(self, texts: Sequence[str]) -> list[SpanSet]:
        """Find the spans of each text.

        It must be pure: a text gives the same spans alone or among others. It is called in worker processes, so load
        parsers lazily; the framework does the batching.

        Args:
            texts: Any strings, empty ones, emoji and all scripts included.

        Returns:
            One span set per text, with every granularity of ``granularities``. Spans are half-open ``[start, end)``
            character offsets with ``0 <= start < end <= len(text)``, sorted by start, overlapping at most as
            ``overlap`` says, which also tells whether a range may be repeated. A text without spans has empty lists.
        """

    def overlap(self, granularity: str) -> Overlap:
        """Return how two spans of this granularity may overlap within a text; the framework checks it.

        Args:
            granularity: One of ``granularities``.
        """
        return "any"

    def failures(self, texts: Sequence[str]) -> list[int]:
        """Count the segments of each text that cannot be parsed and therefore have no spans.

        It is called beside ``extract``, for statistics, and may parse again. Extractors that can parse anything keep
        the default, zeros.

        Args:
            texts: Strings as for ``extract``.
        """
        return [0] * len(texts)

    def fingerprint(self) -> str:
        """Return as JSON whatever the spans depend on besides the text; cached spans are reused only where it is equal.

        By default that is name, version and options, and the content of a file given by ``-p``. Override it to add the
        versions of a parser and its model, and read them without loading either.
        """
        return fingerprint(self, self.VERSION)
