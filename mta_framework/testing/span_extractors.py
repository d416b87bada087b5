"""Contract tests of span extractors."""

from __future__ import annotations

import copy
import json
import random
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, get_args

from mta_framework.interfaces import SpanExtractor
from mta_framework.spans.extraction import extract
from mta_framework.testing.plugin import PluginContract
from mta_framework.types import Overlap, Span, SpanSet

ODD_TEXTS = (
    "",
    " ",
    "\n\r\n\t",
    "Rain.",
    "The old keeper has carefully repaired the broken lamp.\r\nShe didn't know.",
    "日本語のテキストです。",
    "😀👩‍👩‍👧‍👦 e\u0301 \u200b x",
    "\ufeffBegins with a mark, ends\u00a0with\u2028a break\u2029",
    "a" * 10_000,
    "for i in range(10): print(i)",
    "```python\nx = [1, 2\n```\nand\n```\nno end",
    r"So \(x_1 = \frac{a}{b}\), $$y^2 and 3 * 4 = 12 <<3*4=12>>12 cost $5.",
    "مرحبا بالعالم، كيف حالك؟ שלום",
    "1.\n\n2.\n\n\n- one\n- two\n",
)
"""Unusual texts: empty, blank, of one word; other scripts, emoji, byte order marks; code, formulas, lists."""


class SpanExtractorContract(PluginContract):
    """Tests of a span extractor with an installed parser, which the fixture ``plugin`` returns."""

    CONTRACT = SpanExtractor

    def test_it_names_its_granularities(self, plugin: SpanExtractor) -> None:
        assert plugin.granularities
        assert len(set(plugin.granularities)) == len(plugin.granularities)
        assert {plugin.overlap(name) for name in plugin.granularities} <= set(get_args(Overlap))

    def test_spans_are_as_promised_in_texts_of_all_kinds(self, plugin: SpanExtractor) -> None:
        texts = [*ODD_TEXTS, *_mixtures(32)]
        assert len(extract(plugin, texts)) == len(texts)

    def test_no_texts_give_no_spans(self, plugin: SpanExtractor) -> None:
        assert list(plugin.extract([])) == []

    def test_a_text_gives_the_same_spans_alone_among_others_and_again(self, plugin: SpanExtractor) -> None:
        texts = [*ODD_TEXTS, *_mixtures(64 - len(ODD_TEXTS))]
        together = _plain(plugin, texts)
        assert [_plain(plugin, [text])[0] for text in texts] == together
        assert _plain(plugin, texts[::-1])[::-1] == together

    def test_it_travels_to_another_process_after_use(self, plugin: SpanExtractor) -> None:
        texts = ODD_TEXTS[:7]
        before = plugin.extract(texts)
        # A plugin file has no module that a new process could import; a run forks, and so does this then.
        package = type(plugin).__module__.partition(".")[0]
        importable = any(finder.find_spec(package, None) for finder in sys.meta_path)
        with ProcessPoolExecutor(1, mp_context=get_context("spawn" if importable else "fork")) as worker:
            after = worker.submit(plugin.extract, texts).result(timeout=300)
        assert [*map(_pairs, after)] == [*map(_pairs, before)]

    def test_its_fingerprint_is_json_and_stays_the_same(self, plugin: SpanExtractor) -> None:
        unused = copy.deepcopy(plugin)
        plugin.extract(ODD_TEXTS[:5])
        assert plugin.fingerprint() == unused.fingerprint()
        assert json.loads(plugin.fingerprint())


def _plain(extractor: SpanExtractor, texts: Sequence[str]) -> list[dict[str, Any]]:
    return [{name: ranges.tolist() for name, ranges in spans.items()} for spans in extract(extractor, texts)]


def _pairs(spans: SpanSet) -> dict[str, list[Span]]:
    return {name: [(int(start), int(end)) for start, end in ranges] for name, ranges in spans.items()}


def _mixtures(count: int) -> list[str]:
    """Texts joined from pieces of ``ODD_TEXTS``, the same ones every time."""
    source = random.Random(0)
    pieces = [piece for text in ODD_TEXTS for piece in text[:80].split(" ")]
    return [source.choice(" \n").join(source.choices(pieces, k=source.randint(1, 12))) for _ in range(count)]
