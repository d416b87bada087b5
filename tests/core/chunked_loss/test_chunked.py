"""Chunked sums against whole logits in float64, and what they must not cost."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

import mta_framework.chunked_loss.chunked as chunked
from mta_framework.chunked_loss import (
    HeadInputs,
    chunked_sum,
    chunked_values,
    cross_entropy,
    forward_kl,
    select_supervised,
)
from mta_framework.types import Batch, Head, States

N, D, V = 7, 5, 23
DOUBLE = torch.float64


def _random(*shape, seed=0, dtype=DOUBLE):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def _inputs(seed=0, vocabulary=V, positions=(N,), dtype=DOUBLE, trainable=True, **head):
    hidden = _random(*positions, D, seed=seed, dtype=dtype)
    weight, bias = _random(vocabulary, D, seed=seed + 1, dtype=dtype), _random(vocabulary, seed=seed + 2, dtype=dtype)
    tensors = [tensor.requires_grad_(trainable) for tensor in (hidden, weight, bias)]
    return HeadInputs(tensors[0], Head(tensors[1], tensors[2], **head))


def _tensors(inputs):
    return inputs.hidden, inputs.head.weight_VD, inputs.head.bias_V


def _dense_logits(inputs, vocabulary):
    head = inputs.head
    logits = (inputs.hidden @ head.weight_VD.T + head.bias_V)[..., :vocabulary] * head.scale
    return logits if head.softcap is None else head.softcap * torch.tanh(logits / head.softcap)


def _dense_kl(student, teacher, vocabulary=V):
    """KL with whole logits, written out."""
    q, p = _dense_logits(student, vocabulary).softmax(-1), _dense_logits(teacher, vocabulary).softmax(-1)
    return (p * (p / q).log()).sum()


def _check_against_dense(student, teacher, dense, **options):
    total = chunked_sum(forward_kl, student, teacher, **options)
    torch.testing.assert_close(total, dense)
    wanted = torch.autograd.grad(dense * 0.3, _tensors(student))
    for got, expected in zip(torch.autograd.grad(total * 0.3, _tensors(student)), wanted, strict=True):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("chunk_size", [1, 3, N, N + 5, None])
def test_value_and_gradients_equal_whole_logits_for_every_chunk_size(chunk_size):
    student, teacher = _inputs(0), _inputs(10, trainable=False)
    _check_against_dense(student, teacher, _dense_kl(student, teacher), chunk_size=chunk_size)


@pytest.mark.parametrize(("chunk", "block"), [(5, 2), (7, 3), (3, 100), (0, 0)])
def test_value_and_gradients_equal_whole_logits_when_memory_sets_the_sizes(monkeypatch, chunk, block):
    """Sizes in positions; even a budget below one position takes one."""
    monkeypatch.setitem(chunked._CHUNK_BYTES, "cpu", 4 * V * chunk)
    monkeypatch.setitem(chunked._BLOCK_BYTES, "cpu", 4 * V * block)
    sizes = []

    def kernel(student_logits, teacher_logits):
        sizes.append(len(student_logits))
        return forward_kl(student_logits, teacher_logits)

    student, teacher = _inputs(0), _inputs(10, trainable=False)
    total = chunked_sum(kernel, student, teacher)
    assert max(sizes) == max(1, min(chunk, block))
    assert sum(sizes) == N
    dense = _dense_kl(student, teacher)
    torch.testing.assert_close(total, dense)
    wanted = torch.autograd.grad(dense, _tensors(student))
    for got, expected in zip(torch.autograd.grad(total, _tensors(student)), wanted, strict=True):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("head", [{"softcap": 2.0}, {"scale": 0.25}, {"scale": 3.0, "softcap": 1.5}])
def test_scale_and_softcap_of_the_head_are_applied_and_differentiated(head):
    student, teacher = _inputs(0, **head), _inputs(10, trainable=False, softcap=4.0)
    _check_against_dense(student, teacher, _dense_kl(student, teacher), chunk_size=3)


@pytest.mark.parametrize(("student_size", "teacher_size"), [(V, V + 9), (V + 9, V)])
def test_vocabularies_that_differ_by_padding_are_compared_on_the_common_part(student_size, teacher_size):
    student, teacher = _inputs(0, student_size), _inputs(10, teacher_size, trainable=False)
    _check_against_dense(student, teacher, _dense_kl(student, teacher), chunk_size=2)
    padding = torch.autograd.grad(chunked_sum(forward_kl, student, teacher), student.head.weight_VD)[0][V:]
    assert padding.shape[0] == student_size - V
    assert not padding.any()


@pytest.mark.parametrize("chunk_size", [1, 3, N])
def test_several_states_per_position_reach_the_kernel_together(chunk_size):
    student, teacher = _inputs(0, positions=(N, 3)), _inputs(10, positions=(N, 3), trainable=False)
    weight_N = _random(N, seed=30).abs()

    def difference(student_logits, teacher_logits, weight):
        steps = [functional.log_softmax(logits, -1).diff(dim=1) for logits in (student_logits, teacher_logits)]
        return weight[:, None] * (1 - functional.cosine_similarity(*steps, dim=-1))

    dense = difference(_dense_logits(student, V), _dense_logits(teacher, V), weight_N).sum()
    total = chunked_sum(difference, student, teacher, weight_N, chunk_size=chunk_size)
    torch.testing.assert_close(total, dense)
    for got, expected in zip(
        torch.autograd.grad(total, _tensors(student)), torch.autograd.grad(dense, _tensors(student)), strict=True
    ):
        torch.testing.assert_close(got, expected)


def test_without_a_teacher_the_kernel_gets_targets_and_the_whole_vocabulary():
    student = _inputs(0)
    targets = torch.tensor([0, 22, 3, 3, 7, 11, 1])
    probability = _dense_logits(student, V).softmax(-1)[torch.arange(N), targets]
    torch.testing.assert_close(
        chunked_sum(cross_entropy, student, None, targets, chunk_size=3), -probability.log().sum()
    )


@pytest.mark.parametrize("call", [chunked_sum, chunked_values])
def test_numbers_of_positions_that_differ_are_refused(call):
    with pytest.raises(ValueError, match=r"same number of positions \(got \[7, 7, 6\]\)"):
        call(forward_kl, _inputs(0), _inputs(10), torch.zeros(N - 1))


def test_nothing_supervised_gives_zero_and_zero_gradients():
    student, teacher = _inputs(0, positions=(0,)), _inputs(10, positions=(0,), trainable=False)
    total = chunked_sum(forward_kl, student, teacher)
    assert total.item() == 0
    total.backward()
    for tensor in _tensors(student):
        assert tensor.grad is not None
        assert tensor.grad.shape == tensor.shape
        assert not tensor.grad.any()


def test_second_backward_through_one_call_is_an_error_not_a_wrong_number():
    total = chunked_sum(forward_kl, _inputs(0), _inputs(10, trainable=False))
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError):
        total.backward()


class _Operations(TorchDispatchMode):
    """Records the largest output, and how many matrix products ran."""

    def __init__(self):
        super().__init__()
        self.largest, self.products = 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for output in result if isinstance(result, tuple | list) else [result]:
            if isinstance(output, torch.Tensor):
                self.largest = max(self.largest, output.numel())
        self.products += func.overloadpacket.__name__ in ("mm", "addmm", "addmm_", "linear", "bmm")
        return result


def test_no_tensor_larger_than_one_chunk_of_logits_or_the_head_is_ever_made():
    positions, vocabulary, chunk = 64, 300, 6
    student = _inputs(0, vocabulary, (positions,), torch.float32)
    teacher = _inputs(10, vocabulary, (positions,), torch.float32, trainable=False)
    with _Operations() as operations:
        chunked_sum(forward_kl, student, teacher, chunk_size=chunk).backward()
    assert operations.largest == max(chunk * vocabulary, vocabulary * D)


def test_frozen_head_costs_no_weight_gradient_and_validation_no_gradient_at_all():
    def products(student, enabled):
        with torch.set_grad_enabled(enabled), _Operations() as operations:
            total = chunked_sum(forward_kl, student, _inputs(10, trainable=False))
        assert total.requires_grad is enabled
        return operations.products

    trained, frozen = _inputs(0), _inputs(0, trainable=False)
    frozen.hidden.requires_grad_()
    assert [products(trained, True), products(frozen, True), products(trained, False)] == [4, 3, 2]
    chunked_sum(forward_kl, frozen, _inputs(10, trainable=False)).backward()
    assert frozen.hidden.grad is not None
    assert frozen.head.weight_VD.grad is None


def test_trained_head_over_frozen_states_gets_its_gradient():
    student, teacher = _inputs(0), _inputs(10, trainable=False)
    still = HeadInputs(student.hidden.detach(), student.head)
    got = torch.autograd.grad(chunked_sum(forward_kl, still, teacher), student.head.weight_VD)[0]
    torch.testing.assert_close(got, torch.autograd.grad(_dense_kl(student, teacher), student.head.weight_VD)[0])


def test_teacher_of_inference_tensors_in_bf16_is_used_in_its_own_dtype():
    student = _inputs(0, dtype=torch.float32)
    with torch.inference_mode():
        teacher = _inputs(10, trainable=False)
        teacher = HeadInputs(
            teacher.hidden.bfloat16(), Head(teacher.head.weight_VD.bfloat16(), teacher.head.bias_V.bfloat16())
        )
    total = chunked_sum(forward_kl, student, teacher, chunk_size=3)
    logits = functional.linear(teacher.hidden, teacher.head.weight_VD, teacher.head.bias_V).double()
    p, q = logits.softmax(-1), _dense_logits(student, V).double().softmax(-1)
    assert total.item() == pytest.approx((p * (p / q).log()).sum().item(), rel=1e-5)
    total.backward()
    assert student.hidden.grad.abs().max() > 0


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.03), (torch.float16, 0.004)])
def test_autocast_multiplies_in_16_bits_and_gives_the_kernel_float32(dtype, tolerance):
    student, teacher = _inputs(0, dtype=torch.float32), _inputs(10, dtype=torch.float32, trainable=False)
    seen = []

    def kernel(student_logits, teacher_logits):
        seen.append((student_logits.dtype, teacher_logits.dtype, torch.is_autocast_enabled("cpu")))
        return forward_kl(student_logits, teacher_logits)

    with torch.autocast("cpu", dtype):
        total = chunked_sum(kernel, student, teacher, chunk_size=3)
    assert set(seen) == {(torch.float32, torch.float32, False)}
    dense = _dense_kl(student, teacher)
    assert total.dtype == torch.float32
    assert total.item() != dense.item()
    assert total.item() == pytest.approx(dense.item(), rel=tolerance)
    wanted = torch.autograd.grad(dense, _tensors(student))
    for got, expected in zip(torch.autograd.grad(total, _tensors(student)), wanted, strict=True):
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, expected, rtol=0, atol=tolerance * expected.abs().max().item())


def test_gradient_keeps_what_fp16_alone_would_flush_to_zero():
    weight = torch.zeros(3, 2, dtype=torch.float32)
    weight[2, 0] = -17.5  # its probability is about 1.3e-8: half of the smallest fp16 number
    hidden = torch.tensor([[1.0, 0.0]], requires_grad=True)
    with torch.autocast("cpu", torch.float16):
        total = chunked_sum(lambda logits: -torch.log_softmax(logits, -1)[:, 0], HeadInputs(hidden, Head(weight)), None)
    total.backward()
    expected = torch.tensor([0.0, 0.0, -17.5], dtype=DOUBLE).softmax(-1)[2].item() * -17.5
    assert hidden.grad[0, 0].item() == pytest.approx(expected, rel=0.1)


def test_supervised_states_are_gathered_in_order_and_send_gradient_back():
    final = _random(2, 4, D).requires_grad_()
    ids = torch.zeros(2, 4, dtype=torch.int64)
    batch = Batch(ids, torch.ones_like(ids), torch.tensor([1, 2, 6]), torch.tensor([0, 0, 0]))
    inputs = select_supervised(States(final, {}, Head(_random(V, D))), batch)
    torch.testing.assert_close(inputs.hidden, torch.stack([final[0, 1], final[0, 2], final[1, 2]]))
    inputs.hidden.sum().backward()
    assert final.grad.sum(-1).tolist() == [[0, D, D, 0], [0, 0, D, 0]]


def _both_probabilities(student_logits, teacher_logits, targets):
    logits = torch.stack([student_logits, teacher_logits], dim=1)
    return logits.softmax(-1).gather(-1, targets[:, None, None].expand(-1, 2, 1)).squeeze(-1)


@pytest.mark.parametrize("chunk_size", [1, 3, N, N + 5, None])
def test_values_of_every_position_come_back_in_order_for_every_chunk_size(chunk_size):
    student, teacher = _inputs(0, softcap=3.0), _inputs(10, V + 4, trainable=False, scale=0.5)
    targets = torch.tensor([0, 22, 3, 3, 7, 11, 1])
    values = chunked_values(_both_probabilities, student, teacher, targets, chunk_size=chunk_size)
    assert not values.requires_grad
    for column, inputs in enumerate((student, teacher)):
        expected = _dense_logits(inputs, V).softmax(-1)[torch.arange(N), targets]
        torch.testing.assert_close(values[:, column], expected)


def test_values_take_blocks_within_a_chunk_in_order(monkeypatch):
    monkeypatch.setitem(chunked._CHUNK_BYTES, "cpu", 4 * V * 5)
    monkeypatch.setitem(chunked._BLOCK_BYTES, "cpu", 4 * V * 2)
    student, targets = _inputs(0), torch.tensor([0, 22, 3, 3, 7, 11, 1])
    expected = -_dense_logits(student, V).log_softmax(-1)[torch.arange(N), targets]
    torch.testing.assert_close(chunked_values(cross_entropy, student, None, targets), expected)


def test_values_of_no_positions_have_the_shape_that_the_kernel_gives():
    student, teacher = _inputs(0, positions=(0,)), _inputs(10, positions=(0,), trainable=False)
    nothing = torch.zeros(0, dtype=torch.int64)
    assert chunked_values(_both_probabilities, student, teacher, nothing).shape == (0, 2)
    assert chunked_values(cross_entropy, student, None, nothing).shape == (0,)


def test_values_cost_one_product_per_model_and_chunk_and_keep_no_logits():
    positions, vocabulary, chunk = 64, 300, 16
    student = _inputs(0, vocabulary, (positions,), torch.float32)
    with _Operations() as operations:
        chunked_values(cross_entropy, student, None, torch.zeros(positions, dtype=torch.int64), chunk_size=chunk)
    assert operations.products == positions // chunk
    assert operations.largest == chunk * vocabulary
