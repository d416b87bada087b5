"""Guesses the programming language of a segment by its tag and keywords. Languages are named as in tree-sitter."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, get_args

from mta_framework.types import Span

Language = Literal[
    "bash",
    "c",
    "cpp",
    "csharp",
    "css",
    "cuda",
    "dart",
    "dockerfile",
    "elixir",
    "erlang",
    "fortran",
    "go",
    "graphql",
    "groovy",
    "haskell",
    "html",
    "java",
    "javascript",
    "json",
    "julia",
    "kotlin",
    "lua",
    "make",
    "matlab",
    "nix",
    "objc",
    "ocaml",
    "php",
    "powershell",
    "proto",
    "python",
    "r",
    "ruby",
    "rust",
    "scala",
    "scheme",
    "scss",
    "solidity",
    "sql",
    "swift",
    "terraform",
    "toml",
    "tsx",
    "typescript",
    "vue",
    "xml",
    "zig",
]
"""Languages whose tree-sitter grammars cope with degenerate text; those of YAML and Perl do not."""

LANGUAGES: frozenset[str] = frozenset(get_args(Language))

PLAIN_TAGS = frozenset({"text", "txt", "plain", "plaintext", "output"})
"""Tags of fenced blocks that are no code."""

MARKDOWN_TAGS = frozenset({"markdown", "md"})
"""Tags of fenced blocks that may contain fenced blocks."""

STRICT = ("python", "javascript", "java", "c", "cpp", "go", "rust", "json")
"""Languages in which text that is no code has syntax errors; they are tried on code without any cue."""

PERMISSIVE = frozenset({"bash", "css", "html", "php", "ruby"})
"""Languages in which much prose has no syntax errors, so that their absence is no evidence of code."""

_ALIASES = {
    "bash": "sh shell zsh console shellsession",
    "c": "h",
    "cpp": "c++ cc cxx hpp",
    "csharp": "c# cs",
    "dockerfile": "docker",
    "fortran": "f90 f95",
    "go": "golang",
    "haskell": "hs",
    "html": "htm xhtml",
    "javascript": "js jsx mjs cjs node",
    "json": "jsonc json5",
    "julia": "jl",
    "kotlin": "kt",
    "make": "makefile",
    "objc": "objective-c objectivec",
    "ocaml": "ml",
    "powershell": "ps1",
    "python": "py py3 python3 ipython",
    "ruby": "rb",
    "rust": "rs",
    "sql": "mysql postgres postgresql sqlite plsql tsql",
    "typescript": "ts",
    "xml": "svg",
}

_LANGUAGES = {alias: language for language, aliases in _ALIASES.items() for alias in aliases.split()}

_CUES = {
    "python": r"^\s*(?:(?:async )?def \w+\(|class \w+.*:\s*$|import [\w.]+|from [\w.]+ import|print\(|@\w+\s*$|return\b"
    r"|(?:if|elif|for|while|with|except)\b.*:\s*$|(?:else|try):)|^[a-z_]\w* = ",
    "javascript": r"\b(?:const|let|var) [\w{\[][^=\n]{0,60}=|\bfunction\b[^(\n]{0,60}\(|=>|===|console\.\w+\("
    r"|\bdocument\.\w+",
    "typescript": r"\w\??: (?:string|number|boolean|void|any)\b|^\s*(?:export )?interface \w+ \{|\bas const\b",
    "java": r"^import java|^\s*(?:public|private|protected) (?:static |final )*\w+ \w|System\.out\.|\bString\[\]"
    r"|^\s*@Override",
    "c": r"^\s*#\s*(?:include|define|ifn?def)\b|\bprintf\(|\b(?:int|char|void|float|double|\w+_t) \*?\w+[\[(;=, ]"
    r"|\w->\w|^static (?:const |inline )*\w+ ",
    "cpp": r"\bstd::|^#include <\w+>|\bcout\b|^template ?<|\busing namespace\b|^\s*(?:public|private):",
    "csharp": r"^using [\w.]+;|^namespace \w+|Console\.Write|\{ get;|^\s*public (?:static |async |override )*\w+ \w",
    "go": r"^package \w+|^func |:= |\bfmt\.\w+|^import \($|\berr != nil\b",
    "rust": r"\bfn \w+|\blet (?:mut )?\w+[^=\n]{0,60}=|\b(?:println|vec|format)!|^(?:pub |impl|use \w+::|mod |#\[)"
    r"|&(?:mut |str\b)",
    "ruby": r"^\s*end\s*$|^\s*(?:puts|require|attr_\w+|module) |\bdo \|",
    "php": r"<\?php|^\s*\$\w+ ?=|\becho [\"'$]|\$\w+->\w+",
    "bash": r"\A#!.*sh\b|^\s*(?:\$ |fi$|done$|then$|echo |sudo |export \w+=|(?:if|while) \[)|\$\{\w+\}",
    "sql": r"^\s*(?:SELECT\b[^;]{1,300}?\bFROM|INSERT INTO|CREATE (?:TABLE|VIEW|INDEX)|UPDATE \w+ SET|DELETE FROM"
    r"|ALTER TABLE)\b|^\s*(?i:select .+ from|insert into|create table|update \w+ set|delete from)\b.*;\s*$",
    "html": r"(?i:<!doctype html|^\s*</?(?:html|head|body|div|p|ul|table|script|form)\b[^>]*>)",
    "css": r"^[.#@\w][^{}\n;]*\{\s*$|^\s*[\w-]+:\s[^;{}\n]+;\s*$",
    "json": r"\A\s*[\[{]\s*[\"\[{]",
}
_COMPILED = {language: re.compile(pattern, re.MULTILINE) for language, pattern in _CUES.items()}

_CODE_LINE = re.compile(
    r".*(?:[{};(\[]|\):|=>|->)\s*$|\s*(?:#include|#!|//|/\*|@\w|</?\w[^>]*>|[)\]}])"
    r"|\s*(?:def|class|if|elif|else|for|while|try|except|finally|with|async)\b.*:\s*(?:#.*)?$"
    r"|(?:import|from) [\w.]+(?:,| import |;|\s*$)|\s*(?:SELECT|INSERT|UPDATE|DELETE|CREATE|FROM|WHERE|JOIN)\b"
    r"|\s*[\w.\[\]'\"]+(?:: ?[\w\[\], .]+)? ?[-+*/|&%:]{0,2}= ?\S|\s*[\w.]+\(.*\)\s*$"
)
"""A line that begins or ends like a statement, assigns, or is a call."""

_LONGEST_LINE = 2000
"""Characters of a line that are examined: patterns open at both ends are slow on long lines."""


def language_of(tag: str) -> str:
    """Return the language that the tag of a fenced block names: ``{.Py`` and ``py:main.py`` name ``python``.

    Args:
        tag: First word after the opening fence.

    Returns:
        Name of the language; the tag in lower case where it is no known alias; empty without a tag.
    """
    match = re.match(r"[{.]*([\w+#-]*)", tag)
    name = match[1].lower() if match else ""
    return _LANGUAGES.get(name, name)


def candidates(code: str) -> list[str]:
    """Guess the language of code by its keywords and punctuation.

    Args:
        code: Any string.

    Returns:
        At most three languages, the most likely first; empty without any cue.
    """
    counts = {language: len(cue.findall(code)) for language, cue in _COMPILED.items()}
    return sorted((language for language in counts if counts[language]), key=lambda name: -counts[name])[:3]


def code_runs(text: str) -> Iterator[Span]:
    """Find runs of lines that look like code in a text without fences.

    Indented and blank lines inside a run belong to it; any other line ends it.

    Args:
        text: Any string.

    Yields:
        Half-open character ranges, sorted and disjoint, without trailing white space.
    """
    start, end, offset = -1, -1, 0
    for line in text.splitlines(keepends=True):
        looks = _CODE_LINE.match(line.rstrip("\r\n")[:_LONGEST_LINE]) is not None
        if start >= 0 and not looks and line.strip() and not line[0].isspace():
            yield start, end
            start = -1
        elif looks or (start >= 0 and line.strip()):
            start = offset if start < 0 else start
            end = offset + len(line.rstrip())
        offset += len(line)
    if start >= 0:
        yield start, end
