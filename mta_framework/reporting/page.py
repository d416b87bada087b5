"""Pages that need nothing but themselves: one file, no script, no request."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from mta_framework.reporting.palette import stylesheet


@dataclass(frozen=True)
class Drawing:
    """A figure of a page, its title, and what else belongs to it."""

    title: str
    image: Markup
    note: str = ""


def render(template: str, **values: Any) -> str:
    """The page that a template of this package makes of these values; they are escaped unless they are markup."""
    return _templates().get_template(template).render(**values)


@functools.cache
def _templates() -> Environment:
    found = Environment(
        loader=PackageLoader("mta_framework", "reporting/templates"),
        autoescape=lambda name: name is not None and name.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters["code"] = _code
    found.globals["style"] = lambda: Markup(stylesheet() + _source(found, "style.css"))
    return found


def _source(templates: Environment, name: str) -> str:
    assert templates.loader is not None
    return templates.loader.get_source(templates, name)[0]


def _code(text: str) -> Markup:
    """What stands between backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))
