"""Trajectories and derivatives at key layers against whole logits in float64, and against the authors' numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from mta_framework.chunked_loss import (
    KeyLayerStates,
    TrajectoryDistances,
    chunked_trajectories,
    distinct_positions,
    select_key_layers,
    trajectory_sums,
)
from mta_framework.errors import RunError
from mta_framework.types import Batch, FinalLayers, Head, ModelShape, States

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "fdd.json").read_text())
DOUBLE = torch.float64
B, T, D, V = 2, 5, 6, 23
POSITIONS = [0, 1, 2, 5, 6, 7, 8]


def _random(*shape, seed=0, dtype=DOUBLE):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE).to(dtype)


def _states(seed, layers=3, width=D, vocabulary=V, trainable=True, dtype=DOUBLE, bias=True, **head):
    hidden = {
        layer: _random(B, T, width, seed=seed + layer, dtype=dtype).requires_grad_(trainable)
        for layer in range(1, layers + 1)
    }
    weight = _random(vocabulary, width, seed=seed + 50, dtype=dtype).requires_grad_(trainable)
    bias_V = _random(vocabulary, seed=seed + 51, dtype=dtype).requires_grad_(trainable) if bias else None
    return States(hidden[layers], hidden, Head(weight, bias_V, **head), FinalLayers(ModelShape(layers, width)))


def _tensors(states):
    bias = [states.head.bias_V] if states.head.bias_V is not None else []
    return [*states.layers.values(), states.head.weight_VD, *bias]


def _logits(states, layers, positions, vocabulary=V):
    head = states.head
    rows = torch.stack([states.layers[layer].flatten(0, 1)[positions] for layer in layers], dim=1).double()
    bias = None if head.bias_V is None else head.bias_V.double()
    logits = functional.linear(rows, head.weight_VD.double(), bias)[..., :vocabulary] * head.scale
    return logits if head.softcap is None else head.softcap * torch.tanh(logits / head.softcap)


def _dense(student, teacher, temperature=5.0, vocabulary=V, positions=POSITIONS, layers=(1, 2, 3)):
    """Both distances with whole logits, written out with softmax and cosine."""
    z, t = (_logits(states, layers, positions, vocabulary) for states in (student, teacher))
    p, q = (t / temperature).softmax(-1), (z / temperature).softmax(-1)
    trajectory = (p * (p.log() - q.log())).sum(-1).mean(1).sum()
    steps = [logits.softmax(-1).log().diff(dim=1) for logits in (z, t)]
    return trajectory, (1 - functional.cosine_similarity(*steps, dim=-1)).mean(1).sum()


def _read(states, layers=(1, 2, 3), positions=POSITIONS, **options):
    return select_key_layers(states, layers, torch.tensor(positions, dtype=torch.int64), **options)


def _check(student, teacher, weights=(0.7, 1.3), temperature=5.0, chunk_size=None, tolerance=None, **dense):
    expected = _dense(student, teacher, temperature, **dense)
    distances = TrajectoryDistances(temperature, *weights)
    total, *parts = trajectory_sums(_read(student), _read(teacher), distances, chunk_size=chunk_size)
    tolerances = {} if tolerance is None else {"rtol": tolerance, "atol": tolerance}
    combined = sum(weight * value for weight, value in zip(weights, expected, strict=True))
    torch.testing.assert_close(total.double(), combined, **tolerances)
    for part, value, weight in zip(parts, expected, weights, strict=True):
        assert not part.requires_grad
        torch.testing.assert_close(part.double(), value.detach() * (weight > 0), **tolerances)
    inputs = [tensor for tensor in _tensors(student) if tensor.requires_grad]
    wanted = torch.autograd.grad(combined * 0.3, inputs)
    for got, gradient in zip(torch.autograd.grad(total * 0.3, inputs), wanted, strict=True):
        torch.testing.assert_close(got.double(), gradient.double(), **tolerances)


@pytest.mark.parametrize("chunk_size", [1, 3, len(POSITIONS), 100, None])
def test_value_and_gradients_equal_whole_logits_for_every_chunk_size(chunk_size):
    _check(_states(0), _states(100, width=4, trainable=False), chunk_size=chunk_size)


@pytest.mark.parametrize(("student", "teacher", "block"), [(5, 2, 1), (7, 3, 2), (3, 100, 100), (0, 0, 0)])
def test_memory_budgets_change_no_number(monkeypatch, student, teacher, block):
    """Sizes in positions; even a budget below one position takes one."""
    monkeypatch.setattr(chunked_trajectories, "_STUDENT_BYTES", 4 * V * 3 * student)
    monkeypatch.setattr(chunked_trajectories, "_TEACHER_BYTES", 4 * V * 3 * teacher)
    monkeypatch.setattr(chunked_trajectories, "_BLOCK_BYTES", 4 * V * 3 * block)
    _check(_states(0), _states(100, width=4, trainable=False))


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.0, 2.0), (0.2, 3.0)])
def test_weights_and_temperature_count_in_value_and_gradient(temperature, weights):
    _check(_states(0), _states(100, trainable=False), weights, temperature)


@pytest.mark.parametrize("head", [{"softcap": 2.0}, {"scale": 0.25}, {"scale": 3.0, "softcap": 1.5}, {"bias": False}])
def test_scale_softcap_and_bias_of_the_head_are_applied_and_differentiated(head):
    _check(_states(0, **head), _states(100, trainable=False, softcap=4.0), chunk_size=2)


@pytest.mark.parametrize("sizes", [(V, V + 9), (V + 9, V)])
def test_vocabularies_that_differ_by_padding_are_compared_on_the_common_part(sizes):
    student, teacher = _states(0, vocabulary=sizes[0]), _states(100, vocabulary=sizes[1], trainable=False)
    _check(student, teacher, chunk_size=2)
    total, *_ = trajectory_sums(_read(student), _read(teacher), TrajectoryDistances(5.0, 1.0, 1.0))
    padding = torch.autograd.grad(total, student.head.weight_VD)[0][V:]
    assert len(padding) == sizes[0] - V
    assert not padding.any()


def test_any_number_of_layers_is_averaged_and_one_has_no_derivative():
    for count in (1, 2, 4):
        student, teacher = _states(0, layers=count), _states(100, layers=count, trainable=False)
        layers = tuple(range(1, count + 1))
        trajectory, derivative = _dense(student, teacher, layers=layers)
        weights = (1.0, 0.0 if count == 1 else 1.0)
        total, *_ = trajectory_sums(_read(student, layers), _read(teacher, layers), TrajectoryDistances(5.0, *weights))
        torch.testing.assert_close(total, trajectory if count == 1 else trajectory + derivative)


def test_float32_is_exact_to_rounding():
    student = _states(0, dtype=torch.float32)
    _check(student, _states(100, trainable=False, dtype=torch.float32), tolerance=2e-5)


@pytest.mark.parametrize("index", range(len(GOLDEN["cases"])))
@pytest.mark.parametrize("chunk_size", [2, None])
def test_sum_and_gradient_are_those_of_the_authors_code(index, chunk_size):
    case = GOLDEN["cases"][index]

    def tensor(entry):
        return torch.tensor(entry["data"], dtype=torch.float32).view(entry["shape"])

    layers = range(1, len(case["student_hidden"]) + 1)
    student = {layer: tensor(entry).requires_grad_() for layer, entry in enumerate(case["student_hidden"], 1)}
    teacher = {layer: tensor(entry) for layer, entry in enumerate(case["teacher_hidden"], 1)}
    positions = tensor(case["attention_mask"]).flatten().nonzero().squeeze(1)
    student_states = States(student[1], student, Head(tensor(case["student_head_weight"])))
    teacher_states = States(teacher[1], teacher, Head(tensor(case["teacher_head_weight"])))
    read = [select_key_layers(states, layers, positions) for states in (student_states, teacher_states)]
    mean = trajectory_sums(*read, TrajectoryDistances(case["temperature"], 1.0, 1.0), chunk_size=chunk_size)[0] / len(
        positions
    )
    assert mean.item() == pytest.approx(case["expected"]["trajectory_plus_derivative"], rel=1e-6)
    mean.backward()
    for layer, entry in zip(layers, case["expected"]["grad_student_hidden"], strict=True):
        golden = tensor(entry)
        torch.testing.assert_close(student[layer].grad, golden, rtol=1e-5, atol=1e-6 * golden.abs().max().item())


def test_positions_left_out_have_no_part_in_it_whatever_stands_there():
    student, teacher = _states(0), _states(100, trainable=False)
    _check(student, teacher)
    before = trajectory_sums(_read(student), _read(teacher), TrajectoryDistances(5.0, 1.0, 1.0))[0]
    with torch.no_grad():
        for hidden in (*student.layers.values(), *teacher.layers.values()):
            hidden[1, 4] = torch.nan
    after = trajectory_sums(_read(student), _read(teacher), TrajectoryDistances(5.0, 1.0, 1.0))[0]
    assert torch.equal(after, before)
    after.backward()
    for hidden in student.layers.values():
        assert torch.isfinite(hidden.grad).all()
        assert not hidden.grad[1, 4].any()


def test_no_position_is_zero_with_zero_gradients():
    student = _states(0)
    total, *_ = trajectory_sums(
        _read(student, positions=[]), _read(_states(9), positions=[]), TrajectoryDistances(5.0, 1.0, 1.0)
    )
    total.backward()
    assert total.item() == 0
    for tensor in _tensors(student):
        assert tensor.grad is not None
        assert not tensor.grad.any()


def test_numbers_of_positions_that_differ_are_refused():
    with pytest.raises(ValueError, match="same numbers of positions and layers"):
        trajectory_sums(_read(_states(0)), _read(_states(1), positions=[0]), TrajectoryDistances(5.0, 1.0, 1.0))


def test_distribution_that_stands_still_has_no_direction_and_a_finite_gradient():
    student, teacher = _states(0, layers=2), _states(100, layers=2, trainable=False)
    with torch.no_grad():
        student.layers[2].copy_(student.layers[1])
    read = _read(student, (1, 2)), _read(teacher, (1, 2))
    total, _, derivative = trajectory_sums(*read, TrajectoryDistances(5.0, 0.0, 1.0))
    assert derivative.item() == pytest.approx(len(POSITIONS))
    total.backward()
    assert all(not tensor.grad.any() for tensor in _tensors(student))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000), scale=st.sampled_from([0.1, 1.0, 30.0]), temperature=st.sampled_from([0.5, 1.0, 5.0])
)
def test_distances_are_bounded_below_by_zero_which_equal_models_reach(seed, scale, temperature):
    student, teacher = (_states(start, layers=3, trainable=False) for start in (seed, seed + 500))
    with torch.no_grad():
        for states in (student, teacher):
            states.head.weight_VD.mul_(scale)
    distances = TrajectoryDistances(temperature, 1.0, 1.0)
    total, trajectory, derivative = trajectory_sums(_read(student), _read(teacher), distances)
    assert trajectory >= 0
    assert 0 <= derivative <= 2 * len(POSITIONS)
    assert torch.isfinite(total)
    for value in trajectory_sums(_read(student), _read(student), distances):
        assert abs(value) < 1e-9


def test_frozen_head_and_frozen_states_are_left_alone():
    student, teacher = _states(0), _states(100, trainable=False)
    frozen = _states(0, trainable=False)
    distances = TrajectoryDistances(5.0, 1.0, 1.0)
    wanted = torch.autograd.grad(trajectory_sums(_read(student), _read(teacher), distances)[0], _tensors(student))
    half = KeyLayerStates(_read(student).layers, _read(student).row_N, frozen.head)
    got = torch.autograd.grad(trajectory_sums(half, _read(teacher), distances)[0], list(student.layers.values()))
    for one, other in zip(got, wanted, strict=False):
        torch.testing.assert_close(one, other)
    half = KeyLayerStates(_read(frozen).layers, _read(frozen).row_N, student.head)
    got = torch.autograd.grad(trajectory_sums(half, _read(teacher), distances)[0], student.head.weight_VD)
    torch.testing.assert_close(got[0], wanted[3])
    assert not trajectory_sums(_read(frozen), _read(teacher), distances)[0].requires_grad
    with torch.no_grad():
        assert not trajectory_sums(_read(student), _read(teacher), distances)[0].requires_grad


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.05), (torch.float16, 0.01)])
def test_autocast_multiplies_in_16_bits_and_keeps_float32_everywhere_else(dtype, tolerance):
    student, teacher = _states(0, dtype=torch.float32), _states(100, trainable=False, dtype=torch.float32)
    weights = 0.7, 1.3
    expected = sum(w * value for w, value in zip(weights, _dense(student, teacher), strict=True))
    with torch.autocast("cpu", dtype):
        total, *_ = trajectory_sums(_read(student), _read(teacher), TrajectoryDistances(5.0, *weights), chunk_size=3)
    assert total.dtype == torch.float32
    assert total.item() != expected.item()
    assert total.item() == pytest.approx(expected.item(), rel=tolerance)
    wanted = torch.autograd.grad(expected, _tensors(student))
    for got, gradient in zip(torch.autograd.grad(total, _tensors(student)), wanted, strict=True):
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, gradient, rtol=0, atol=2 * tolerance * gradient.abs().max().item())


def test_teacher_of_inference_tensors_in_bf16_is_used_in_its_own_dtype():
    student = _states(0, dtype=torch.float32)
    with torch.inference_mode():
        teacher = _states(100, trainable=False, dtype=torch.bfloat16)
        read = _read(teacher)
    total, trajectory, _ = trajectory_sums(_read(student), read, TrajectoryDistances(5.0, 1.0, 1.0))
    assert trajectory.item() == pytest.approx(_dense(student, teacher)[0].item(), rel=1e-2)
    total.backward()
    assert all(tensor.grad.abs().max() > 0 for tensor in _tensors(student))


def test_final_norm_and_projection_come_before_the_head_and_the_last_layer_is_normed_already():
    def tailed(states, seed):
        norm = torch.nn.LayerNorm(D, dtype=DOUBLE)
        projection = torch.nn.Linear(D, 4, bias=False, dtype=DOUBLE)
        with torch.no_grad():
            norm.weight.copy_(_random(D, seed=seed))
        head = Head(_random(V, 4, seed=seed + 1))
        return (
            States(states.final_BTD, states.layers, head, FinalLayers(ModelShape(3, D), norm, projection)),
            norm,
            projection,
        )

    (student, norm, projection), (teacher, *_) = tailed(_states(0), 200), tailed(_states(100, trainable=False), 300)
    distances = TrajectoryDistances(5.0, 1.0, 1.0)

    def dense(with_norm):
        def ready(states):
            tail = states.final_layers
            read = {
                layer: tail.projection(tail.norm(hidden) if with_norm and layer < 3 else hidden)
                for layer, hidden in states.layers.items()
            }
            return States(read[3], read, states.head)

        return sum(_dense(ready(student), ready(teacher)))

    inputs = [*student.layers.values(), projection.weight]
    for with_norm in (False, True):
        read = [_read(states, final_norm=with_norm) for states in (student, teacher)]
        total, *_ = trajectory_sums(*read, distances)
        expected = dense(with_norm)
        torch.testing.assert_close(total, expected)
        chosen = [*inputs, norm.weight] if with_norm else inputs
        wanted = torch.autograd.grad(expected, chosen)
        for got, gradient in zip(torch.autograd.grad(total, chosen), wanted, strict=True):
            torch.testing.assert_close(got, gradient)


def test_final_norm_without_a_norm_is_refused():
    with pytest.raises(RunError, match="final_norm is set, but no final norm was found"):
        _read(_states(0), final_norm=True)


def test_positions_that_count_several_times_do_so_in_values_and_gradients():
    student, teacher = _states(0), _states(100, trainable=False)
    distances = TrajectoryDistances(5.0, 0.7, 1.3)
    count_N = torch.tensor([1, 3, 2])
    values = trajectory_sums(
        _read(student, positions=[0, 2, 7]), _read(teacher, positions=[0, 2, 7]), distances, count_N
    )
    repeated = [0, 2, 2, 2, 7, 7]
    trajectory, derivative = _dense(student, teacher, positions=repeated)
    expected = 0.7 * trajectory + 1.3 * derivative
    torch.testing.assert_close(values, (expected, trajectory.detach(), derivative.detach()))
    wanted = torch.autograd.grad(expected, _tensors(student))
    for got, gradient in zip(torch.autograd.grad(values[0], _tensors(student)), wanted, strict=True):
        torch.testing.assert_close(got, gradient)


def _texts(rows, lengths):
    mask_BT = (torch.arange(len(rows[0])) < torch.tensor(lengths)[:, None]).long()
    nothing = torch.zeros(0, dtype=torch.int64)
    return Batch(torch.tensor(rows), mask_BT, nothing, nothing)


def test_texts_that_begin_alike_share_their_positions_as_far_as_they_do():
    rows = [[5, 6, 7, 8], [5, 6, 9, 8], [5, 6, 9, 0], [6, 6, 7, 8]]
    batch = _texts(rows, [4, 4, 3, 4])
    # States that say which prefix they belong to.
    prefix = [[[float(rows[b][0]), rows[b][1] * (t > 0), rows[b][2] * (t > 1), t] for t in range(4)] for b in range(4)]
    position_N, count_N = distinct_positions(batch, torch.tensor(prefix))
    assert position_N.tolist() == [0, 1, 2, 3, 6, 7, 12, 13, 14, 15]
    assert count_N.tolist() == [3, 3, 1, 1, 2, 1, 1, 1, 1, 1]


def test_states_that_differ_in_a_bit_stay_apart_and_padding_is_no_token():
    batch = _texts([[5, 6], [5, 6], [5, 6]], [2, 1, 2])
    first, second = torch.zeros(3, 2, 1), torch.zeros(3, 2, 1)
    assert [positions.tolist() for positions in distinct_positions(batch, first, second)] == [[0, 1], [3, 2]]
    second[2, 0] = 1e-30
    assert [positions.tolist() for positions in distinct_positions(batch, first, second)] == [[0, 1, 4], [2, 2, 1]]


@pytest.mark.parametrize("temperature", [1.0, 5.0])
def test_logits_hundreds_apart_are_exact_and_leave_no_denormal_numbers(monkeypatch, temperature):
    student, teacher = (_states(start, dtype=torch.float32, bias=False) for start in (0, 100))
    with torch.no_grad():
        for states in (student, teacher):
            states.head.weight_VD.mul_(60)
    gradients = []

    class Watched(chunked_trajectories.Gradients):
        def add_to_head(self, hidden_nD, gradient_nV):
            gradients.append(gradient_nV.clone())
            super().add_to_head(hidden_nD, gradient_nV)

    monkeypatch.setattr(chunked_trajectories, "Gradients", Watched)
    total, trajectory, _ = trajectory_sums(_read(student), _read(teacher), TrajectoryDistances(temperature, 1.0, 0.0))
    z, t = (_logits(states, (1, 2, 3), POSITIONS) / temperature for states in (student, teacher))
    expected = (t.softmax(-1) * (t.log_softmax(-1) - z.log_softmax(-1))).sum(-1).mean(1).sum()
    assert trajectory.item() == pytest.approx(expected.item(), rel=1e-5)
    total.backward()
    sizes = torch.cat(gradients).abs()
    assert ((sizes == 0) | (sizes > torch.finfo(torch.float32).tiny)).all()


class _Largest(TorchDispatchMode):
    """Records the largest output."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for output in result if isinstance(result, tuple | list) else [result]:
            if isinstance(output, torch.Tensor):
                self.elements = max(self.elements, output.numel())
        return result


def test_no_tensor_larger_than_one_chunk_of_logits_or_the_head_is_ever_made(monkeypatch):
    vocabulary, positions, chunk = 300, list(range(B * T)), 2
    monkeypatch.setattr(chunked_trajectories, "_BLOCK_BYTES", 1)
    student = _states(0, vocabulary=vocabulary, dtype=torch.float32)
    teacher = _states(100, vocabulary=vocabulary, trainable=False, dtype=torch.float32)
    read = _read(student, positions=positions), _read(teacher, positions=positions)
    with _Largest() as largest:
        trajectory_sums(*read, TrajectoryDistances(5.0, 1.0, 1.0), chunk_size=chunk)[0].backward()
    # Four scratch tensors of one position each are taken at once.
    assert largest.elements == max(chunk * 3 * vocabulary, vocabulary * D, 4 * 3 * vocabulary)
