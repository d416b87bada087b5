from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mta_framework import LayerPair, LayerSimilarity, ModelShape
from mta_plugins.layer_mappers.cka import CKA


def mapper(**params):
    return CKA(CKA.Params(**params))


def within(*changes):
    """Neighbouring layers differ by these; what lies further apart is not looked at."""
    depth = len(changes) + 1
    table = [[0.0] * depth for _ in range(depth)]
    for layer, change in enumerate(changes):
        table[layer][layer + 1] = table[layer + 1][layer] = 1 - change
    return tuple(map(tuple, table))


def chosen(similarity, **params):
    return [(pair.student, pair.teacher) for pair in mapper(**params).choose(similarity)]


def test_key_layers_lie_at_equal_shares_of_the_change():
    flat = ((0.5,) * 6,) * 6
    late = LayerSimilarity(flat, within(0.01, 0.01, 0.1, 0.4, 0.4))
    early = LayerSimilarity(flat, within(0.4, 0.4, 0.1, 0.01, 0.01))
    assert [student for student, _ in chosen(late)] == [4, 5, 6]
    assert [student for student, _ in chosen(early)] == [2, 3, 6]


def test_the_most_similar_layers_are_taken_where_they_ascend():
    across = ((0.1, 0.2, 0.9, 0.3), (0.1, 0.2, 0.3, 0.8), (0.9, 0.1, 0.1, 0.5))
    similarity = LayerSimilarity(across, within(0.3, 0.3))
    # The second layer's best is the last, and the third's the first: neither leaves room in order.
    assert chosen(similarity) == [(1, 2), (2, 3), (3, 4)]
    assert chosen(similarity, phrases=1) == [(2, 3), (3, 4)]


def test_the_last_layers_are_compared_whatever_was_measured():
    across = ((0.9, 0.1, 0.1), (0.9, 0.1, 0.1), (0.1, 0.9, 0.0))
    assert chosen(LayerSimilarity(across, within(0.2, 0.9)))[-1] == (3, 3)


def test_granularities_go_from_words_to_phrases():
    pairs = mapper(words=2, phrases=1).map(ModelShape(6, 1), ModelShape(6, 1))
    assert [pair.granularity for pair in pairs] == ["words", "words", "phrases"]
    assert mapper(words=0).granularities == ("phrases",)
    assert mapper(words=2, phrases=0).granularities == ("words",)
    assert mapper().granularities == ("words", "phrases")


def test_before_anything_is_measured_key_layers_are_even():
    expected = [LayerPair(5, 20, "words"), LayerPair(8, 32, "phrases"), LayerPair(12, 48, "phrases")]
    assert mapper().map(ModelShape(12, 768), ModelShape(48, 1600)) == expected


def test_a_student_whose_layers_are_all_alike_has_even_key_layers():
    same = ((1.0,) * 9,) * 9
    assert [student for student, _ in chosen(LayerSimilarity(same, same))] == [4, 6, 9]


@pytest.mark.parametrize("depths", [(2, 9), (9, 2)])
def test_models_with_too_few_layers_are_refused(depths):
    message = (
        rf"^3 key layers do not fit into models of {depths[0]} and {depths[1]} layers; expected at most 2 key layers\."
    )
    with pytest.raises(ValueError, match=message):
        mapper().map(*(ModelShape(depth, 4) for depth in depths))


@pytest.mark.parametrize(
    "params",
    [
        {"words": 1, "phrases": 0},
        {"words": 0, "phrases": 0},
        {"words": -1},
        {"texts": 0},
        {"texts": 5000},
        {"depth": 1},
    ],
)
def test_params_out_of_range_or_without_effect_are_refused(params):
    with pytest.raises(ValidationError):
        mapper(**params)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_no_other_ascending_choice_is_more_similar(data):
    depth, other, count = data.draw(st.integers(2, 6)), data.draw(st.integers(2, 7)), data.draw(st.integers(2, 4))
    if count > min(depth, other):
        return
    share = st.floats(0, 1)
    across = data.draw(st.lists(st.lists(share, min_size=other, max_size=other), min_size=depth, max_size=depth))
    changes = data.draw(st.lists(share, min_size=depth - 1, max_size=depth - 1))
    similarity = LayerSimilarity(tuple(map(tuple, across)), within(*changes))
    pairs = chosen(similarity, words=1, phrases=count - 1)
    student_layers = [student for student, _ in pairs]
    assert student_layers == sorted(set(student_layers))
    assert pairs[-1] == (depth, other)
    best = max(
        sum(across[s - 1][t - 1] for s, t in zip(student_layers, (*others, other), strict=True))
        for others in combinations(range(1, other), count - 1)
    )
    assert sum(across[s - 1][t - 1] for s, t in pairs) == pytest.approx(best)
