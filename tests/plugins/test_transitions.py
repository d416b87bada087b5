"""Moves between span tokens, their directions and the angles between these, against loops in float64."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from pydantic import ValidationError

from mta_framework import LayerPair, ModelShape, States
from mta_framework.alignment import Alignment, WeightedTerm
from mta_framework.testing import batch_of, random_example, random_states, term_sums
from mta_plugins.alignment_terms.transitions import Transitions
from mta_plugins.importance_estimators.uniform import Uniform

PAIRS = (LayerPair(1, 2, "words"),)
LENGTHS = (12, 6, 5, 4, 9)
SPANS = [[(0, 3), (2, 5), (7, 8), (9, 12)], [(1, 2)], [], [(0, 2)], [(0, 9)]]
TOKENS = [[0, 1, 2, 3, 4, 7, 9, 10, 11], [1], [], [0, 1], list(range(9))]
"""The span tokens of each text."""


def _batch():
    texts = zip(LENGTHS, SPANS, strict=True)
    return batch_of(*(random_example(length, 1, spans={"words": spans}) for length, spans in texts))


def _states(width, seed):
    return random_states(_batch(), ModelShape(2, width), seed=seed)


def _term(**options):
    return Transitions(Transitions.Params(**options))


def _geometry(student, teacher, **options):
    (value,) = term_sums(_term(parts="geometry", **options), PAIRS, student, teacher, _batch())
    return value


def _moved(states, change):
    layers = {layer: change(hidden) for layer, hidden in states.layers.items()}
    return States(layers[2], layers, states.head)


def _directions(hidden_BTD, text):
    states = [hidden_BTD[text, token].detach().double() for token in TOKENS[text]]
    moves = [after - before for before, after in pairwise(states)]
    return [move / move.norm() for move in moves]


def _expected(student, teacher, project, window):
    """Both parts, summed over the texts."""
    direction = geometry = 0.0
    for text in range(len(LENGTHS)):
        sides = _directions(student.layers[1], text), _directions(teacher.layers[2], text)
        moves = range(len(sides[0]))
        if moves:
            cosines = [torch.cosine_similarity(project @ sides[0][i], sides[1][i], dim=0).item() for i in moves]
            direction += sum(1 - cosine for cosine in cosines) / len(cosines)
        pairs = [(i, j) for i in moves for j in moves if 1 <= abs(i - j) <= window - 2]
        if pairs:
            squares = [(sides[0][i] @ sides[0][j] - sides[1][i] @ sides[1][j]).item() ** 2 for i, j in pairs]
            geometry += sum(squares) / len(squares)
    return direction, geometry


@pytest.mark.parametrize("window", [3, 4, 6, 9, 40])
def test_parts_are_those_of_loops_over_moves_in_float64(window):
    student, teacher, values = _states(4, 1), _states(7, 2), {}
    for parts in ("direction", "geometry", "both"):
        torch.manual_seed(0)
        options = {} if parts == "direction" else {"window": window}
        term = WeightedTerm(_term(parts=parts, **options), 1.0)
        alignment = Alignment(PAIRS, Uniform(Uniform.Params()), [term], ModelShape(2, 4), ModelShape(2, 7))
        (values[parts],) = (entry.sum.item() for entry in alignment(student, teacher, _batch()))
        if parts == "direction":
            (project,) = (weight.detach().double() for weight in alignment.parameters())
    direction, geometry = _expected(student, teacher, project, window)
    assert values["direction"] == pytest.approx(direction, rel=1e-5)
    assert values["geometry"] == pytest.approx(geometry, rel=1e-5)
    assert values["both"] == pytest.approx((direction + geometry) / 2, rel=1e-5)


def test_a_window_over_the_whole_text_gives_the_gram_matrices_of_the_paper_without_their_diagonal():
    """PHF, Eq. 7 divides by all entries, although those on the diagonal are always 0."""
    student, teacher = _states(4, 1), _states(7, 2)
    expected = 0.0
    for text in (0, 4):
        grams = [torch.stack(_directions(hidden, text)) for hidden in (student.layers[1], teacher.layers[2])]
        moves = len(grams[0])
        paper = (grams[0] @ grams[0].T - grams[1] @ grams[1].T).square().sum().item() / moves**2
        expected += paper * moves / (moves - 1)
    assert _geometry(student, teacher, window=40).item() == pytest.approx(expected, rel=1e-5)


def test_geometry_does_not_depend_on_offset_scale_and_rotation_of_either_model():
    student, teacher = _states(4, 1), _states(7, 2)
    turn = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(3)))[0]
    moved = _moved(student, lambda hidden: 5 * hidden @ turn + torch.arange(4.0))
    torch.testing.assert_close(_geometry(moved, teacher), _geometry(student, teacher), rtol=1e-4, atol=1e-6)
    assert _geometry(student, States(student.final_BTD, {2: moved.layers[1]}, student.head)).item() < 1e-9


def test_direction_is_zero_when_the_map_turns_the_moves_into_the_teachers():
    student = _states(4, 1)
    term = WeightedTerm(_term(parts="direction"), 1.0)
    alignment = Alignment(PAIRS, Uniform(Uniform.Params()), [term], ModelShape(2, 4), ModelShape(2, 7))
    (weight,) = alignment.parameters()
    teacher = _moved(student, lambda hidden: 2 + 3 * hidden @ weight.detach().T)
    teacher = States(teacher.layers[1], {2: teacher.layers[1]}, student.head)
    (entry,) = alignment(student, teacher, _batch())
    assert abs(entry.sum.item()) < 1e-5


def test_tokens_outside_of_spans_have_no_effect_and_get_no_gradient():
    student, teacher = random_states(_batch(), ModelShape(2, 4), seed=1, gradient=True), _states(7, 2)
    value = _geometry(student, teacher)
    value.backward()
    touched = [sorted(set(row.nonzero()[:, 0].tolist())) for row in student.layers[1].grad]
    assert touched == [TOKENS[0], [], [], [], TOKENS[4]]


def test_directions_of_models_of_one_width_can_be_compared_as_they_are():
    student, teacher = _states(4, 1), _states(4, 2)
    (value,) = term_sums(_term(parts="direction", projection="none"), PAIRS, student, teacher, _batch())
    expected, _ = _expected(student, teacher, torch.eye(4, dtype=torch.float64), 3)
    assert value.item() == pytest.approx(expected, rel=1e-5)


def test_models_of_two_widths_need_a_map_for_directions():
    with pytest.raises(ValueError, match=r"\(got 4 and 7\); expected models of one width, or a projection"):
        _term(projection="none").make_module(ModelShape(2, 4), ModelShape(2, 7))


@pytest.mark.parametrize("options", [{"parts": "geometry", "projection": "none"}, {"parts": "direction", "window": 9}])
def test_options_of_the_part_that_is_left_out_are_refused(options):
    with pytest.raises(ValidationError, match="has no effect where parts is"):
        _term(**options)


def test_only_directions_have_a_map_and_all_parts_compare_tokens():
    shapes = ModelShape(2, 4), ModelShape(2, 7)
    assert _term(parts="geometry").make_module(*shapes) is None
    assert [tuple(weight.shape) for weight in _term().make_module(*shapes).parameters()] == [(7, 4)]
    assert all(_term(parts=parts).needs_shared_tokenizer for parts in ("both", "direction", "geometry"))
