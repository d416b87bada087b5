"""Texts with their spans as one HTML page: no script, no other file, light and dark, for narrow screens too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from itertools import pairwise
from string import Template

from mta_framework.inspection.marked import MarkedText, edges, tracks
from mta_framework.inspection.statistics import Statistics, notes, rows

_LINE = 4
"""Pixels that a track takes under the text, with the gap to the next."""

_COLOURS = (("#0b7fab", "#57b8dc"), ("#b26a00", "#e5a23c"), ("#8a3fa8", "#c58be0"), ("#2e7d32", "#7cc47f"))
"""By granularity, for its spans in turn: two that touch can be told apart."""

_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light dark; --ink: #1c2024; --paper: #fff; --faint: #667; --rule: #d8dce2; --shade: #b4bcc8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7eb; --paper: #14171b; --faint: #9aa3af; --rule: #343a43; --shade: #5a6472; }
}
body { margin: 0 auto; padding: 1rem; max-width: 60rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.3rem; overflow-wrap: anywhere; }
h2 { font-size: .85rem; font-weight: 600; color: var(--faint); margin: 2rem 0 .3rem; }
.controls { position: sticky; top: 0; background: var(--paper); border-bottom: 1px solid var(--rule);
  padding: .5rem 0; display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; z-index: 1; }
.swatch { display: inline-block; width: 1.4em; height: 3px; vertical-align: middle; margin: 0 .3em; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .25rem .8rem .25rem 0; text-align: right; border-bottom: 1px solid var(--rule); }
th:first-child, td:first-child { text-align: left; }
.notes { color: var(--faint); font-size: .9rem; }
.text { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; line-height: calc(1.6em + ${depth}px); }
.s { padding-bottom: ${depth}px; background: $strips;
  background-color: color-mix(in srgb, var(--shade) calc(var(--w, 0) * 100%), transparent); }
$rules
</style>
</head>
<body>
<h1>$title</h1>
<div class="scroll"><table>
$table
</table></div>
<p class="notes">$notes</p>
<div class="controls">
$controls
</div>
$texts
</body>
</html>
""")


def page(title: str, texts: Sequence[MarkedText], found: Statistics) -> str:
    """The page.

    Args:
        title: What the texts are of.
        texts: At least one.
        found: What is counted.
    """
    names = list(texts[0].spans)
    depth = {name: max(1, *(len(tracks(text.spans[name])) for text in texts)) for name in names}
    first = {name: sum(depth[other] for other in names[:place]) for place, name in enumerate(names)}
    total = sum(depth.values())
    strip = "linear-gradient(var(--t{0}, transparent) 0 0) 0 calc(100% - {1}px) / 100% 3px no-repeat"
    strips = ", ".join(strip.format(number, (total - 1 - number) * _LINE) for number in range(total))
    blocks = (_block(number, text, first) for number, text in enumerate(texts, start=1))
    return _PAGE.substitute(
        title=escape(title),
        depth=total * _LINE,
        strips=strips,
        rules="\n".join(_rules(names, first, depth, texts[0])),
        table="\n".join(_table(found)),
        notes=" ".join(map(escape, notes(found))),
        controls="\n".join(_controls(names, texts[0])),
        texts="\n".join(blocks),
    )


def _rules(names: Sequence[str], first: dict[str, int], depth: dict[str, int], text: MarkedText) -> Iterator[str]:
    for place, name in enumerate(names):
        own = range(first[name], first[name] + depth[name])
        for number in own:
            for turn, colour in enumerate(_COLOURS[place % len(_COLOURS)]):
                yield f".t{number}{'ab'[turn]} {{ --t{number}: {colour}; }}"
        off = " ".join(f"--t{number}: transparent;" for number in own)
        yield f"body:has(#show{place}:not(:checked)) .s {{ {off} }}"
    yield "body:has(#tokens:checked) .b { box-shadow: -1px 0 var(--faint); }"
    for place, _ in enumerate(text.weights):
        yield f"body:has(#weight{place}:checked) .s {{ --w: var(--w{place}, 0); }}"


def _controls(names: Sequence[str], text: MarkedText) -> Iterator[str]:
    for place, name in enumerate(names):
        swatch = f'<span class="swatch" style="background:{_COLOURS[place % len(_COLOURS)][0]}"></span>'
        yield f'<label><input type="checkbox" id="show{place}" checked>{swatch}{escape(name)}</label>'
    if text.tokens is not None:
        yield '<label><input type="checkbox" id="tokens" checked> tokens</label>'
    for place, name in enumerate(text.weights):
        checked = " checked" if place == 0 else ""
        label = f"weights of {escape(name)}"
        yield f'<label><input type="radio" name="weight" id="weight{place}"{checked}> {label}</label>'
    if text.weights:
        yield '<label><input type="radio" name="weight"> no weights</label>'


def _table(found: Statistics) -> Iterator[str]:
    for number, row in enumerate(rows(found)):
        cell = "td" if number else "th"
        yield f"<tr>{''.join(f'<{cell}>{escape(entry)}</{cell}>' for entry in row)}</tr>"


def _block(number: int, text: MarkedText, first: dict[str, int]) -> str:
    """One text: cut wherever anything begins or ends, each piece with a class for every span that it lies in."""
    classes: list[list[str]] = [["s"] for _ in text.text]
    for name, spans in text.spans.items():
        for place, track in enumerate(tracks(spans), start=first[name]):
            for turn, (start, end) in enumerate(track):
                for character in range(start, end):
                    classes[character].append(f"t{place}{'ab'[turn % 2]}")
    for start, _ in text.tokens or ():
        classes[start].append("b")
    pieces = [_piece(text, start, end, classes[start]) for start, end in pairwise(edges(text)) if start < end]
    return f'<section>\n<h2>text {number}</h2>\n<p class="text" dir="auto">{"".join(pieces)}</p>\n</section>'


def _piece(text: MarkedText, start: int, end: int, classes: Sequence[str]) -> str:
    content = escape(text.text[start:end])
    weights = ";".join(f"--w{place}:{found[start]:.2f}" for place, found in enumerate(text.weights.values()))
    if len(classes) == 1 and not weights:
        return content
    style = f' style="{weights}"' if weights else ""
    return f'<span class="{" ".join(dict.fromkeys(classes))}"{style}>{content}</span>'
