"""The page of ``mta spans``: texts with their spans, and statistics of them."""

from __future__ import annotations

from collections.abc import Sequence

from mta_framework.reporting.annotated_text import AnnotatedText
from mta_framework.reporting.page import render
from mta_framework.reporting.span_html import strips
from mta_framework.reporting.span_statistics import SpanStatistics, statistics_notes, statistics_table


def spans_page(title: str, texts: Sequence[AnnotatedText], statistics: SpanStatistics) -> str:
    """The page, as HTML.

    Args:
        title: Title of the page.
        texts: The texts to show, at least one; all have the same granularities.
        statistics: Statistics of these texts, or of more.
    """
    return render(
        "spans.html",
        title=title,
        sections=[],
        strips=strips(texts),
        texts=texts,
        table=statistics_table(statistics),
        notes=list(statistics_notes(statistics)),
    )
