"""The contract of span extractors."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from mta_framework.interfaces.plugin import Plugin
from mta_framework.types import (
    Overlap,
    SpanSet,
)


class SpanExtractor(Plugin):
    """Finds the spans of a text.

    Attributes:
        VERSION: Part of the cache key: raise it whenever the same text and options give other spans.
    """

    VERSION: ClassVar[str]

    @property
    @abstractmethod
    def granularities(self) -> tuple[str, ...]:
        """The granularities of every span set that ``extract`` returns, e.g. ``("words", "phrases")``."""

    @abstractmethod
    def extract(self, texts: Sequence[str]) -> list[SpanSet]:
        """Find spans.

        Pure: the same text gives the same spans, alone or among others. Called in worker processes, so load parsers
        lazily; batching and processes are the core's business.

        Args:
            texts: Any strings; empty ones, emoji and any script included.

        Returns:
            One span set per text, with every granularity of ``granularities``; half-open ``[start, end)`` character
            offsets, ``0 <= start < end <= len(text)``, sorted by start, without repetition, lying to each other as
            ``overlap`` promises. A text without spans has empty lists.
        """

    def overlap(self, granularity: str) -> Overlap:
        """How any two spans of this granularity may lie to each other in one text; what is promised is checked."""
        return "any"

    def failures(self, texts: Sequence[str]) -> list[int]:
        """How many stretches of each text cannot be parsed, and therefore yield no spans.

        Asked beside ``extract``, for statistics: it may parse anew. Extractors that can parse anything keep the zeros.

        Args:
            texts: As for ``extract``.
        """
        return [0] * len(texts)

    def fingerprint(self) -> str:
        """What the spans depend on besides the text, as JSON: cached spans are used again only where it is the same.

        Override it to add the versions of a parser and its model, reading them without loading either.
        """
        options = self.params.model_dump(mode="json")
        return json.dumps({"name": self.NAME, "version": self.VERSION, "params": options}, sort_keys=True)
