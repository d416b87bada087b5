"""Contract tests of layer mappers."""

from __future__ import annotations

import random

import pytest

from mta_framework.interfaces import LayerMapper, MeasuringLayerMapper
from mta_framework.testing.plugin import PluginContract
from mta_framework.types import LayerPair, LayerSimilarity, ModelShape


class LayerMapperContract(PluginContract):
    """Tests of a layer mapper; the fixture ``plugin`` returns one with options that fit a student of 6 layers."""

    CONTRACT = LayerMapper

    @pytest.mark.parametrize("depths", [(6, 12), (12, 48), (24, 24), (24, 6)])
    def test_pairs_are_sorted_within_both_models_and_of_its_granularities(
        self, plugin: LayerMapper, depths: tuple[int, int]
    ) -> None:
        pairs = plugin.map(ModelShape(depths[0], 8), ModelShape(depths[1], 16))
        assert pairs
        _require_valid(pairs, plugin, *depths)

    def test_the_same_models_give_the_same_pairs(self, plugin: LayerMapper) -> None:
        student, teacher = ModelShape(6, 8), ModelShape(12, 16)
        assert plugin.map(student, teacher) == plugin.map(student, teacher)

    @pytest.mark.parametrize("depths", [(1, 1), (2, 48), (6, 1)])
    def test_models_that_are_too_small_are_refused_in_words(self, plugin: LayerMapper, depths: tuple[int, int]) -> None:
        try:
            pairs = plugin.map(ModelShape(depths[0], 8), ModelShape(depths[1], 16))
        except ValueError as refusal:
            problem, _, rest = str(refusal).partition("; expected ")
            expected, _, hint = rest.partition(". ")
            assert all((problem, expected, hint)), "problem; expected NOUN PHRASE. What to do."
        else:
            _require_valid(pairs, plugin, *depths)

    @pytest.mark.parametrize("depths", [(6, 12), (6, 6), (24, 6)])
    def test_what_is_measured_changes_which_layers_but_neither_how_many_nor_of_what(
        self, plugin: LayerMapper, depths: tuple[int, int]
    ) -> None:
        if not isinstance(plugin, MeasuringLayerMapper):
            return
        assert plugin.num_texts >= 1
        expected = plugin.map(ModelShape(depths[0], 8), ModelShape(depths[1], 16))
        for seed in range(3):
            pairs = plugin.choose(_random_similarity(*depths, seed))
            _require_valid(pairs, plugin, *depths)
            assert sorted(pair.granularity for pair in pairs) == sorted(pair.granularity for pair in expected)


def _random_similarity(student: int, teacher: int, seed: int) -> LayerSimilarity:
    draw = random.Random(seed)
    across = tuple(tuple(draw.uniform(-0.1, 1) for _ in range(teacher)) for _ in range(student))
    draws = [[draw.uniform(-0.1, 1) for _ in range(student)] for _ in range(student)]
    within = tuple(
        tuple(1.0 if row == column else draws[min(row, column)][max(row, column)] for column in range(student))
        for row in range(student)
    )
    return LayerSimilarity(across, within)


def _require_valid(pairs: list[LayerPair], plugin: LayerMapper, student: int, teacher: int) -> None:
    assert all(isinstance(pair, LayerPair) for pair in pairs), "LayerPair(student, teacher, granularity) is expected"
    assert all(type(layer) is int for pair in pairs for layer in (pair.student, pair.teacher)), "layers are integers"
    assert pairs == sorted({*pairs}), "pairs must be sorted, each once"
    assert [pair for pair in pairs if not (1 <= pair.student <= student and 1 <= pair.teacher <= teacher)] == []
    assert {pair.granularity for pair in pairs} == set(plugin.granularities)
