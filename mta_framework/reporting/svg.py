"""Figures as SVG within a page: their colours follow the page, their text is text, their ids are theirs alone."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

import matplotlib
from markupsafe import Markup, escape

from mta_framework.reporting.palette import FAINT, LIGHT, RULE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


def dress(axes: Axes, title: str = "", grid: str = "both") -> None:
    """Take away what is not data: no box, faint lines along ``grid`` (an axis, or both)."""
    if title:
        axes.set_title(title, loc="left", fontsize=10)
    axes.tick_params(which="both", labelsize=9, colors=FAINT, length=0)
    axes.grid(axis=grid, color=RULE, linewidth=0.8)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left", "bottom"]].set_visible(False)


def svg(figure: Figure, name: str, told: str) -> Markup:
    """The figure as an element.

    Args:
        figure: Drawn in the light colours of the palette.
        name: A word that no other figure of the page has; the same figure and name give the same text.
        told: What it shows, for those who do not see it.
    """
    content = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(content, format="svg", transparent=True, metadata=_NO_METADATA)
    text = content.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)  # it would speak for the whole page
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(url\(|href=")#', rf"\1#{name}-", text)
    for colour, value in LIGHT.items():
        text = text.replace(value, f"var(--{colour})")
    sized = re.sub(r'(<svg[^>]*?) width="[\d.]+pt"', r"\1", text, count=1)
    sized = re.sub(r'(<svg[^>]*?) height="[\d.]+pt"', r"\1", sized, count=1)
    return Markup(sized.replace("<svg", f'<svg role="img" aria-label="{escape(told)}"', 1))
