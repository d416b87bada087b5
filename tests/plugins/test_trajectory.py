"""The geometry of the changes of spans between key layers, against loops in float64."""

from __future__ import annotations

import pytest
import torch

from mta_framework import InputError, LayerPair, ModelShape, States
from mta_framework.runs.layer_checks import require_terms
from mta_framework.testing import batch_of, random_example, random_states, term_sums
from mta_plugins.alignment_terms.dsa import DSA
from mta_plugins.alignment_terms.trajectory import Trajectory

PAIRS = LayerPair(1, 2, "words"), LayerPair(3, 4, "words")
LENGTHS = (9, 5, 7)
SPANS = [[(0, 2), (2, 6), (4, 9)], [(1, 3)], [(0, 1), (1, 4), (1, 6), (5, 6)]]


def _batch():
    texts = zip(LENGTHS, SPANS, strict=True)
    return batch_of(*(random_example(length, 1, spans={"words": spans}) for length, spans in texts))


def _states(width, seed, gradient=False):
    return random_states(_batch(), ModelShape(4, width), seed=seed, gradient=gradient)


def _term(**options):
    return Trajectory(Trajectory.Params(**options))


def _changed(states, change):
    """States whose layers ``change`` maps, given their index and hidden_BTD."""
    layers = {layer: change(layer, hidden) for layer, hidden in states.layers.items()}
    return States(layers[4], layers, states.head)


def _changes(states, layers, text, spans):
    """Differences of the directions of mean states, in float64."""
    vectors = [
        [states.layers[layer][text, start:end].detach().double().mean(0) for start, end in spans] for layer in layers
    ]
    return [upper / upper.norm() - lower / lower.norm() for lower, upper in zip(*vectors, strict=True)]


@pytest.mark.parametrize("reduction", ["example", "batch"])
def test_value_and_pair_weights_are_those_of_loops_over_spans_in_float64(reduction):
    student, teacher = _states(5, 1), _states(8, 2)
    above, below = [], []
    for text, spans in enumerate(SPANS):
        changes = [_changes(student, (1, 3), text, spans), _changes(teacher, (2, 4), text, spans)]
        total = sum(end - start for start, end in spans)
        above.append(0.0)
        below.append(0.0)
        for i, first in enumerate(spans):
            for j, second in enumerate(spans):
                if i != j:
                    angles = [torch.cosine_similarity(change[i], change[j], dim=0).item() for change in changes]
                    # All tokens weigh the same: the weight of a span is its length, by that of all spans of the text.
                    weight = (first[1] - first[0]) * (second[1] - second[0]) / total**2
                    above[-1] += weight * (angles[0] - angles[1]) ** 2
                    below[-1] += weight
    pairs = [index for index, weight in enumerate(below) if weight]
    expected = (
        sum(above[index] / below[index] for index in pairs)
        if reduction == "example"
        else len(pairs) * sum(above) / sum(below)
    )
    (value,) = term_sums(_term(reduction=reduction), PAIRS, student, teacher, _batch())
    assert value.item() == pytest.approx(expected, rel=1e-4)


def test_only_the_heaviest_spans_are_compared():
    student, teacher = _states(5, 1), _states(8, 2)
    longest = [[(2, 6), (4, 9)], [(1, 3)], [(1, 4), (1, 6)]]
    few = batch_of(*(random_example(n, 1, spans={"words": spans}) for n, spans in zip(LENGTHS, longest, strict=True)))
    (limited,) = term_sums(_term(max_spans=2), PAIRS, student, teacher, _batch())
    (expected,) = term_sums(_term(), PAIRS, student, teacher, few)
    torch.testing.assert_close(limited, expected)


def test_layers_that_are_each_alike_but_turned_against_each_other_differ_in_their_changes_alone():
    teacher = _states(6, 2)
    turns = [torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(seed)))[0] for seed in (3, 4)]
    rigid = _changed(teacher, lambda layer, hidden: 3 * layer * hidden @ turns[0])
    twisted = _changed(teacher, lambda layer, hidden: hidden @ turns[layer > 2])
    same = [LayerPair(2, 2, "words"), LayerPair(4, 4, "words")]
    assert term_sums(_term(), same, rigid, teacher, _batch())[0].item() < 1e-9
    assert sum(term_sums(DSA(DSA.Params()), same, twisted, teacher, _batch())).item() < 1e-9
    assert term_sums(_term(), same, twisted, teacher, _batch())[0].item() > 1e-2


def test_the_gradient_reaches_both_layers():
    student = _states(5, 1, gradient=True)
    (value,) = term_sums(_term(), PAIRS, student, _states(8, 2), _batch())
    value.backward()
    reached = [layer for layer, hidden in student.layers.items() if hidden.grad is not None and hidden.grad.any()]
    assert reached == [1, 3]


def test_it_is_computed_where_both_models_changed_from_a_lower_layer_of_the_granularity():
    words = [LayerPair(3, 6, "words"), LayerPair(1, 2, "words"), LayerPair(5, 8, "words")]
    phrases = [LayerPair(6, 12, "phrases")]
    assert _term().key_layers([*words, *phrases]) == [words[0], words[2]]
    assert _term().key_layers([*words, LayerPair(5, 9, "words"), LayerPair(6, 9, "words")]) == [words[0], words[2]]


def test_key_layers_without_a_change_are_refused_with_what_to_set():
    pairs = LayerPair(6, 12, "words"), LayerPair(12, 24, "phrases")
    with pytest.raises(InputError) as error:
        require_terms([DSA(DSA.Params()), _term()], pairs, ModelShape(12, 5), ModelShape(24, 8))
    (fault,) = error.value.faults
    assert fault.where == "alignment.terms.1"
    assert fault.problem.endswith("there are none (got 6->12 words, 12->24 phrases)")
    assert fault.hint.startswith("Change alignment.layers")
