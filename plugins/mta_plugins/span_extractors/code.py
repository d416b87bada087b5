"""Words and phrases of source code by tree-sitter."""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from itertools import chain, count, repeat
from typing import TYPE_CHECKING, NamedTuple, cast

from pydantic import Field

from mta_framework import Overlap, PluginChoice, PluginParams, Span, SpanExtractor, SpanSet
from mta_framework.spans.segments import (
    Segment,
    blank_quote_marks,
    code_segments,
    failures_within,
    gaps,
    merged,
    spans_within,
    widest,
)
from mta_framework.spans.segments.languages import (
    LANGUAGES,
    MARKDOWN_TAGS,
    PERMISSIVE,
    PLAIN_TAGS,
    STRICT,
    Language,
    candidates,
    code_runs,
    language_of,
)

if TYPE_CHECKING:
    from tree_sitter import Parser, Tree

_LONGEST = 40
"""Maximum number of words in a phrase; a longer expression is replaced by its parts."""

_UNREADABLE = 0.5
"""Share of a segment in error above which it yields no spans."""

_DOUBTFUL = 0.1
"""Share in error above which a text without fences is not taken for code as a whole."""

_STEPS = 200
_BYTES_PER_STEP = 30
"""Parsing is given up after ``_STEPS`` steps, plus one per ``_BYTES_PER_STEP`` bytes: several times what code takes."""

_CHUNK = 65_536
"""Bytes that the parser reads at once."""

_TABLE_GRAMMARS = frozenset({"bash"})
"""Grammars that look characters up in C's table of 256 classes, and read beyond its end for all others."""

_BEYOND_TABLE = re.compile(r"[^\x00-\xff]")

_HOLDER = re.compile(r"(?:^|_)(?:block|body|suite|statements?|(?<!parameter_)declaration|definition|then|do_group)$")
"""Kinds of nodes that are or contain statements; a node that contains one is compound."""

_FAR = 1_000_000_000
"""Distance to the nearest error above a node where there is none."""

_ASIDE = re.compile(r"comment|modifiers$|(?:^|_)(?:block|body|suite|statements|compound_statement|then|do_group)$")
"""Kinds of nodes that are neither expression nor statement: comments, modifiers, blocks."""

_CALL = re.compile(r"(?:^|_)(?:call|invocation)(?:_expression)?$|^new_expression$|^object_creation_expression$")

_PUNCTUATION = re.compile(r"[()\[\]{},;:.\"'`\\@#]*")
_QUOTED = re.compile(r"([\"'`]+)(.*)\1", re.DOTALL)
_OPENERS = {"", "string_start"}
_OPENING_QUOTE = re.compile(r"[A-Za-z]{0,3}[$#]*[\"'`]+")
_RUN = re.compile(
    r"[^\s!-/:-@\[-^`{-~\u2010-\u205e\u3000-\u303f]+(?:['’.-][^\s!-/:-@\[-^`{-~\u2010-\u205e\u3000-\u303f]+)*"
)
"""A word inside a comment or string: without white space, and with punctuation between two of its parts only."""


class Code(SpanExtractor):
    """Identifiers, literals, keywords and operators of source code, and its expressions, calls and statements.

    Code is the content of fenced Markdown blocks; in a text without fences, the whole text or those lines of it that
    look like code. A block tagged ``text`` or ``markdown`` is no code. The language is that of the block's tag, else
    ``language``, else the one whose grammar reports the fewest errors. All other text goes to ``prose``.

    Words are the tokens of the grammar except brackets, separators and quotes: identifiers, literals, keywords,
    operators. Comments, and strings with white space, are split into their words. Phrases are the outermost expressions
    and the statements that contain no other statement (of compound statements, the parts of the head), and all calls
    inside of them, of 2 to 40 words each. Phrases are nested or disjoint, and contain no syntax error.

    A segment yields no spans and counts as a failure if its tag names no grammar, or if more than half of it is in
    error: the share of characters, comments excluded, in tokens whose parent or grandparent is an error. A block
    without a tag whose language can neither be detected nor is set by ``language`` is read as prose.
    """

    NAME = "code"
    PACKAGES = ("tree-sitter", "tree-sitter-language-pack")
    VERSION = "4"

    class Params(PluginParams):
        """Language of untagged code, and the extractor for other text."""

        language: Language | None = Field(
            None, description="Language of code without a tag; null means the one with the fewest syntax errors."
        )
        prose: PluginChoice = Field(
            PluginChoice(name="words"), description="Span extractor for the text outside of code."
        )

    params: Params

    def __init__(self, params: Params, prose: SpanExtractor):
        super().__init__(params)
        self.prose = prose

    @property
    def granularities(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(["words", "phrases", *self.prose.granularities]))

    def overlap(self, granularity: str) -> Overlap:
        overlaps: dict[str, Overlap] = {"words": "none", "phrases": "nested"}
        kinds = [overlaps.get(granularity, "none")]
        kinds += [self.prose.overlap(granularity)] if granularity in self.prose.granularities else []
        return widest(kinds)

    def fingerprint(self) -> str:
        versions = {package: version(package) for package in self.PACKAGES}
        return json.dumps([super().fingerprint(), versions, self.prose.fingerprint()])

    def require(self) -> str | None:
        pack = _pack_version()
        if not pack:
            return "tree-sitter-language-pack is not installed: pip install 'mta-framework[code]'."
        if not pack.startswith("0."):
            return f"tree-sitter-language-pack {pack} downloads its grammars: pip install 'mta-framework[code]'."
        return None

    def extract(self, texts: Sequence[str]) -> list[SpanSet]:
        readings = [self._read(text) for text in texts]
        prose = spans_within(self.prose, texts, [reading.prose for reading in readings])
        names = self.granularities
        return [
            merged(names, [reading.spans, prose_spans]) for reading, prose_spans in zip(readings, prose, strict=True)
        ]

    def failures(self, texts: Sequence[str]) -> list[int]:
        readings = [self._read(text) for text in texts]
        prose = failures_within(self.prose, texts, [reading.prose for reading in readings])
        return [reading.failures + prose_failures for reading, prose_failures in zip(readings, prose, strict=True)]

    def _read(self, text: str) -> _Reading:
        fenced = _fenced(text)
        parsed, prose = self._blocks(text, fenced) if fenced else self._unfenced(text)
        spans: dict[str, list[Span]] = {"words": [], "phrases": []}
        failures = 0
        for offset, tree in parsed:
            if tree is None or tree.error_share > _UNREADABLE:
                failures += 1
                continue
            for granularity, tree_spans in (("words", tree.words), ("phrases", tree.phrases())):
                spans[granularity] += [(offset + start, offset + end) for start, end in tree_spans]
        return _Reading(spans, prose, failures)

    def _blocks(self, text: str, fenced: Sequence[Segment]) -> tuple[list[_PlacedTree], list[Span]]:
        """Code and prose of a text with fences."""
        trees: list[_PlacedTree] = []
        prose = gaps(text, fenced)
        plain = blank_quote_marks(text, fenced)
        for start, end, tag in _inner(text, fenced):
            code = plain[start:end]
            if not code.strip():
                continue
            grammar = tag or self.params.language
            if tag in PLAIN_TAGS:
                prose.append((start, end))
            elif grammar:
                trees.append((start, _Tree(grammar, code) if grammar in LANGUAGES else None))
            elif (tree := _best(code, dict.fromkeys([*candidates(code), *STRICT]))).error_share > _UNREADABLE:
                prose.append((start, end))
            else:
                trees.append((start, tree))
        return trees, sorted(prose)

    def _unfenced(self, text: str) -> tuple[list[_PlacedTree], list[Span]]:
        """Code and prose of a text without fences."""
        runs = list(code_runs(text))
        whole = self._guess(text, without=PERMISSIVE) if runs or self.params.language else None
        if whole is not None and whole.error_share <= _DOUBTFUL:
            return [(0, whole)], []
        trees = [(run, self._guess(text[slice(*run)])) for run in runs]
        code = [Segment("fenced code", *run, run) for run, tree in trees if tree is not None]
        return [(start, tree) for (start, _), tree in trees if tree is not None], gaps(text, code)

    def _guess(self, code: str, without: Collection[str] = ()) -> _Tree | None:
        detected = [grammar for grammar in candidates(code) if grammar not in without]
        grammars = [self.params.language] if self.params.language else detected
        return _best(code, grammars) if grammars else None


class _Reading(NamedTuple):
    """Spans of the code of a text, ranges of its prose, and the number of segments that could not be parsed."""

    spans: dict[str, list[Span]]
    prose: list[Span]
    failures: int


def _fenced(text: str) -> list[Segment]:
    return [segment for segment in code_segments(text) if segment.notation == "fenced code"]


def _inner(text: str, fenced: Sequence[Segment]) -> Iterator[tuple[int, int, str]]:
    """Content of the blocks with its language; blocks of Markdown are split into their own blocks and text."""
    for segment in fenced:
        (start, end), tag = segment.inner, language_of(segment.tag)
        if tag not in MARKDOWN_TAGS:
            yield start, end, tag
            continue
        blocks = _fenced(text[start:end])
        for block in blocks:
            yield start + block.inner[0], start + block.inner[1], language_of(block.tag)
        for first, last in gaps(text[start:end], blocks):
            yield start + first, start + last, "text"


def _best(code: str, grammars: Iterable[str]) -> _Tree:
    """The tree with the smallest share in error; of several, the first."""
    trees = []
    for grammar in grammars:
        trees.append(_Tree(grammar, code))
        if trees[-1].error_share == 0:
            break
    return min(trees, key=lambda tree: tree.error_share)


class _Tree:
    """A parsed segment of code.

    Attributes:
        error_share: Share of the characters of its tokens that are in error, comments excluded.
        words: Spans of words, sorted, disjoint.
    """

    def __init__(self, grammar: str, code: str):
        self._code = code
        self._nodes = _nodes(grammar, code)
        self.words: list[Span] = []
        tokens = errors = end = 0
        for node in self._nodes:
            if not node.leaf or node.start == node.end:
                continue
            # Text between leaves is that of a string with escapes.
            self.words += chain(_words(code, end, node.start, ""), _words(code, node.start, node.end, node.kind))
            end = node.end
            if "comment" not in node.kind:
                tokens += node.end - node.start
                errors += node.end - node.start if node.below_error <= 2 else 0
        if self._nodes:
            self.words += _words(code, end, len(code), "")
        self.error_share = errors / tokens if tokens else float(not self._nodes)

    def phrases(self) -> list[Span]:
        """Spans of phrases, sorted, nested or disjoint."""
        compound = [False] * len(self._nodes)
        for index in range(len(self._nodes) - 1, 0, -1):
            node = self._nodes[index]
            compound[node.parent] |= compound[index] or _HOLDER.search(node.kind) is not None
        starts = [start for start, _ in self.words]
        inside = [False] * len(self._nodes)
        phrases: dict[Span, Span] = {}
        for index, node in enumerate(self._nodes[1:], start=1):
            inside[index] = inside[node.parent]
            if compound[index] or not node.sound or (inside[index] and not _CALL.search(node.kind)):
                continue
            first, last = bisect_left(starts, node.start), bisect_left(starts, node.end)
            if 2 <= last - first <= _LONGEST:
                inside[index] = True
                # A statement and the call that it consists of have the same words; the statement comes first.
                phrases.setdefault((first, last), self._stripped(node))
        return sorted(phrases.values(), key=lambda phrase: (phrase[0], -phrase[1]))

    def _stripped(self, node: _Node) -> Span:
        # Some grammars count the end of the line as a part of the statement.
        text = self._code[node.start : node.end]
        return node.start + len(text) - len(text.lstrip()), node.end - len(text) + len(text.rstrip())


_PlacedTree = tuple[int, _Tree | None]
"""Character offset of a segment of code, and its tree; None where there is no grammar for it."""


class _Node(NamedTuple):
    """A syntax node in character offsets; ``below_error`` is 0 for an error, 1 for its children, 2 for theirs."""

    kind: str
    start: int
    end: int
    parent: int
    leaf: bool
    below_error: int
    sound: bool


def _nodes(grammar: str, code: str) -> list[_Node]:
    """All nodes in preorder; iterative, since code may nest deeply."""
    if grammar in _TABLE_GRAMMARS:
        code = _BEYOND_TABLE.sub(_latin, code)
    tree = _parse(grammar, code.encode("utf-8", "replace"))
    if tree is None:
        return []
    char_offsets, nodes, parent, cursor = _char_offsets(code), list[_Node](), 0, tree.walk()
    while cursor.node is not None:
        node = cursor.node
        error = 0 if node.is_error else nodes[parent].below_error + 1 if nodes else _FAR
        leaf = node.child_count == 0
        # The kind of an anonymous leaf would be its text.
        kind = node.type if node.is_named else ""
        sound = node.is_named and not leaf and not node.has_error and not _ASIDE.search(node.type)
        nodes.append(
            _Node(kind, char_offsets[node.start_byte], char_offsets[node.end_byte], parent, leaf, error, sound)
        )
        if cursor.goto_first_child():
            parent = len(nodes) - 1
            continue
        while not cursor.goto_next_sibling():
            if not cursor.goto_parent():
                return nodes
            parent = nodes[parent].parent
    return nodes


def _latin(match: re.Match[str]) -> str:
    """A letter, space or symbol of Latin-1 in place of one beyond."""
    return "é" if match[0].isalnum() else " " if match[0].isspace() else "°"


def _parse(grammar: str, code: bytes) -> Tree | None:
    """Parse code; None if error recovery takes too many steps (seconds would depend on the machine)."""
    parser, steps, limit = _parser(grammar), count(), _STEPS + len(code) // _BYTES_PER_STEP
    try:
        return parser.parse(
            lambda offset, _: code[offset : offset + _CHUNK],
            progress_callback=lambda offset, error: next(steps) > limit,
        )
    except ValueError:
        parser.reset()
        return None


def _words(code: str, start: int, end: int, kind: str) -> Iterator[Span]:
    """The words of a token: the token itself, none for punctuation, the words of a comment or string."""
    token = code[start:end].strip()
    if "comment" in kind or len(token.split(None, 1)) > 1:
        yield from (run.span() for run in _RUN.finditer(code, start, end))
    elif not _PUNCTUATION.fullmatch(token) and not (kind in _OPENERS and _OPENING_QUOTE.fullmatch(token)):
        quoted = _QUOTED.fullmatch(token)
        first = code.index(token, start) + (len(quoted[1]) if quoted else 0)
        yield first, first + len(quoted[2] if quoted else token)


def _char_offsets(code: str) -> Sequence[int]:
    """Character offset of each byte in UTF-8, and of the end."""
    if code.isascii():
        return range(len(code) + 1)
    widths = (len(character.encode("utf-8", "replace")) for character in code)
    return [*chain.from_iterable(repeat(index, width) for index, width in enumerate(widths)), len(code)]


def _pack_version() -> str:
    try:
        return version("tree-sitter-language-pack")
    except PackageNotFoundError:
        return ""


@cache
def _parser(grammar: str) -> Parser:
    # Not an attribute of the extractor, so that the extractor can be sent to worker processes.
    from tree_sitter_language_pack import SupportedLanguage, get_parser

    return get_parser(cast("SupportedLanguage", grammar))
