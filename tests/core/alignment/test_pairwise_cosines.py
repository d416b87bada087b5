"""DSA against its dense definition in float64, whatever the blocks, and the memory that long texts take."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.profiler import ProfilerActivity, profile

from mta_framework.alignment import pairwise_cosines
from mta_framework.alignment.pairwise_cosines import VectorGeometry, cosine_difference_sum, structure_sum

MIB = 2**20


def dense(student, teacher, weight, counts, reduction):
    """All pairs of each text at once, by autograd, in float64."""
    above, below = [], []
    for start, count in zip(torch.tensor([0, *counts]).cumsum(0).tolist(), counts, strict=False):
        if count < 2:
            continue
        text = slice(start, start + count)
        units = [rows[text].double() / rows[text].double().norm(dim=1, keepdim=True) for rows in (student, teacher)]
        angles = [unit @ unit.T for unit in units]
        pairs = torch.outer(weight[text].double(), weight[text].double()) * (1 - torch.eye(count))
        above.append((pairs * (angles[0] - angles[1]) ** 2).sum())
        below.append(pairs.sum())
    if not above:
        return torch.zeros(())
    if reduction == "example":
        return sum(a / b for a, b in zip(above, below, strict=True))
    return len(above) * sum(above) / sum(below)


def spans(counts, seed=0, widths=(5, 9), dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randn(sum(counts), width, generator=generator, dtype=dtype) for width in widths]
    return rows[0].requires_grad_(), rows[1], torch.rand(sum(counts), generator=generator, dtype=dtype) + 0.01


counts_of_texts = st.lists(st.integers(0, 9), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(counts=counts_of_texts, reduction=st.sampled_from(["example", "batch"]), seed=st.integers(0, 99))
def test_value_and_gradient_are_those_of_the_dense_definition(counts, reduction, seed):
    student, teacher, weight = spans(counts, seed)
    value = structure_sum(student, VectorGeometry(teacher), weight, counts, reduction)
    (gradient,) = torch.autograd.grad(3 * value, student)
    expected = dense(student, teacher, weight, counts, reduction)
    assert value.item() == pytest.approx(expected.item(), rel=1e-10, abs=1e-14)
    if not expected.requires_grad:
        assert not gradient.any()
        return
    (slope,) = torch.autograd.grad(3 * expected, student)
    torch.testing.assert_close(gradient, slope, rtol=1e-8, atol=1e-12)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(counts=counts_of_texts, reduction=st.sampled_from(["example", "batch"]))
def test_texts_that_are_compared_at_once_as_on_an_accelerator_give_the_same(counts, reduction):
    student, teacher, weight = spans(counts)
    results = []
    for text_by_text in ({"cpu"}, set()):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pairwise_cosines, "_TEXT_BY_TEXT", text_by_text)
            value = structure_sum(student, VectorGeometry(teacher), weight, counts, reduction)
            results.append((value, *torch.autograd.grad(value, student)))
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-12)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(count=st.integers(2, 40), block_pairs=st.integers(1, 2000), seed=st.integers(0, 99))
def test_blocks_of_any_size_give_the_same_value_and_gradient(count, block_pairs, seed):
    student, teacher, weight = spans([count, 3], seed)
    texts = [slice(0, count), slice(count, count + 3)]
    results = []
    for size, text_by_text in ((block_pairs, {"cpu"}), (block_pairs, set()), (10**6, {"cpu"})):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pairwise_cosines, "_TEXT_BY_TEXT", text_by_text)
            value = cosine_difference_sum(student, VectorGeometry(teacher), weight, texts, size)
            results.append((value, *torch.autograd.grad(value, student)))
    for result in results[:2]:
        torch.testing.assert_close(result, results[2], rtol=1e-10, atol=1e-12)


def test_float32_stays_near_float64_also_where_the_student_is_almost_there():
    student, teacher, weight = spans([300, 200], widths=(64, 64))
    student = (teacher + 1e-3 * student).detach().requires_grad_()
    expected = dense(student, teacher, weight, [300, 200], "example")
    (slope,) = torch.autograd.grad(expected, student)
    narrow = student.detach().float().requires_grad_()
    value = structure_sum(narrow, VectorGeometry(teacher.float()), weight.float(), [300, 200], "example")
    (gradient,) = torch.autograd.grad(value, narrow)
    assert expected.item() < 1e-6
    assert value.item() == pytest.approx(expected.item(), rel=1e-3)
    assert (gradient - slope).norm() < 1e-3 * slope.norm()


def test_one_span_with_nearly_all_the_weight_loses_no_pair():
    student, teacher, _ = spans([4], dtype=torch.float32)
    weight = torch.tensor([1.0, 1e-12, 2e-12, 1e-20])
    value = structure_sum(student, VectorGeometry(teacher), weight, [4], "example")
    assert value.item() == pytest.approx(dense(student, teacher, weight, [4], "example").item(), rel=1e-5)


def test_without_gradient_the_value_is_the_same():
    student, teacher, weight = spans([6, 4])
    with torch.no_grad():
        value = structure_sum(student, VectorGeometry(teacher), weight, [6, 4], "example")
    assert not value.requires_grad
    assert value.item() == structure_sum(student, VectorGeometry(teacher), weight, [6, 4], "example").item()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(counts=counts_of_texts, limit=st.integers(2, 6), seed=st.integers(0, 99), whole=st.booleans())
def test_only_the_heaviest_spans_are_compared_earlier_ones_where_weights_are_equal(counts, limit, seed, whole):
    student, teacher, weight = spans(counts, seed)
    weight = (weight * 3).ceil() if whole else weight
    first, kept = 0, []
    for count in counts:
        order = sorted(range(first, first + count), key=lambda span: (-weight[span].item(), span))
        kept += sorted(order[:limit])
        first += count
    value = structure_sum(student, VectorGeometry(teacher), weight, counts, "example", limit)
    (gradient,) = torch.autograd.grad(value, student)
    expected = dense(student[kept], teacher[kept], weight[kept], [min(count, limit) for count in counts], "example")
    assert value.item() == pytest.approx(expected.item(), rel=1e-10, abs=1e-14)
    dropped = sorted(set(range(len(weight))) - set(kept))
    assert not gradient[dropped].any()


def test_six_thousand_spans_take_a_small_part_of_the_memory_of_their_pairs():
    student, teacher, weight = spans([6000], widths=(24, 32), dtype=torch.float32)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        structure_sum(student, VectorGeometry(teacher), weight, [6000], "example").backward()
    changes = sorted(
        (event.start_ns(), event.nbytes())
        for event in recorded.profiler.kineto_results.events()
        if event.name() == "[memory]"
    )
    held = torch.tensor([0, *(size for _, size in changes)]).cumsum(0)
    assert held.max() < 40 * MIB  # one matrix of all pairs would be 137 MiB
    assert held.max() > 16 * MIB
