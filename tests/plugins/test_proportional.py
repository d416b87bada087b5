from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mta_framework import LayerPair, ModelShape
from mta_plugins.layer_mappers.proportional import Proportional


def layers_of(student, teacher, **params):
    mapper = Proportional(Proportional.Params(**params))
    return mapper.map(ModelShape(student, 16), ModelShape(teacher, 32))


def pairs(granularity, *layers):
    return [LayerPair(student, teacher, granularity) for student, teacher in layers]


def test_defaults_give_the_papers_layers_for_gpt2():
    assert layers_of(12, 48) == pairs("words", (6, 24)) + pairs("phrases", (9, 36), (12, 48))


def test_the_papers_layers_for_qwen():
    upper = [(layer, layer) for layer in (16, 18, 20, 22, 24)]
    assert layers_of(24, 24, phrases=5, lowest_depth=14 / 24) == pairs("words", (14, 14)) + pairs("phrases", *upper)


def test_a_single_key_layer_is_the_last():
    assert layers_of(12, 24, words=0, phrases=1) == pairs("phrases", (12, 24))
    assert layers_of(1, 4, words=1, phrases=0) == pairs("words", (1, 4))


def test_a_default_that_is_written_out_is_no_setting_without_effect():
    params = Proportional.Params(words=1, phrases=0)
    assert Proportional.Params.model_validate(params.model_dump()) == params
    with pytest.raises(ValidationError, match="lowest_depth has no effect on a single key layer"):
        Proportional.Params(words=1, phrases=0, lowest_depth=0.25)


def test_only_granularities_in_use_are_named():
    assert Proportional(Proportional.Params()).granularities == ("words", "phrases")
    assert Proportional(Proportional.Params(words=0)).granularities == ("phrases",)
    assert Proportional(Proportional.Params(phrases=0)).granularities == ("words",)


def test_as_many_key_layers_as_there_is_room_for():
    assert [pair.student for pair in layers_of(4, 4, words=1, phrases=2)] == [2, 3, 4]
    assert [pair.student for pair in layers_of(4, 8, words=2, phrases=2, lowest_depth=0.01)] == [1, 2, 3, 4]


def test_too_few_layers_are_refused_with_what_would_do():
    with pytest.raises(ValueError, match=r"4 key layers do not fit into layers 2 to 4 .*at most 3 key layers\. Lower"):
        layers_of(4, 4, phrases=3)


@pytest.mark.parametrize(
    "params",
    [{"words": 0, "phrases": 0}, {"words": -1}, {"lowest_depth": 0}, {"lowest_depth": 1.1}, {"depth": 1},
     {"words": 0, "phrases": 1, "lowest_depth": 0.25}],
)  # fmt: skip
def test_params_out_of_range_or_without_effect_are_refused(params):
    with pytest.raises(ValidationError):
        Proportional.Params(**params)


@given(
    student=st.integers(1, 60),
    teacher=st.integers(1, 100),
    words=st.integers(0, 6),
    phrases=st.integers(0, 6),
    depth=st.floats(0.01, 1),
)
def test_layers_are_distinct_ascending_within_depth_and_end_at_the_last(student, teacher, words, phrases, depth):
    if words + phrases < 2:
        return
    try:
        pairs = layers_of(student, teacher, words=words, phrases=phrases, lowest_depth=depth)
    except ValueError:
        assert words + phrases > student - max(1, round(depth * student)) + 1
        return
    students, teachers = [pair.student for pair in pairs], [pair.teacher for pair in pairs]
    assert students == sorted(set(students))
    assert students[0] == max(1, round(depth * student))
    assert students[-1] == student
    assert teachers == sorted(teachers)
    assert teachers[0] >= 1
    assert teachers[-1] == teacher
    assert [pair.granularity for pair in pairs] == ["words"] * words + ["phrases"] * phrases
