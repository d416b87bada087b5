"""Spans as coloured strips under the text of an HTML page: no script, as many lines of strips as it takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from mta_framework.reporting.annotated_text import AnnotatedText, edges, tracks

_LINE = 4
"""Pixels that a track takes under the text, with the gap to the next."""

_COLOURS = (("#0b7fab", "#57b8dc"), ("#b26a00", "#e5a23c"), ("#8a3fa8", "#c58be0"), ("#2e7d32", "#7cc47f"))
"""By granularity, for its spans in turn: two that touch can be told apart."""


@dataclass(frozen=True)
class Strips:
    """Which lines under a text belong to which granularity; the same for all texts of a page.

    The page has the custom properties ``--shade`` and ``--faint``.

    Args:
        first: Granularity -> its first line.
        depth: Granularity -> how many lines it has.
    """

    first: Mapping[str, int]
    depth: Mapping[str, int]

    def style(self) -> str:
        """CSS for ``paragraph`` and ``controls``."""
        total = sum(self.depth.values())
        strip = "linear-gradient(var(--t{0}, transparent) 0 0) 0 calc(100% - {1}px) / 100% 3px no-repeat"
        strips = ", ".join(strip.format(number, (total - 1 - number) * _LINE) for number in range(total))
        below = total * _LINE
        rules = [
            ".swatch { display: inline-block; width: 1.4em; height: 3px; vertical-align: middle; margin: 0 .3em;",
            "  print-color-adjust: exact; }",
            ".text { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; }",
            f".text {{ line-height: calc(1.6em + {below}px); }}",
            f".s {{ padding-bottom: {below}px; background: {strips};",
            "  background-color: color-mix(in srgb, var(--shade) calc(var(--w, 0) * 100%), transparent);",
            "  print-color-adjust: exact; }",
        ]
        return "\n".join([*rules, *self._colours()])

    def controls(self) -> str:
        """A box to tick for each granularity, which is its legend too."""
        swatch = '<span class="swatch" style="background:{}"></span>'
        return "\n".join(
            f'<label><input type="checkbox" id="show{place}" checked>'
            f"{swatch.format(_COLOURS[place % len(_COLOURS)][0])}{escape(name)}</label>"
            for place, name in enumerate(self.first)
        )

    def paragraph(self, text: AnnotatedText) -> str:
        """One text: cut wherever anything begins or ends, each piece with a class for every span that it lies in."""
        classes: list[list[str]] = [["s"] for _ in text.text]
        for name, spans in text.spans.items():
            for place, track in enumerate(tracks(spans), start=self.first[name]):
                for turn, (start, end) in enumerate(track):
                    for character in range(start, end):
                        classes[character].append(f"t{place}{'ab'[turn % 2]}")
        for start, _ in text.tokens or ():
            classes[start].append("b")
        pieces = [_piece(text, start, end, classes[start]) for start, end in pairwise(edges(text)) if start < end]
        return f'<p class="text" dir="auto">{"".join(pieces)}</p>'

    def _colours(self) -> Iterator[str]:
        for place, name in enumerate(self.first):
            own = range(self.first[name], self.first[name] + self.depth[name])
            for number in own:
                for turn, colour in enumerate(_COLOURS[place % len(_COLOURS)]):
                    yield f".t{number}{'ab'[turn]} {{ --t{number}: {colour}; }}"
            off = " ".join(f"--t{number}: transparent;" for number in own)
            yield f"body:has(#show{place}:not(:checked)) .s {{ {off} }}"


def strips(texts: Sequence[AnnotatedText]) -> Strips:
    """Lines enough for these texts, at least one, which have the same granularities."""
    names = list(texts[0].spans)
    depth = {name: max(1, *(len(tracks(text.spans[name])) for text in texts)) for name in names}
    return Strips({name: sum(depth[other] for other in names[:place]) for place, name in enumerate(names)}, depth)


def _piece(text: AnnotatedText, start: int, end: int, classes: Sequence[str]) -> str:
    content = escape(text.text[start:end])
    weights = ";".join(f"--w{place}:{found[start]:.2f}" for place, found in enumerate(text.weights.values()))
    if len(classes) == 1 and not weights:
        return content
    style = f' style="{weights}"' if weights else ""
    return f'<span class="{" ".join(dict.fromkeys(classes))}"{style}>{content}</span>'
