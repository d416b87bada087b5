"""Every registered plugin keeps the contract of its family, and the rules of this project."""

from __future__ import annotations

import inspect

import pytest

from mta_framework.registry import FAMILIES, discover
from mta_framework.testing import (
    BaseLossContract,
    ImportanceEstimatorContract,
    LayerMapperContract,
    MetricContract,
    SpanExtractorContract,
)

REGISTRY = discover()
REQUIRED = {"explicit": {"pairs": [{"student": 2, "teacher": 4, "granularity": "words"}]}}


def all_of(family):
    """A ``plugin`` fixture that goes through a family, with default options."""

    @pytest.fixture(params=REGISTRY.names(family))
    def plugin(self, request):
        return REGISTRY.create(family, request.param, REQUIRED.get(request.param))

    return plugin


class TestSpanExtractors(SpanExtractorContract):
    plugin = all_of("span_extractors")


class TestImportanceEstimators(ImportanceEstimatorContract):
    plugin = all_of("importance_estimators")


class TestLayerMappers(LayerMapperContract):
    plugin = all_of("layer_mappers")


class TestBaseLosses(BaseLossContract):
    plugin = all_of("base_losses")


class TestMetrics(MetricContract):
    plugin = all_of("metrics")


def test_all_families_have_plugins_and_no_provider_failed():
    assert all(REGISTRY.families[family] for family in FAMILIES)
    assert REGISTRY.failures == []


@pytest.mark.parametrize("family", FAMILIES)
def test_modules_are_called_like_their_plugins(family):
    plugins = [entry.plugin for entries in REGISTRY.families[family].values() for entry in entries]
    assert all(plugin.__module__.rsplit(".", 1)[-1] == plugin.NAME for plugin in plugins)
    assert all(inspect.getdoc(plugin) for plugin in plugins)
