"""Splits a formula, in LaTeX or plain arithmetic, into tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from mta_framework.spans.segments.arithmetic import CROSS, NUMBER
from mta_framework.spans.segments.segment import Notation
from mta_framework.types import Span

_COMMANDS = """
fraction: frac dfrac tfrac cfrac sfrac binom dbinom tbinom stackrel overset underset
root: sqrt
style: mathbb mathbf mathcal mathfrak mathscr bm boldsymbol vec hat widehat bar tilde widetilde dot ddot
style: overline underline overrightarrow
wrapper: boxed fbox cancel bcancel overbrace underbrace phantom substack mathop mathrel mathbin
function: sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln lg exp abs
function: det dim ker gcd lcm deg arg Pr max min sup inf
sum: sum prod int iint iiint oint lim limsup liminf bigcup bigcap bigoplus bigwedge bigvee
sign: pm mp cup cap setminus oplus ominus lor vee
times: times cdot div ast star circ bullet otimes land wedge bmod mod pmod
relation: eq ne neq le leq leqslant ge geq geqslant lt gt ll gg approx equiv sim simeq cong propto coloneqq
relation: in ni notin subset subseteq supset supseteq perp parallel models
relation: to mapsto rightarrow leftarrow Rightarrow Leftarrow leftrightarrow Leftrightarrow
relation: longrightarrow Longrightarrow implies iff
separator: quad qquad mid newline cr colon therefore because
open: lbrace langle lfloor lceil lvert lVert
close: rbrace rangle rfloor rceil rvert rVert
bar: vert Vert
skipped: displaystyle textstyle limits nolimits nonumber notag hline left right big Big
skipped: cdots ldots dots vdots ddots
"""
_KINDS = {name: kind for kind, names in re.findall(r"^(\w+): (.+)$", _COMMANDS, re.MULTILINE) for name in names.split()}
"""LaTeX command -> kind of its token; any other command is a symbol."""

_CELLS = re.compile(r"matrix|array|cases|tabular")
_CONJUNCTIONS = re.compile(r"\{\s*,?\s*(?:and|or|if|where|for|when|with|then|so|since|otherwise|but|as|is)\b")


def _grammar(name: str) -> re.Pattern[str]:
    """Pattern of the tokens of a formula; ``name`` is the pattern of a name of several letters."""
    return re.compile(
        rf"""
          (?P<skipped> \\(?:[hv]space\*?|label|tag\*?|color|ref|eqref)\s*\{{[^{{}}]*\}} | \\[^A-Za-z{{}}|\\$] )
        | (?P<text> \\(?:text\w*|mbox|mathrm|mathit|mathsf|mathtt|operatorname\*?)\s*\{{[^{{}}]*\}} )
        | (?P<begin> \\begin\s*\{{(?P<opened>\w+\*?)\}}(?:\{{[lcr|\s\d]*\}}|\[[tbc]\])? )
        | (?P<end> \\end\s*\{{\w+\*?\}} )
        | (?P<sized> \\(?P<size>left|right|middle|[bB]igg?[lrm]?)(?![a-zA-Z])\s*(?:\\[{{}}|]|\\[A-Za-z]+|[^\s\\\w]) )
        | (?P<number> (?<=frac)\d | (?<=frac\d)\d | {NUMBER} )
        | (?P<command> \\(?P<called>[A-Za-z]+)\*? )
        | (?P<separator> \\\\(?:\[[^\]]*\])? | [,;:] )
        | (?P<open> [(\[] | \\\{{ ) | (?P<close> [)\]] | \\\}} )
        | (?P<lbrace> \{{ ) | (?P<rbrace> \}} )
        | (?P<bar> \| | \\\| | ‖ )
        | (?P<script> \*\* | [\^_] )
        | (?P<function> (?:sin|cos|tan|log|ln|exp|max|min|gcd|lcm|sqrt|abs)(?![A-Za-z]) )
        | (?P<times> [*×÷/·⋅∙∘] | (?:mod|of)(?![A-Za-z]) | {CROSS} )
        | (?P<name> {name} )
        | (?P<symbol> [A-Za-z\u0370-\u03ff][\u0300-\u036f]* | [^\W\d_²³¹⁰⁴-⁹ⁿ₀-₉]+ | [∞∂∇∅] )
        | (?P<prime> ['′″]+ ) | (?P<below> [₀-₉]+ ) | (?P<above> [²³¹⁰⁴-⁹ⁿ]+ ) | (?P<factorial> !(?!=) )
        | (?P<relation> ==|[=<>!]=|=>|->|<<|>>|[=<>≤≥≠≈≡∼∝∈∉⊂⊆→⇒⇔↦] )
        | (?P<sign> [-+±∓−∪∩] )
        | (?P<sum> [∑∫∏] ) | (?P<root> √ )
        | (?P<ampersand> & )
        """,
        re.VERBOSE | re.DOTALL,
    )


_LATEX = _grammar("[A-Za-z]{4,}")
_TYPED = _grammar("[A-Za-z]{2,}")


class Token(NamedTuple):
    """A token of a formula.

    Args:
        kind: Kind of the token, e.g. ``number`` or ``relation``; see ``formula_tokens``.
        start: Character offset of its start in the whole text.
        end: Character offset of its end, exclusive.
        text: Characters of the token.
    """

    kind: str
    start: int
    end: int
    text: str


def formula_tokens(text: str, inner: Span, notation: Notation) -> list[Token]:
    r"""Split a formula into tokens.

    Kinds: number; symbol and name (a name has several letters); text and conjunction (``\text{...}``); function and sum
    (functions, and operators such as a sum sign, applied to the operand that follows); fraction, root, style and
    wrapper (commands with arguments); script, above, below, prime, factorial (after an operand); times, sign, relation,
    separator; open, close, lbrace, rbrace, begin, end. Spacing and characters of no kind are left out.

    Args:
        text: The whole text.
        inner: Half-open character range of the formula, without delimiters.
        notation: Notation of the formula. In ``latex`` up to three consecutive letters are a symbol each; in
            ``arithmetic`` two or more are a name.

    Returns:
        Tokens in order, disjoint.
    """
    grammar = _TYPED if notation == "arithmetic" else _LATEX
    raw = [Token(_kind(match), *match.span(), match[0]) for match in grammar.finditer(text, *inner)]
    return [token for token in _resolved(raw) if token.kind != "skipped"]


def _kind(match: re.Match[str]) -> str:
    kind = str(match.lastgroup)
    if kind == "command":
        return _KINDS.get(match["called"], "symbol")
    if kind == "text" and _CONJUNCTIONS.search(match[0]):
        return "conjunction"
    if kind != "sized":
        return kind
    size, mark = match["size"], match[0][-1]
    if size == "middle":
        return "separator"
    if size in {"left", "right"}:
        return "open" if size == "left" else "close"
    command = re.search(r"\\([A-Za-z]+)$", match[0])
    known = _KINDS.get(command[1], "skipped") if command else ""
    return known or ("open" if mark in "([{" else "close" if mark in ")]}" else "bar" if mark == "|" else "skipped")


def _resolved(tokens: Sequence[Token]) -> list[Token]:
    """Resolve the kinds of bars and ampersands, which depend on the brackets around them."""
    kinds = [token.kind for token in tokens]
    bars: list[list[int]] = [[]]
    cells = [False]
    for index, token in enumerate(tokens):
        if token.kind in {"open", "lbrace", "begin"}:
            bars.append([])
            cells.append(bool(_CELLS.search(token.text)) if token.kind == "begin" else cells[-1])
        elif token.kind in {"close", "rbrace", "end"} and len(bars) > 1:
            _pair(bars.pop(), kinds)
            cells.pop()
        elif token.kind == "separator":
            _pair(bars[-1], kinds)
            bars[-1] = []
        elif token.kind == "bar":
            bars[-1].append(index)
        elif token.kind == "ampersand":
            kinds[index] = "separator" if cells[-1] else "skipped"
    for level in bars:
        _pair(level, kinds)
    return [token._replace(kind=kind) for token, kind in zip(tokens, kinds, strict=True)]


def _pair(bars: Sequence[int], kinds: list[str]) -> None:
    """An even number of bars opens and closes in turn; an odd number separates: ``{x | x > 0}``."""
    for turn, index in enumerate(bars):
        kinds[index] = "separator" if len(bars) % 2 else "close" if turn % 2 else "open"
