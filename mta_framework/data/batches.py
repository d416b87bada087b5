"""From examples to batches: order of an epoch, micro-batches of each process, tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from mta_framework.errors import Fault, InputError
from mta_framework.types import (
    ATTENDED_TOKENS,
    CHUNKS,
    MATCHED_POSITIONS,
    TEXTS,
    TEXTS_BY_OTHERS,
    TEXTS_BY_STUDENT,
    TOKENS,
    Batch,
    Example,
    RecordSlot,
    SpanIndex,
    span_memberships,
    texts_with_span_pairs,
    texts_with_spans,
)

_POOL = 50
"""Number of global batches whose texts are sorted by length together: enough to save padding, too few to order the
whole epoch by length."""


def collate(
    examples: Sequence[Example], pad_token_id: int, granularities: Sequence[str], teacher_pad_token_id: int = 0
) -> Batch:
    """Collate examples into a micro-batch, padded on the right to its longest text.

    Args:
        examples: Examples of the batch, at least one.
        pad_token_id: Token id used for padding, which is masked.
        granularities: Granularities of the spans in the batch; empty without alignment.
        teacher_pad_token_id: Token id used for padding in the teacher's tokens; unused with a shared tokenizer.

    Returns:
        The batch, on the CPU. A position is supervised if the token after it belongs to the response, and is not left
        out by ``Example.supervised_T``.
    """
    lengths = np.array([len(example.input_ids) for example in examples])
    width = int(lengths.max())
    mask_BT = np.arange(width) < lengths[:, None]
    input_ids_BT = np.full(mask_BT.shape, pad_token_id, dtype=np.int64)
    input_ids_BT[mask_BT] = np.concatenate([example.input_ids for example in examples])

    prompt_lengths = np.array([example.prompt_length for example in examples])
    target_BT = mask_BT & (np.arange(width) >= np.maximum(prompt_lengths, 1)[:, None])
    for row_T, example in zip(target_BT, examples, strict=True):
        if example.supervised_T is not None:
            row_T[: len(example.supervised_T)] &= example.supervised_T
    target = np.flatnonzero(target_BT)
    by_student_B = np.array([example.by_student for example in examples])
    supervised_B = target_BT.any(axis=1)
    counts = {
        TOKENS: len(target),
        TEXTS: int(supervised_B.sum()),
        ATTENDED_TOKENS: int(lengths.sum()),
        TEXTS_BY_STUDENT: int((supervised_B & by_student_B).sum()),
        TEXTS_BY_OTHERS: int((supervised_B & ~by_student_B).sum()),
    }
    spans = {}
    for granularity in granularities:
        index = _span_index([example.spans[granularity] for example in examples], width)
        spans[granularity] = index
        counts[texts_with_spans(granularity)] = sum(count >= 1 for count in index.spans_per_text)
        counts[texts_with_span_pairs(granularity)] = sum(count >= 2 for count in index.spans_per_text)
        counts[texts_with_spans(granularity, 4)] = sum(count >= 4 for count in index.spans_per_text)
        counts[span_memberships(granularity)] = len(index.token_M)
    teacher, matched = _teacher_batch(examples, width, teacher_pad_token_id, granularities)
    if matched is not None:
        counts[MATCHED_POSITIONS] = len(matched[0])
    batch = Batch(
        input_ids_BT=torch.from_numpy(input_ids_BT),
        attention_mask_BT=torch.from_numpy(mask_BT.astype(np.int64)),
        position_N=torch.from_numpy(target - 1),
        target_N=torch.from_numpy(input_ids_BT.ravel()[target]),
        spans=spans,
        counts=counts,
        by_student_B=torch.from_numpy(by_student_B),
        teacher=teacher,
        matched_R=None if matched is None else matched[0],
        matched_teacher_R=None if matched is None else matched[1],
        index_B=torch.tensor([example.index for example in examples]),
        log_prob_N=_log_probs(examples, width, target),
    )
    return batch if teacher is None else _with_chunks(batch, [example.truncated for example in examples])


def _log_probs(examples: Sequence[Example], width: int, target: NDArray[np.int64]) -> torch.Tensor | None:
    """The log-probability with which each supervised token was written; NaN where there is none."""
    if all(example.log_probs is None for example in examples):
        return None
    log_prob_BT = np.full((len(examples), width), np.nan, dtype=np.float32)
    for row_T, example in zip(log_prob_BT, examples, strict=True):
        if example.log_probs is not None:
            row_T[example.prompt_length :][: len(example.log_probs)] = example.log_probs
    return torch.from_numpy(log_prob_BT.ravel()[target])


def _teacher_batch(
    examples: Sequence[Example], width: int, pad_token_id: int, granularities: Sequence[str]
) -> tuple[Batch | None, tuple[torch.Tensor, torch.Tensor] | None]:
    """The batch in the teacher's tokens, and the flat positions from which both predict after the same text."""
    teacher_examples = [example.teacher for example in examples if example.teacher is not None]
    matched = [example.matched_R2 for example in examples if example.matched_R2 is not None]
    if not teacher_examples:
        return None, None
    teacher = collate(teacher_examples, pad_token_id, granularities)
    text_R = np.repeat(np.arange(len(matched)), [len(match_R2) for match_R2 in matched])
    token_R2 = np.concatenate(matched).astype(np.int64).reshape(-1, 2) - 1
    widths = width, teacher.input_ids_BT.shape[1]
    student_R, teacher_R = (torch.from_numpy(text_R * wide + token_R2[:, side]) for side, wide in enumerate(widths))
    return teacher, (student_R, teacher_R)


def _with_chunks(batch: Batch, truncated: Sequence[bool]) -> Batch:
    """The batch with the chunk of each supervised token, in both tokenizations, and their number."""
    assert batch.teacher is not None
    assert batch.matched_R is not None
    assert batch.matched_teacher_R is not None
    text_R = batch.matched_R.numpy() // batch.input_ids_BT.shape[1]
    is_last_R = np.append(text_R[1:] != text_R[:-1], True)[: len(text_R)]
    # Both sides of a cut text go on after their last matched position, but to different characters.
    is_chunk_R = ~(is_last_R & np.array(truncated)[text_R])
    student_N = _chunks(batch, batch.matched_R, text_R, is_chunk_R)
    teacher_N = _chunks(batch.teacher, batch.matched_teacher_R, text_R, is_chunk_R)
    teacher = replace(batch.teacher, chunk_N=teacher_N)
    counts = {**batch.counts, CHUNKS: int(is_chunk_R.sum())}
    return replace(batch, chunk_N=student_N, teacher=teacher, counts=counts)


def _chunks(
    batch: Batch, matched_R: torch.Tensor, text_R: NDArray[np.int64], is_chunk_R: NDArray[np.bool_]
) -> torch.Tensor:
    """The chunk of each supervised token: that which begins at the last matched position up to its own."""
    chunk_N = np.searchsorted(matched_R.numpy(), batch.position_N.numpy(), side="right") - 1
    # A further entry, for tokens before the first matched position of the batch: -1 points to it.
    text_C, is_chunk_C = np.append(text_R, -1), np.append(is_chunk_R, False)
    is_inside_N = is_chunk_C[chunk_N] & (text_C[chunk_N] == batch.text_N.numpy())
    return torch.from_numpy(np.where(is_inside_N, chunk_N, len(text_R)).astype(np.int64))


def _span_index(ranges: Sequence[NDArray[np.int32]], width: int) -> SpanIndex:
    spans_per_text = [len(ranges_K2) for ranges_K2 in ranges]
    text_S = np.repeat(np.arange(len(ranges)), spans_per_text)
    start_S, end_S = (np.concatenate(ranges).astype(np.int64).reshape(-1, 2) + text_S[:, None] * width).T
    size_S = end_S - start_S
    span_M = np.repeat(np.arange(len(size_S)), size_S)
    # Within span s, membership m is token start_S + (m - number of memberships before s).
    token_M = np.arange(len(span_M)) + (start_S - np.cumsum(size_S) + size_S)[span_M]
    token_U, multiplicity_U = np.unique(token_M, return_counts=True)
    return SpanIndex(
        token_M=torch.from_numpy(token_M),
        span_M=torch.from_numpy(span_M),
        text_S=torch.from_numpy(text_S),
        token_U=torch.from_numpy(token_U),
        multiplicity_U=torch.from_numpy(multiplicity_U.astype(np.float32)),
        spans_per_text=tuple(spans_per_text),
    )


class GroupedSampler:
    """Batch sampler of global batches of texts of similar length, in rounds of one micro-batch per rank.

    The texts of a global batch depend only on ``lengths``, ``batch_size``, seed and epoch, never on the split into
    micro-batches and ranks. Each epoch leaves out fewer than ``batch_size`` texts, other ones each time.

    Args:
        lengths: Number of tokens of each text.
        batch_size: Texts per optimiser step, over all micro-batches and ranks.
        micro_batch_size: Texts per forward pass.
        world_size: Number of ranks.
        seed: Seed of the order.
        teacher_names: Name of each text's teacher: each global batch has the texts of one teacher after those of
            another, so that few micro-batches have texts of two. None: there is one teacher, or none.

    Raises:
        InputError: ``batch_size`` is no multiple of ``micro_batch_size * world_size``, or there are too few texts.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        batch_size: int,
        micro_batch_size: int,
        world_size: int,
        seed: int,
        teacher_names: Sequence[str] | None = None,
    ):
        faults = _batch_size_faults(len(lengths), batch_size, micro_batch_size, world_size)
        if faults:
            raise InputError(faults)
        self._length = np.asarray(lengths)
        self._teacher_names = None if teacher_names is None else np.asarray(teacher_names)
        self._batch_size = batch_size
        self._round = micro_batch_size * world_size
        self._seed = seed
        self._epoch = 0

    @property
    def steps_per_epoch(self) -> int:
        """Number of global batches per epoch."""
        return len(self._length) // self._batch_size

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which determines the order of the next iteration."""
        self._epoch = epoch

    def __len__(self) -> int:
        """Number of rounds per epoch."""
        return self.steps_per_epoch * (self._batch_size // self._round)

    def __iter__(self) -> Iterator[list[int]]:
        """Iterate over rounds, as lists of indices into ``lengths``; rounds of one global batch are consecutive."""
        yield from self.global_batches(self._epoch).reshape(-1, self._round).tolist()

    def global_batches(self, epoch: int) -> NDArray[np.int64]:
        """Return the global batches of an epoch, as (steps, batch_size) indices into ``lengths``."""
        generator = np.random.default_rng((self._seed, epoch))
        whole = self.steps_per_epoch * self._batch_size
        order = generator.permutation(len(self._length))[:whole]
        size = _POOL * self._batch_size
        pools = [order[first : first + size] for first in range(0, whole, size)]
        ordered = np.concatenate([pool[np.argsort(self._length[pool], kind="stable")] for pool in pools])
        batches = generator.permutation(ordered.reshape(-1, self._batch_size))
        if self._teacher_names is None:
            return batches
        by_teacher = np.argsort(self._teacher_names[batches], axis=1, kind="stable")
        return np.take_along_axis(batches, by_teacher, axis=1)


def _batch_size_faults(texts: int, batch_size: int, micro_batch_size: int, world_size: int) -> list[Fault]:
    faults = []
    if batch_size % (micro_batch_size * world_size):
        problem = (
            f"is no multiple of micro_batch_size {micro_batch_size} times {world_size} processes (got {batch_size})"
        )
        expected = f"a multiple of {micro_batch_size * world_size}"
        faults.append(
            Fault("training.batch_size", problem, expected, "Change training.batch_size or micro_batch_size.")
        )
    if texts < batch_size:
        problem = f"is more than the {texts} texts of the training set (got {batch_size})"
        hint = "Lower training.batch_size, or train on more texts."
        faults.append(Fault("training.batch_size", problem, f"at most {texts}", hint))
    return faults


TeacherRecords = Callable[[Sequence[Example]], Mapping[RecordSlot, torch.Tensor] | None]
"""Reads what is kept of the teacher on some examples; None where the teacher has to be run on any of them."""


class Collator:
    """Turns examples into a ``Batch``.

    Args:
        pad_token_id: Token used for padding, which is masked.
        granularities: Granularities of the spans that a batch holds; empty without alignment.
        teacher_pad_token_id: Token used for padding in the teacher's tokens, where its tokenizer differs.
        teacher_records: Reads what is kept of the teacher on some examples (``Batch.teacher_records``); None: nothing
            is kept.
    """

    def __init__(
        self,
        pad_token_id: int,
        granularities: Sequence[str],
        teacher_pad_token_id: int = 0,
        teacher_records: TeacherRecords | None = None,
    ):
        self._pad_token_id = pad_token_id
        self._granularities = tuple(granularities)
        self._teacher_pad_token_id = teacher_pad_token_id
        self._teacher_records = teacher_records

    def __call__(self, examples: Sequence[Example]) -> Batch:
        batch = collate(examples, self._pad_token_id, self._granularities, self._teacher_pad_token_id)
        if self._teacher_records is None:
            return batch
        return replace(batch, teacher_records=self._teacher_records(examples))

    def with_teacher_records(self, teacher_records: TeacherRecords | None) -> Collator:
        """Make the same collator, with what is kept of the teacher."""
        return Collator(self._pad_token_id, self._granularities, self._teacher_pad_token_id, teacher_records)


def training_loader(examples: Sequence[Example], sampler: GroupedSampler) -> DataLoader[list[Example]]:
    """Load the examples of an epoch, the same on every process.

    It yields lists of ``micro_batch_size * world_size`` examples; consecutive ones form a global batch. The loader has
    a random generator of its own: if iterating advanced the global one, a resumed run would differ from a straight one.

    Args:
        examples: Training set.
        sampler: Order of the epoch.
    """
    return DataLoader(
        examples,  # type: ignore[arg-type]
        batch_sampler=sampler,  # type: ignore[arg-type]
        collate_fn=list,
        generator=torch.Generator(),
    )


def micro_batches(batch: Sequence[Example], count: int, rank: int, world_size: int) -> list[Sequence[Example]]:
    """Cut a global batch into micro-batches and return those of one process.

    Args:
        batch: Global batch, over all micro-batches and processes.
        count: Number of micro-batches of each process.
        rank: Index of the process; micro-batch i goes to process ``i % world_size``.
        world_size: Number of processes.
    """
    size = len(batch) // (count * world_size)
    parts = [batch[first : first + size] for first in range(0, len(batch), size)]
    return parts[rank::world_size]


def validation_fault(rows: int, world_size: int) -> Fault | None:
    """Fault of a validation set with fewer rows than processes, or None: every process must have a row."""
    if rows >= world_size:
        return None
    problem = f"has fewer rows than there are processes (got {rows} for {world_size})"
    return Fault("data.validation", problem, "at least one row per process", "Add rows or set it to null.")


def validation_micro_batches(
    examples: Sequence[Example], micro_batch_size: int, rank: int, world_size: int
) -> list[list[Example]]:
    """Cut a validation set into micro-batches and return those of one process, by teacher, longest texts first.

    Args:
        examples: Validation set, at least ``world_size`` examples; each is in one micro-batch of one process.
        micro_batch_size: Most texts in a micro-batch.
        rank: Index of the process.
        world_size: Number of processes.
    """
    size = min(micro_batch_size, len(examples) // world_size)
    order = sorted(
        range(len(examples)), key=lambda index: (examples[index].teacher_name, -len(examples[index].input_ids))
    )
    parts = [order[start : start + size] for start in range(0, len(order), size)]
    return [[examples[index] for index in part] for part in parts[rank::world_size]]
