"""The page of ``mta spans``: texts with their spans, and statistics of them."""

from __future__ import annotations

from collections.abc import Sequence

from mta_framework.reporting.annotated_text import AnnotatedText
from mta_framework.reporting.page import render
from mta_framework.reporting.span_html import strips
from mta_framework.reporting.span_statistics import Statistics, notes, statistics_table


def spans_page(title: str, texts: Sequence[AnnotatedText], statistics: Statistics) -> str:
    """The page, as HTML.

    Args:
        title: What the texts are of.
        texts: At least one.
        statistics: Counts over these texts, or over more.
    """
    return render(
        "spans.html",
        title=title,
        sections=[],
        strips=strips(texts),
        texts=texts,
        table=statistics_table(statistics),
        notes=list(notes(statistics)),
    )
