"""The extractor code on whole sources: nearly all of their tokens, as others find them, are in words."""

from __future__ import annotations

import io
import re
import tokenize
from importlib.util import find_spec
from pathlib import Path

import pytest

from mta_framework import Span, SpanExtractor
from mta_framework.registry import discover

SOURCES = sorted((Path(__file__).parents[2] / "mta_framework").rglob("*.py"))

SAMPLES = {
    "javascript": """\
export async function load(url, { retries = 3 } = {}) {
  for (let i = 0; i < retries; i += 1) {
    const answer = await fetch(`${url}/items`);
    if (answer.ok && answer.status !== 204) {
      return answer.json().then((rows) => rows.map((row) => row.id * 2));
    }
  }
  return null;
}
""",
    "java": """\
import java.util.List;

public final class Sum {
    private static int total(List<Integer> values) {
        int sum = 0;
        for (int value : values) {
            sum += value >= 0 ? value : -value;
        }
        return sum;
    }
}
""",
    "go": """\
package main

func main() {
\tnames := map[string]int{"a": 1}
\tfor name, count := range names {
\t\tif count != 0 {
\t\t\tfmt.Println(name, count)
\t\t}
\t}
}
""",
    "rust": """\
use std::fmt;

impl fmt::Display for Point {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        let total: i32 = self.values.iter().map(|v| v + 1).sum();
        write!(out, "{}", total)
    }
}
""",
    "c": """\
#include <stdlib.h>

static size_t count(const char *text, int wanted) {
    size_t found = 0;
    while (*text != 0) {
        if (*text++ == wanted) found++;
    }
    return found;
}
""",
}


@pytest.fixture(scope="module")
def extractor() -> SpanExtractor:
    return discover().create("span_extractors", "code")


def tokens_of_python(source: str) -> list[Span]:
    """By Python itself: names, numbers, operators; strings and comments with something to read in them."""
    lines = [0, *(match.end() for match in re.finditer("\n", source))]
    tokens = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        readable = token.type in {tokenize.STRING, tokenize.COMMENT} and re.search(r"\w\w", token.string)
        operator = token.type == tokenize.OP and token.string not in "()[]{},:;.@" and token.string != "..."
        if token.type in {tokenize.NAME, tokenize.NUMBER} or readable or operator:
            tokens.append((lines[token.start[0] - 1] + token.start[1], lines[token.end[0] - 1] + token.end[1]))
    return tokens


def share_covered(tokens: list[Span], words: list[Span]) -> float:
    """Of tokens, those that some word begins or lies in."""
    starts = {index for start, end in words for index in range(start, end)}
    return sum(any(index in starts for index in range(*token)) for token in tokens) / len(tokens)


def test_of_the_tokens_of_this_project_nearly_all_are_in_words(extractor: SpanExtractor) -> None:
    texts = [path.read_text(encoding="utf-8") for path in SOURCES]
    assert len(texts) > 100
    assert sum(extractor.failures(texts)) == 0
    for path, text, span_set in zip(SOURCES, texts, extractor.extract(texts), strict=True):
        tokens = tokens_of_python(text)
        assert not tokens or share_covered(tokens, span_set["words"]) >= 0.95, path
        # A file with a statement has phrases; what has but a docstring of more words has none.
        assert span_set["phrases"] or "import" not in text, path


@pytest.mark.parametrize("language", SAMPLES)
@pytest.mark.parametrize("tagged", [True, False])
def test_of_the_tokens_of_other_languages_nearly_all_are_in_words(
    extractor: SpanExtractor, language: str, tagged: bool
) -> None:
    text = f"```{language}\n{SAMPLES[language]}```" if tagged else SAMPLES[language]
    first = text.index("\n") + 1 if tagged else 0
    # No strings with operators in the samples: all runs of letters, digits and operators count.
    tokens = [match.span() for match in re.finditer(r"[^\W\d]\w*|\d+|[-+*/%=<>!&|?]+", text[first:].strip("`\n"))]
    tokens = [(start + first, end + first) for start, end in tokens]
    (span_set,) = extractor.extract([text])
    assert share_covered(tokens, span_set["words"]) >= 0.95
    assert len(span_set["phrases"]) >= 5
    assert extractor.failures([text]) == [0]


@pytest.mark.parametrize(
    ("suffix", "language"), [("js", "javascript"), ("c", "c"), ("h", "cpp"), ("f90", "fortran"), ("html", "html")]
)
def test_sources_of_installed_packages_are_read_whole_or_not_at_all(
    extractor: SpanExtractor, suffix: str, language: str
) -> None:
    texts = []
    for package in ("numpy", "torch", "matplotlib"):
        paths = sorted(Path(str(find_spec(package).origin)).parent.rglob(f"*.{suffix}"))
        chosen = paths[:: len(paths) // 8 + 1]
        texts += [path.read_text(encoding="utf-8", errors="replace")[:8_000] for path in chosen]
    fenced = [f"~~~~~~{language}\n{text}\n~~~~~~" for text in texts]
    failures = extractor.failures(fenced)
    assert sum(failures) <= len(texts) // 8
    for text, failed, span_set in zip(fenced, failures, extractor.extract(fenced), strict=True):
        words = [match.span() for match in re.finditer(r"[^\W\d_]\w+", text)][1:]
        assert not words or share_covered(words, span_set["words"]) >= (0 if failed else 0.95), text[:80]
