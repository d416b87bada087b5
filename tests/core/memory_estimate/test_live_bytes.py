"""Bytes that are alive while operations run on tensors without values."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from mta_framework.memory_estimate.live_bytes import LiveBytes


@contextmanager
def counting() -> Iterator[LiveBytes]:
    live = LiveBytes(torch.device("cpu"))
    with FakeTensorMode(allow_non_fake_inputs=True), live:
        yield live


def test_views_count_once_and_freed_tensors_no_more():
    with counting() as live, live.phase("", "all"):
        first = torch.zeros(10, 10)
        view = first.T
        other = torch.zeros(25)
        assert live.peak.total == 500
        del first
        third = torch.zeros(50)
        assert live.peak.total == 700  # the view keeps the memory
        del view, other, third
        live.forget_peak()
        assert live.peak.total == 0


def test_parts_are_those_of_the_peak():
    with counting() as live:
        with live.phase("loading", "weights"):
            weight = torch.zeros(100)
        with live.phase("step", "activations"):
            weight + 1
        with live.phase("end", "rest"):
            torch.zeros(10)
    assert live.peak.phase == "step"
    assert dict(live.peak.bytes_by_part) == {"weights": 400, "activations": 400}


def test_what_autograd_keeps_is_alive_until_the_backward_pass():
    with counting() as live:
        with live.phase("", "weights"):
            weight = torch.zeros(8, 8, requires_grad=True)
        with live.phase("forward", "activations"):
            hidden = torch.ones(4, 8) @ weight  # keeps its input, 128 bytes, and gives 128
            total = hidden.exp().sum()  # keeps its result, 128 bytes, and gives 4
            del hidden
        live.forget_peak()
        assert live.peak.bytes_by_part["activations"] == 128 + 128 + 4
        total.backward()
        del total
        live.forget_peak()
        assert weight.grad is not None
        assert live.peak.total == 256 + 256  # weight and gradient


def test_a_tensor_moves_to_another_part():
    with counting() as live, live.phase("", "activations"):
        gradient = torch.zeros(5)
        live.assign(gradient, "gradients")
        live.forget_peak()
        assert dict(live.peak.bytes_by_part) == {"gradients": 20}


def test_indices_with_values_are_computed_and_masks_without_are_all_true():
    mask = torch.tensor([True, False, True])
    with counting():
        states = torch.zeros(3, 4)
        assert states[mask].shape == (2, 4)
        assert states[states[:, 0] > 0].shape == (3, 4)
        known = torch.tensor([True, False, True])
        known &= states[:, 0] > 0
        assert states[known].shape == (2, 4)
        assert (states > 0).nonzero().shape == (12, 2)
        assert states.sum().item() == 1.0


def test_blocks_of_cuda_are_rounded_up():
    live = LiveBytes(torch.device("cuda"))
    assert live._block == 512


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_peak_is_that_of_the_allocator(dtype, peak_bytes):
    def work():
        module = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.LayerNorm(128), nn.Linear(128, 64))
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            loss = module(torch.zeros(32, 64)).square().mean()
        loss.backward()

    with counting() as live:
        work()
    peak = peak_bytes(work)
    # Where the processor computes in bf16, the library of its products copies a weight and its input for a moment.
    computes_in_bf16 = dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    copies = 2 * (64 * 128 + 32 * 128) + 1024 if computes_in_bf16 else 0
    assert 0.99 * (peak - copies) <= live.peak.total <= 1.01 * (peak - copies)
