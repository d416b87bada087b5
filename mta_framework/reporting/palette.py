"""The colours of pages and figures, by what they are for: on white paper and on a dark screen."""

from __future__ import annotations

LIGHT = {
    "ink": "#1c2024",
    "paper": "#ffffff",
    "faint": "#5b6470",
    "rule": "#d8dce2",
    "shade": "#f2f4f7",
    "series-1": "#2563a8",
    "series-2": "#bd4b1c",
    "series-3": "#7a3e9d",
    "series-4": "#2e7d33",
    "series-5": "#8a6d00",
    "series-6": "#0d7680",
}
DARK = {
    "ink": "#e4e7eb",
    "paper": "#14171b",
    "faint": "#9aa3af",
    "rule": "#343a43",
    "shade": "#1d2127",
    "series-1": "#6aabf0",
    "series-2": "#f09668",
    "series-3": "#c896e8",
    "series-4": "#7cc481",
    "series-5": "#d8b94a",
    "series-6": "#5cc3cd",
}
"""The same names; each stands out from ``paper`` by 4.5 to 1 at least, but for rules and shades."""

INK, FAINT, RULE = LIGHT["ink"], LIGHT["faint"], LIGHT["rule"]
SERIES = tuple(colour for name, colour in LIGHT.items() if name.startswith("series"))


def series(place: int) -> str:
    """The colour of the line, point or bar at this place of a legend, from 0."""
    return SERIES[place % len(SERIES)]


def stylesheet() -> str:
    """Custom properties, ``--ink`` and so on, that follow the reader's choice of light or dark; paper is light."""
    light, dark = (" ".join(f"--{name}: {value};" for name, value in side.items()) for side in (LIGHT, DARK))
    screen = "@media screen and (prefers-color-scheme: dark)"
    return f":root {{ color-scheme: light dark; {light} }}\n{screen} {{ :root {{ {dark} }} }}\n"
