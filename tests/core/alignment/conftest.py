"""Batches with spans, made by hand, and an independent reference in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch

from mta_framework.types import (
    Batch,
    Head,
    SpanIndex,
    States,
    span_memberships,
    texts_with_span_pairs,
    texts_with_spans,
)


def span_index(spans: Sequence[Sequence[tuple[int, int]]], length: int) -> SpanIndex:
    """Ragged index of per-text, half-open token ranges."""
    tokens, members, texts, span = [], [], [], 0
    for text, ranges in enumerate(spans):
        for start, end in ranges:
            tokens += [text * length + token for token in range(start, end)]
            members += [span] * (end - start)
            texts.append(text)
            span += 1
    distinct = sorted(set(tokens))
    return SpanIndex(
        torch.tensor(tokens, dtype=torch.int64),
        torch.tensor(members, dtype=torch.int64),
        torch.tensor(texts, dtype=torch.int64),
        torch.tensor(distinct, dtype=torch.int64),
        torch.tensor([float(tokens.count(token)) for token in distinct]),
        tuple(len(ranges) for ranges in spans),
    )


def batch_of(lengths: Sequence[int], spans: Sequence[Sequence[tuple[int, int]]], padded: int) -> Batch:
    """A batch of texts of these lengths with one granularity, ``words``."""
    mask = torch.tensor([[int(token < length) for token in range(padded)] for length in lengths])
    nothing = torch.zeros(0, dtype=torch.int64)
    counts = {
        texts_with_spans("words"): sum(len(ranges) > 0 for ranges in spans),
        texts_with_span_pairs("words"): sum(len(ranges) > 1 for ranges in spans),
        span_memberships("words"): sum(end - start for ranges in spans for start, end in ranges),
    }
    return Batch(mask, mask, nothing, nothing, {"words": span_index(spans, padded)}, counts)


def states_of(hidden_BTD: torch.Tensor, layer: int = 1) -> States:
    """States with one key layer."""
    return States(hidden_BTD, {layer: hidden_BTD}, Head(torch.zeros(1, hidden_BTD.shape[-1])))


def _cosine(first: torch.Tensor, second: torch.Tensor) -> float:
    return float(first @ second / math.sqrt(float(first @ first) * float(second @ second)))


def reference(student, teacher, student_weight, teacher_weight, spans, project) -> tuple[list[float], list[float]]:
    """DSA per text that has a pair and Hid per text that has a span: float64, loops over spans and tokens."""
    dsa, hid = [], []
    for text, ranges in enumerate(spans):
        members = [(span, token) for span, (start, end) in enumerate(ranges) for token in range(start, end)]
        total = sum(float(teacher_weight[text, token]) for _, token in members)
        if members:
            hid.append(
                sum(
                    float(teacher_weight[text, token]) / total
                    * (1 - _cosine(project(student[text, token]), teacher[text, token]))
                    for _, token in members
                )
            )  # fmt: skip
        if len(ranges) > 1:
            dsa.append(_pairs(student[text], teacher[text], student_weight[text], teacher_weight[text], ranges))
    return dsa, hid


def _pairs(student, teacher, student_weight, teacher_weight, ranges) -> float:
    def pooled(hidden, weight, start, end):
        return sum(weight[token] * hidden[token] for token in range(start, end)) / sum(weight[start:end])

    vectors = [
        (pooled(student, student_weight, *span), pooled(teacher, teacher_weight, *span)) for span in ranges
    ]  # fmt: skip
    weights = [float(sum(teacher_weight[start:end])) for start, end in ranges]
    above = below = 0.0
    for i in range(len(ranges)):
        for j in range(len(ranges)):
            if i != j:
                difference = _cosine(vectors[i][0], vectors[j][0]) - _cosine(vectors[i][1], vectors[j][1])
                above += weights[i] * weights[j] * difference**2
                below += weights[i] * weights[j]
    return above / below


@pytest.fixture(scope="session")
def make_batch():
    return batch_of


@pytest.fixture(scope="session")
def make_states():
    return states_of


@pytest.fixture(scope="session")
def slow_reference():
    return reference
