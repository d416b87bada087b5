"""Batches: what is supervised, where spans are, and global batches that do not depend on how they are cut."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mta_framework import (
    ATTENDED_TOKENS,
    TEXTS,
    TEXTS_BY_OTHERS,
    TEXTS_BY_STUDENT,
    TOKENS,
    InputError,
    span_memberships,
    texts_with_span_pairs,
    texts_with_spans,
)
from mta_framework.data.batches import GroupedSampler, collate
from mta_framework.types import Example

PAD = 99


def example(ids: Sequence[int], prompt_length: int, spans: Sequence[tuple[int, int]] = ()) -> Example:
    ranges = np.array(spans, dtype=np.int32).reshape(-1, 2)
    return Example(np.array(ids, dtype=np.int32), prompt_length, {"words": ranges, "phrases": ranges[:1]})


def test_texts_are_padded_on_the_right_and_supervised_from_the_last_token_of_the_prompt() -> None:
    batch = collate([example([5, 6, 7, 8], 2), example([1, 2], 1)], PAD, ())
    assert batch.input_ids_BT.tolist() == [[5, 6, 7, 8], [1, 2, PAD, PAD]]
    assert batch.attention_mask_BT.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch.position_N.tolist() == [1, 2, 4]
    assert batch.target_N.tolist() == [7, 8, 2]
    assert batch.counts == {TOKENS: 3, TEXTS: 2, ATTENDED_TOKENS: 6, TEXTS_BY_STUDENT: 0, TEXTS_BY_OTHERS: 2}
    assert batch.spans == {}
    assert batch.index_B is not None
    assert batch.index_B.tolist() == [-1, -1]
    for tensor in (batch.input_ids_BT, batch.attention_mask_BT, batch.position_N, batch.target_N):
        assert tensor.dtype == torch.int64


def test_padding_that_is_also_the_end_token_is_masked_and_the_end_is_not() -> None:
    batch = collate([example([1, 2, PAD], 1), example([1, PAD], 1)], PAD, ())
    assert batch.attention_mask_BT.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch.target_N.tolist() == [2, PAD, PAD]


def test_texts_by_the_student_are_marked_and_counted_where_they_are_supervised() -> None:
    written = replace(example([1, 2, 3], 1), by_student=True, index=17)
    cut_off = replace(example([4, 5], 2), by_student=True)
    batch = collate([example([6, 7], 1), written, cut_off], PAD, ())
    assert batch.by_student_B is not None
    assert batch.by_student_B.tolist() == [False, True, True]
    assert batch.index_B is not None
    assert batch.index_B.tolist() == [-1, 17, -1]
    assert (batch.counts[TEXTS_BY_STUDENT], batch.counts[TEXTS_BY_OTHERS]) == (1, 1)
    assert batch.text_N.tolist() == [0, 1, 1]
    assert batch.attended_A.tolist() == [0, 1, 3, 4, 5, 6, 7]


def test_log_probabilities_stand_beside_the_tokens_that_were_written_with_them() -> None:
    written = replace(example([1, 2, 3, 4], 2), log_probs=np.array([-0.5], dtype=np.float32))
    batch = collate([example([6, 7], 1), written], PAD, ())
    assert batch.target_N.tolist() == [7, 3, 4]
    assert batch.log_prob_N is not None
    assert batch.log_prob_N.dtype == torch.float32
    assert batch.log_prob_N.isnan().tolist() == [True, False, True]
    assert batch.log_prob_N[1].item() == -0.5
    assert collate([example([6, 7], 1)], PAD, ()).log_prob_N is None


def test_a_batch_in_which_nothing_is_supervised_and_no_span_lies_works() -> None:
    batch = collate([example([1], 0), example([2, 3], 2)], PAD, ("words",))
    assert batch.position_N.shape == batch.target_N.shape == (0,)
    attended = {unit: count for unit, count in batch.counts.items() if count}
    assert attended == {ATTENDED_TOKENS: 3}
    assert {TOKENS, TEXTS, texts_with_spans("words"), texts_with_span_pairs("words")} <= set(batch.counts)
    index = batch.spans["words"]
    assert index.spans_per_text == (0, 0)
    for tensor in (index.token_M, index.span_M, index.text_S, index.token_U):
        assert tensor.shape == (0,)
        assert tensor.dtype == torch.int64
    assert index.multiplicity_U.shape == (0,)
    assert index.multiplicity_U.dtype == torch.float32


def test_spans_are_numbered_text_by_text_and_tokens_flat() -> None:
    examples = [example([1, 2, 3], 1, [(0, 2), (1, 3)]), example([1], 0), example([1, 2], 1, [(1, 2)])]
    batch = collate(examples, PAD, ("words", "phrases"))
    words = batch.spans["words"]
    assert words.token_M.tolist() == [0, 1, 1, 2, 7]
    assert words.span_M.tolist() == [0, 0, 1, 1, 2]
    assert words.text_S.tolist() == [0, 0, 2]
    assert words.token_U.tolist() == [0, 1, 2, 7]
    assert words.multiplicity_U.tolist() == [1, 2, 1, 1]
    assert words.spans_per_text == (2, 0, 1)
    assert batch.spans["phrases"].token_M.tolist() == [0, 1, 7]
    assert batch.counts[texts_with_spans("words")] == 2
    assert batch.counts[texts_with_span_pairs("words")] == 1
    assert batch.counts[texts_with_spans("phrases")] == 2
    assert batch.counts[texts_with_span_pairs("phrases")] == 0
    assert batch.counts[span_memberships("words")] == len(batch.spans["words"].token_M)


@st.composite
def examples(draw: st.DrawFn) -> Example:
    length = draw(st.integers(1, 9))
    edges = st.tuples(st.integers(0, length - 1), st.integers(1, length))
    spans = [edge for edge in draw(st.lists(edges, max_size=5)) if edge[0] < edge[1]]
    return example(draw(st.lists(st.integers(0, 9), min_size=length, max_size=length)), draw(st.integers(0, 9)), spans)


@settings(max_examples=100, deadline=None)
@given(texts=st.lists(examples(), min_size=1, max_size=6))
def test_batches_are_those_of_plain_loops(texts: list[Example]) -> None:
    width = max(len(text.input_ids) for text in texts)
    supervised, memberships, span = [], [], 0
    for row, text in enumerate(texts):
        for position in range(1, len(text.input_ids)):
            if position >= text.prompt_length:
                supervised.append((row * width + position - 1, int(text.input_ids[position])))
        for start, end in text.spans["words"].tolist():
            memberships += [(row * width + token, span) for token in range(start, end)]
            span += 1
    batch = collate(texts, PAD, ("words",))
    assert list(zip(batch.position_N.tolist(), batch.target_N.tolist(), strict=True)) == supervised
    index = batch.spans["words"]
    assert list(zip(index.token_M.tolist(), index.span_M.tolist(), strict=True)) == memberships
    multiplicity = dict(zip(index.token_U.tolist(), index.multiplicity_U.tolist(), strict=True))
    assert multiplicity == Counter(token for token, _ in memberships)


LENGTHS = np.random.default_rng(0).integers(1, 200, size=1003).tolist()


def joined(lists: Sequence[list[int]]) -> list[int]:
    return [entry for entries in lists for entry in entries]


def global_batches(micro: int, world: int, epoch: int = 0, seed: int = 1) -> list[list[int]]:
    """Global batches, put together again from their rounds."""
    sampler = GroupedSampler(LENGTHS, 8, micro, world, seed)
    sampler.set_epoch(epoch)
    rounds = list(sampler)
    assert len(rounds) == len(sampler)
    assert {len(rows) for rows in rounds} == {micro * world}
    per_batch = 8 // (micro * world)
    batches = [joined(rounds[first : first + per_batch]) for first in range(0, len(rounds), per_batch)]
    assert batches == sampler.global_batches(epoch).tolist()
    assert len(batches) == sampler.steps_per_epoch
    return batches


@pytest.mark.parametrize(("micro", "world"), [(1, 1), (2, 1), (4, 1), (4, 2), (1, 2), (2, 4)])
def test_global_batches_do_not_depend_on_how_they_are_cut(micro: int, world: int) -> None:
    assert global_batches(micro, world) == global_batches(8, 1)


def test_an_epoch_holds_every_text_at_most_once_and_leaves_out_less_than_a_batch() -> None:
    rows = joined(global_batches(8, 1))
    assert len(rows) == len(set(rows)) == 1000
    assert len(set(rows) | set(joined(global_batches(8, 1, epoch=1)))) > 1000


def test_epochs_and_seeds_differ_and_repeat() -> None:
    first = global_batches(8, 1)
    assert first == global_batches(8, 1)
    assert first != global_batches(8, 1, epoch=1)
    assert first != global_batches(8, 1, seed=2)
    assert {frozenset(batch) for batch in first} != {frozenset(batch) for batch in global_batches(8, 1, epoch=1)}


def test_batches_hold_texts_of_like_length_in_an_order_that_is_not_by_length() -> None:
    batches = [[LENGTHS[row] for row in batch] for batch in global_batches(8, 1)]
    assert all(batch == sorted(batch) for batch in batches)
    padded = sum(8 * max(batch) for batch in batches)
    assert padded < 1.1 * sum(map(sum, batches))
    longest = [max(batch) for batch in batches]
    assert abs(np.corrcoef(range(len(longest)), longest)[0, 1]) < 0.3


def test_batch_sizes_that_do_not_divide_or_exceed_the_texts_are_input_errors() -> None:
    with pytest.raises(InputError, match=r"training\.batch_size: is no multiple of micro_batch_size 2 times 3"):
        GroupedSampler([1] * 20, 8, 2, 3, 0)
    with pytest.raises(InputError, match=r"training\.batch_size: is more than the 7 texts"):
        GroupedSampler([1] * 7, 8, 2, 1, 0)
    assert len(list(GroupedSampler([1] * 8, 8, 2, 1, 0))) == 4


def test_tokens_that_are_left_out_of_supervision_are_no_targets_and_not_counted() -> None:
    supervised_T = np.array([False, False, True, False, True, True])
    gap = replace(example([5, 6, 7, 8, 9, 4], 2), supervised_T=supervised_T)
    none = replace(example([1, 2, 3], 1), supervised_T=np.zeros(3, dtype=bool))
    batch = collate([gap, none, example([1, 2], 1)], PAD, ())
    assert batch.target_N.tolist() == [7, 9, 4, 2]
    assert batch.position_N.tolist() == [1, 3, 4, 12]
    assert (batch.counts[TOKENS], batch.counts[TEXTS]) == (4, 2)
