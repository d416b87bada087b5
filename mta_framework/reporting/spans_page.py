"""Texts with their spans as one HTML page: no script, no other file, light and dark, for narrow screens too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from string import Template

from mta_framework.inspection.span_statistics import Statistics, notes, rows
from mta_framework.reporting.annotated_text import AnnotatedText
from mta_framework.reporting.span_html import Strips, strips

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
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .25rem .8rem .25rem 0; text-align: right; border-bottom: 1px solid var(--rule); }
th:first-child, td:first-child { text-align: left; }
.notes { color: var(--faint); font-size: .9rem; }
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


def page(title: str, texts: Sequence[AnnotatedText], found: Statistics) -> str:
    """The page.

    Args:
        title: What the texts are of.
        texts: At least one.
        found: What is counted.
    """
    marks = strips(texts)
    return _PAGE.substitute(
        title=escape(title),
        rules="\n".join([marks.style(), *_rules(texts[0])]),
        table="\n".join(_table(found)),
        notes=" ".join(map(escape, notes(found))),
        controls="\n".join(_controls(marks, texts[0])),
        texts="\n".join(_block(marks, *numbered) for numbered in enumerate(texts, start=1)),
    )


def _rules(text: AnnotatedText) -> Iterator[str]:
    yield "body:has(#tokens:checked) .b { box-shadow: -1px 0 var(--faint); }"
    for place, _ in enumerate(text.weights):
        yield f"body:has(#weight{place}:checked) .s {{ --w: var(--w{place}, 0); }}"


def _controls(marks: Strips, text: AnnotatedText) -> Iterator[str]:
    yield marks.controls()
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


def _block(marks: Strips, number: int, text: AnnotatedText) -> str:
    return f"<section>\n<h2>text {number}</h2>\n{marks.paragraph(text)}\n</section>"
