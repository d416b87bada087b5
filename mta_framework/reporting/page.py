"""Pages that need nothing but themselves: one file, no script, no request."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from mta_framework.reporting.palette import heat, stylesheet
from mta_framework.tables import markdown
from mta_framework.tables.html_text import html_table

_HEAT_STEPS = 32


Plot = tuple[str, Markup]
"""The title of a plot of a page, and its image."""


def render_template(template: str, **values: Any) -> str:
    """Fill a template of this package.

    Args:
        template: File name of the template; text is escaped for HTML or Markdown by its ending, unless it is markup.
        values: The variables of the template; all that it names must be there.
    """
    return _templates(template.rpartition(".")[2]).get_template(template).render(**values)


@functools.cache
def _templates(form: str) -> Environment:
    is_html = form == "html"
    templates = Environment(
        loader=PackageLoader("mta_framework", "reporting/templates"),
        autoescape=is_html,
        finalize=None if is_html else lambda value: value if isinstance(value, Markup) else markdown.escape(str(value)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    if is_html:
        templates.filters |= {"code": _code, "heat": _heat, "html_table": _as_markup(html_table)}
        templates.globals["custom_properties"] = lambda: Markup(stylesheet())
        templates.globals["heat_colours"] = [heat(step / _HEAT_STEPS) for step in range(_HEAT_STEPS + 1)]
    else:
        renderers = (markdown.markdown_table, markdown.sentence, markdown.code_span, markdown.code_block)
        templates.filters |= {renderer.__name__: _as_markup(renderer) for renderer in renderers}
    return templates


def _as_markup(renderer: Callable[..., str]) -> Callable[..., Markup]:
    return lambda *values: Markup(renderer(*values))


def _code(text: str) -> Markup:
    """Set the text between backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _heat(value: float, low: float, high: float) -> Markup:
    """The attributes of a cell of a heat map."""
    if not math.isfinite(value):
        return Markup("")
    step = round((value - low) / (high - low or 1.0) * _HEAT_STEPS)
    return Markup(f' class="h{step}" title="{value:.2f}"')
