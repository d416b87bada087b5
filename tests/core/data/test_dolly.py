"""The data stage on the paper's data sets, up to batches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sides import sides
from transformers import PreTrainedTokenizerFast

from mta_framework.data.batches import GroupedSampler, collate
from mta_framework.data.prompts import render_prompts
from mta_framework.data.records import read_records
from mta_framework.data.tokens import encode
from mta_framework.spans.cache import SpanCache
from mta_framework.spec.data import DatasetSection
from mta_plugins.span_extractors.words import Words


def test_every_evaluation_set_is_read(paper_data: Path) -> None:
    sizes = {"dolly": 500, "self_inst": 242, "vicuna": 80, "sni": 1694}
    for name, size in sizes.items():
        section = DatasetSection(path=str(paper_data / name / "test.jsonl"))
        assert len(read_records(section, f"evaluation.sets.{name}")) == size


def test_words_of_dolly_rows_are_found_again_in_their_tokens(
    paper_data: Path, tmp_path: Path, byte_tokenizer: Callable[..., PreTrainedTokenizerFast]
) -> None:
    section = DatasetSection(path=str(paper_data / "dolly" / "train.jsonl"), limit=150)
    tokenizer = byte_tokenizer()
    samples = render_prompts(read_records(section, "data.train"), "alpaca", tokenizer)
    span_sets = SpanCache(tmp_path, Words(Words.Params()), processes=1).spans([sample.text for sample in samples])
    encoded = encode(samples, span_sets, sides(4000, tokenizer), 3999)
    for sample, spans, example in zip(samples, span_sets, encoded.examples, strict=False):
        ranges = example.spans["words"].tolist()
        if encoded.too_long or len(example.input_ids) == 4000:
            continue
        assert len(ranges) == len(spans["words"])
        for (start, end), (first, last) in zip(spans["words"].tolist(), ranges, strict=True):
            assert tokenizer.decode(example.input_ids[first:last].tolist()).strip() == sample.text[start:end]
    lengths = [len(example.input_ids) for example in encoded.examples]
    (rows, *_) = GroupedSampler(lengths, 16, 16, 1, seed=42)
    batch = collate([encoded.examples[row] for row in rows], 0, ("words",))
    assert batch.attention_mask_BT.sum() == sum(lengths[row] for row in rows)
