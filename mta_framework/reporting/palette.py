"""The colours of pages and plots, by what they are for: on white paper and on a dark screen."""

from __future__ import annotations

COLOURS = {
    "ink": ("#1c2024", "#e4e7eb"),
    "paper": ("#ffffff", "#14171b"),
    "faint": ("#5b6470", "#9aa3af"),
    "rule": ("#d8dce2", "#343a43"),
    "shade": ("#f2f4f7", "#1d2127"),
    "series-1": ("#2563a8", "#6aabf0"),
    "series-2": ("#bd4b1c", "#f09668"),
    "series-3": ("#7a3e9d", "#c896e8"),
    "series-4": ("#2e7d33", "#7cc481"),
    "series-5": ("#8a6d00", "#d8b94a"),
    "series-6": ("#0d7680", "#5cc3cd"),
}
"""Name -> the colour on white paper and on a dark screen.

Each stands out from ``paper`` by 4.5 to 1 at least, but for rules and shades.
"""

LIGHT, DARK = ({name: pair[side] for name, pair in COLOURS.items()} for side in (0, 1))
INK, FAINT, RULE = LIGHT["ink"], LIGHT["faint"], LIGHT["rule"]
SERIES = tuple(colour for name, colour in LIGHT.items() if name.startswith("series"))

_VIRIDIS = ("#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30", "#fde725")


def series(index: int) -> str:
    """The colour of the line or dot at this index of a legend, from 0, on white paper."""
    return SERIES[index % len(SERIES)]


def heat(share: float) -> str:
    """The colour of a heat map between its lowest value, 0, and its highest, 1: Matplotlib's viridis."""
    position = share * (len(_VIRIDIS) - 1)
    index = min(int(position), len(_VIRIDIS) - 2)
    ends = ([int(colour[at : at + 2], 16) for at in (1, 3, 5)] for colour in _VIRIDIS[index : index + 2])
    mixed = (round(low + (position - index) * (high - low)) for low, high in zip(*ends, strict=True))
    return "#" + "".join(f"{part:02x}" for part in mixed)


def stylesheet() -> str:
    """Custom properties, ``--ink`` and so on, that follow the reader's choice of light or dark; paper is light."""
    light, dark = (" ".join(f"--{name}: {value};" for name, value in side.items()) for side in (LIGHT, DARK))
    screen = "@media screen and (prefers-color-scheme: dark)"
    return f":root {{ color-scheme: light dark; {light} }}\n{screen} {{ :root {{ {dark} }} }}\n"
