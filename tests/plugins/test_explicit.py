from __future__ import annotations

import pytest
from pydantic import ValidationError

from mta_framework import LayerPair, ModelShape
from mta_plugins.layer_mappers.explicit import Explicit

OPT = [(16, 20, "words"), (18, 23, "phrases"), (20, 26, "phrases"), (22, 29, "phrases"), (24, 32, "phrases")]


def mapper(*entries):
    pairs = [{"student": student, "teacher": teacher, "granularity": name} for student, teacher, name in entries]
    return Explicit(Explicit.Params(pairs=pairs))


def test_pairs_are_given_back_sorted():
    pairs = mapper(*reversed(OPT)).map(ModelShape(24, 16), ModelShape(32, 32))
    assert pairs == [LayerPair(*entry) for entry in OPT]


def test_one_layer_may_serve_two_granularities():
    pairs = mapper((2, 2, "words"), (2, 2, "phrases")).map(ModelShape(2, 1), ModelShape(2, 1))
    assert pairs == [LayerPair(2, 2, "phrases"), LayerPair(2, 2, "words")]


def test_granularities_are_those_of_the_pairs():
    assert mapper((1, 1, "phrases"), (2, 2, "words"), (3, 3, "phrases")).granularities == ("phrases", "words")


def test_every_pair_beyond_its_model_is_named():
    with pytest.raises(ValueError, match=r"within the models \(got 1->9 phrases, 3->1 words\)") as raised:
        mapper((3, 1, "words"), (1, 1, "words"), (1, 9, "phrases")).map(ModelShape(2, 1), ModelShape(8, 1))
    assert "1->1" not in str(raised.value)
    assert "layers 1 to 2 of the student and 1 to 8 of the teacher" in str(raised.value)


@pytest.mark.parametrize(
    "pairs",
    [
        [],
        [{"student": 0, "teacher": 1, "granularity": "words"}],
        [{"student": 1, "teacher": 0, "granularity": "words"}],
        [{"student": 1, "teacher": 1, "granularity": ""}],
        [{"student": 1, "teacher": 1}],
        [{"student": 1, "teacher": 1, "granularity": "words", "weight": 2}],
        [{"student": 1, "teacher": 1, "granularity": "words"}] * 2,
    ],
)
def test_empty_impossible_and_repeated_pairs_are_refused(pairs):
    with pytest.raises(ValidationError):
        Explicit.Params(pairs=pairs)
