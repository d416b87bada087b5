"""The contracts that plugins fulfil. No torch at run time, so that plugins can be listed at once.

A plugin class has a ``NAME`` (what a spec calls it), a nested ``Params`` (its options; frozen, unknown ones forbidden)
and one contract method. It is created once per run, when the spec is bound.
"""

from __future__ import annotations

from mta_framework.interfaces.base_losses import BaseLoss
from mta_framework.interfaces.batch_policies import BatchPolicy, Rollouts
from mta_framework.interfaces.importance_estimators import ImportanceEstimator
from mta_framework.interfaces.layer_mappers import LayerMapper, MeasuringLayerMapper
from mta_framework.interfaces.metrics import Metric, PairwiseMetric
from mta_framework.interfaces.plugin import Plugin, PluginChoice, PluginParams
from mta_framework.interfaces.span_extractors import SpanExtractor

__all__ = [
    "BaseLoss",
    "BatchPolicy",
    "ImportanceEstimator",
    "LayerMapper",
    "MeasuringLayerMapper",
    "Metric",
    "PairwiseMetric",
    "Plugin",
    "PluginChoice",
    "PluginParams",
    "Rollouts",
    "SpanExtractor",
]
