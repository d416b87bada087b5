"""Hidden MSE: values by loops in float64, the bridge by singular values and least squares, every option's contract."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from mta_framework import LayerPair, ModelShape
from mta_framework.alignment import Alignment, WeightedTerm
from mta_framework.errors import InputError
from mta_framework.testing import AlignmentTermContract, batch_of, random_example, random_states, term_sums
from mta_plugins.alignment_terms.hidden_mse import HiddenMSE
from mta_plugins.importance_estimators.uniform import Uniform

PAIR = LayerPair(1, 2, "words")
STUDENT, TEACHER = ModelShape(1, 4), ModelShape(2, 6)
SPANS = [[(0, 3), (2, 4)], [(1, 2)], [], [(0, 2)]]
TEXTS = [(7, 2, (4, 5)), (5, 1, None), (3, 3, None), (4, 2, None)]
"""Length, prompt and gap of each text: supervised are the tokens 2, 3, 5 and 6; 1 to 4; none; 2 and 3."""
SUPERVISED = [[2, 3, 5, 6], [1, 2, 3, 4], [], [2, 3]]


def made(**options):
    return HiddenMSE(HiddenMSE.Params(**options))


def texts():
    examples = zip(TEXTS, SPANS, strict=True)
    return batch_of(*(random_example(n, p, gap=gap, spans={"words": s}) for (n, p, gap), s in examples))


def double(states):
    layers = {layer: hidden.double() for layer, hidden in states.layers.items()}
    return replace(states, final_BTD=layers[max(layers)], layers=layers)


def both(batch, width=TEACHER.hidden_size):
    student, teacher = random_states(batch, STUDENT, seed=1), random_states(batch, ModelShape(2, width), seed=2)
    return double(student), double(teacher)


def mean_over_texts(positions, distance):
    """Sum over the texts that have a position of the mean over their positions."""
    return sum(sum(distance(text, token) for token in tokens) / len(tokens) for text, tokens in positions if tokens)


@pytest.mark.parametrize(
    ("options", "positions"),
    [
        ({"positions": "all"}, SUPERVISED),
        ({"positions": "first_k", "k": 3}, [[2, 3, 5], [1, 2, 3], [], [2, 3]]),
        ({"positions": "last_k", "k": 3}, [[3, 5, 6], [2, 3, 4], [], [2, 3]]),
        ({"positions": "last_k", "k": 1}, [[6], [4], [], [3]]),
        ({"positions": "first_k", "k": 1000}, SUPERVISED),
        # Token 2 of the first text lies in two spans.
        ({"positions": "spans"}, [[0, 1, 2, 2, 3], [1], [], [0, 1]]),
    ],
)
@pytest.mark.parametrize("normalise", [False, True])
def test_value_is_the_mean_over_the_positions_of_each_text(options, positions, normalise):
    batch = texts()
    student, teacher = both(batch, STUDENT.hidden_size)

    def distance(text, token):
        states = [side.layers[layer][text, token].numpy() for side, layer in ((student, 1), (teacher, 2))]
        if normalise:
            states = [state / np.linalg.norm(state) for state in states]
        return np.square(states[0] - states[1]).sum() / 4

    term = made(projection="none", normalise=normalise, **options)
    (value,) = term_sums(term, [PAIR], student, teacher, batch)
    assert value.item() == pytest.approx(mean_over_texts(enumerate(positions), distance), rel=1e-6)
    assert batch.counts[term.unit("words")] == sum(bool(tokens) for tokens in positions) == 3


def test_a_trained_map_with_bias_lies_between_different_widths():
    batch = texts()
    student, teacher = both(batch)
    term = WeightedTerm(made(), 1.0)
    alignment = Alignment([PAIR], Uniform(Uniform.Params()), [term], STUDENT, TEACHER).double()
    (value,) = alignment(student, teacher, batch)
    (linear,) = alignment.term_modules["hidden_mse"]
    weight, bias = (parameter.detach().numpy() for parameter in (linear.weight, linear.bias))

    def distance(text, token):
        projected = weight @ student.layers[1][text, token].numpy() + bias
        return np.square(projected - teacher.layers[2][text, token].numpy()).mean()

    assert value.sum.item() == pytest.approx(mean_over_texts(enumerate(SUPERVISED), distance), rel=1e-9)
    gradients = torch.autograd.grad(value.sum, list(linear.parameters()))
    assert all(gradient.any() for gradient in gradients)


def rows_of(states, layer):
    """The states at the supervised positions, and the weight of each: that of a text is spread over its positions."""
    rows = [states.layers[layer][text, token].numpy() for text, tokens in enumerate(SUPERVISED) for token in tokens]
    return np.stack(rows), np.array([1 / len(tokens) for tokens in SUPERVISED for _ in tokens])


def fitted(batches, **options):
    term = WeightedTerm(made(projection="pca", **options), 1.0)
    alignment = Alignment([PAIR], Uniform(Uniform.Params()), [term], STUDENT, TEACHER).double()
    with torch.no_grad():
        alignment.fit(alignment.terms[0], batches)
    (bridge,) = alignment.term_modules["hidden_mse"]
    return alignment, bridge


def test_the_bridge_is_the_pca_of_the_teacher_and_least_squares_of_the_student():
    batch = texts()
    student, teacher = both(batch)
    alignment, bridge = fitted([(student, teacher, batch)], rank=3)
    (student_rows, weight), (teacher_rows, _) = rows_of(student, 1), rows_of(teacher, 2)
    mean = np.average(teacher_rows, axis=0, weights=weight)
    scale = np.sqrt(weight)[:, None]
    _, _, directions = np.linalg.svd(scale * (teacher_rows - mean))
    np.testing.assert_allclose(bridge.mean_D.numpy(), mean, rtol=1e-9)
    signs = np.sign((bridge.teacher_rD.numpy() * directions[:3]).sum(1))
    components = signs[:, None] * directions[:3]
    np.testing.assert_allclose(bridge.teacher_rD.numpy(), components, atol=1e-8)
    targets = (teacher_rows - mean) @ components.T
    solution, *_ = np.linalg.lstsq(scale * student_rows, scale * targets, rcond=None)
    np.testing.assert_allclose(bridge.student_rD.numpy(), solution.T, atol=1e-6)
    (value,) = alignment(student, teacher, batch)
    residual = np.square(student_rows @ solution - targets).mean(1) @ weight
    assert value.sum.item() == pytest.approx(residual, rel=1e-6)
    assert not list(alignment.parameters())


def test_the_bridge_does_not_depend_on_how_its_texts_are_batched():
    batch = texts()
    student, teacher = both(batch)
    parts = []
    for text in range(4):
        length, prompt, gap = TEXTS[text]
        one = batch_of(random_example(length, prompt, gap=gap, spans={"words": SPANS[text]}))
        cut = [
            replace(side, layers={layer: hidden[text : text + 1, :length] for layer, hidden in side.layers.items()})
            for side in (student, teacher)
        ]
        parts.append((*cut, one))
    (_, whole), (_, cut) = fitted([(student, teacher, batch)], rank=2), fitted(parts, rank=2)
    for name, buffer in whole.named_buffers():
        torch.testing.assert_close(dict(cut.named_buffers())[name].abs(), buffer.abs(), rtol=1e-7, atol=1e-9)


def test_a_bridge_without_a_position_to_fit_it_on_is_refused():
    batch = batch_of(random_example(3, 3, spans={"words": [(0, 1)]}))
    student, teacher = both(batch)
    with pytest.raises(
        InputError, match=r"^alignment.terms.0: finds nothing to fit its bridge on \(got positions 'all'"
    ):
        fitted([(student, teacher, batch)], rank=2)
    fitted([(student, teacher, batch)], rank=2, positions="spans")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 5}, "k has no effect where positions is 'all'"),
        ({"positions": "spans", "k": 5}, "k has no effect where positions is 'spans'"),
        ({"rank": 4}, "rank has no effect where projection is 'linear'"),
        ({"projection": "none", "texts": 4}, "texts has no effect where projection is 'none'"),
    ],
)
def test_options_without_effect_are_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        made(**options)


def test_widths_that_differ_and_ranks_beyond_them_are_refused_with_both_values():
    with pytest.raises(ValueError, match=r"different widths \(got 4 and 6\); expected models of one width"):
        made(projection="none").make_module(STUDENT, TEACHER)
    with pytest.raises(ValueError, match=r"rank beyond the widths of the models \(got 8\); expected at most 4"):
        made(projection="pca").make_module(STUDENT, TEACHER)


def test_texts_of_a_batch_in_which_nothing_is_supervised_give_zero_on_the_graph():
    batch = batch_of(random_example(3, 3, spans={"words": []}), random_example(2, 2, spans={"words": []}))
    for positions in ("all", "first_k", "last_k", "spans"):
        student = random_states(batch, STUDENT, seed=1, gradient=True)
        (value,) = term_sums(made(positions=positions), [PAIR], student, random_states(batch, TEACHER), batch)
        assert value.item() == 0
        assert not torch.autograd.grad(value, student.layers[1])[0].any()


OPTIONS = [
    {"positions": "spans"},
    {"positions": "first_k", "k": 2},
    {"positions": "last_k", "k": 2, "normalise": True},
    {"projection": "pca", "rank": 2},
    {"projection": "pca", "rank": 3, "positions": "spans", "normalise": True},
]


class TestOptions(AlignmentTermContract):
    @pytest.fixture(params=OPTIONS, ids=str)
    def plugin(self, request):
        return made(**request.param)


class TestEqualWidths(AlignmentTermContract):
    TEACHER = ModelShape(12, 8)

    @pytest.fixture(params=["all", "spans"])
    def plugin(self, request):
        return made(projection="none", positions=request.param)
