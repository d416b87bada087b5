"""Every registered plugin keeps the contract of its family, and the rules of this project."""

from __future__ import annotations

import inspect

import pytest

from mta_framework import PairwiseMetric
from mta_framework.registry import FAMILIES, discover
from mta_framework.testing import (
    AlignmentTermContract,
    BaseLossContract,
    ImportanceEstimatorContract,
    LayerMapperContract,
    MetricContract,
    PairwiseMetricContract,
    SpanExtractorContract,
)

REGISTRY = discover()
REQUIRED = {"explicit": {"pairs": [{"student": 2, "teacher": 4, "granularity": "words"}]}}


def all_of(family, contract=object):
    """A ``plugin`` fixture that goes through a family (those of a contract), with default options."""
    offers = {name: REGISTRY.families[family][name][0].plugin for name in REGISTRY.names(family)}

    @pytest.fixture(params=[name for name, plugin in offers.items() if issubclass(plugin, contract)])
    def plugin(self, request):
        options = REQUIRED.get(request.param)
        if request.param == "judge":
            url = request.getfixturevalue("chat_server").base_url
            options = {"base_url": url, "model": "a judge", "max_requests": 1000, "key_env": None}
        return REGISTRY.create(family, request.param, options)

    return plugin


class TestSpanExtractors(SpanExtractorContract):
    plugin = all_of("span_extractors")


class TestImportanceEstimators(ImportanceEstimatorContract):
    plugin = all_of("importance_estimators")


class TestLayerMappers(LayerMapperContract):
    plugin = all_of("layer_mappers")


class TestAlignmentTerms(AlignmentTermContract):
    plugin = all_of("alignment_terms")


class TestAlignmentTermsWithEqualWeights(AlignmentTermContract):
    @pytest.fixture(params=["dsa", "hid"])
    def plugin(self, request):
        return REGISTRY.create("alignment_terms", request.param, {"weights": "equal"})


class TestBaseLosses(BaseLossContract):
    plugin = all_of("base_losses")


class TestMetrics(MetricContract):
    plugin = all_of("metrics")


class TestPairwiseMetrics(PairwiseMetricContract):
    plugin = all_of("metrics", PairwiseMetric)


def test_all_families_have_plugins_and_no_provider_failed():
    assert all(REGISTRY.families[family] for family in FAMILIES)
    assert REGISTRY.failures == []


@pytest.mark.parametrize("family", FAMILIES)
def test_modules_are_called_like_their_plugins(family):
    plugins = [entry.plugin for entries in REGISTRY.families[family].values() for entry in entries]
    assert all(plugin.__module__.rsplit(".", 1)[-1] == plugin.NAME for plugin in plugins)
    assert all(inspect.getdoc(plugin) for plugin in plugins)
