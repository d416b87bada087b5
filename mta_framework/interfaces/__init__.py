"""The contracts of the plugin families. No torch at run time, so that listing plugins is instant.

A plugin class has a ``NAME`` (its name in a spec), a nested ``Params`` (its options, immutable; an unknown one is an
error) and the methods of its family. It is created once per run, when the spec is bound.
"""

from __future__ import annotations

from mta_framework.interfaces.alignment_terms import (
    AlignmentTerm,
    KeyLayer,
    SpanCosines,
    StudentLayer,
    TeacherLayer,
    TeacherNeed,
)
from mta_framework.interfaces.base_losses import BaseLoss
from mta_framework.interfaces.batch_policies import BatchPolicy, BatchPolicyOptions, Rollouts
from mta_framework.interfaces.importance_estimators import ImportanceEstimator
from mta_framework.interfaces.layer_mappers import LayerMapper, MeasuringLayerMapper
from mta_framework.interfaces.metrics import Metric, PairwiseMetric
from mta_framework.interfaces.plugin import FILE_DIGEST, Plugin, PluginChoice, PluginParams
from mta_framework.interfaces.span_extractors import SpanExtractor

__all__ = [
    "FILE_DIGEST",
    "AlignmentTerm",
    "BaseLoss",
    "BatchPolicy",
    "BatchPolicyOptions",
    "ImportanceEstimator",
    "KeyLayer",
    "LayerMapper",
    "MeasuringLayerMapper",
    "Metric",
    "PairwiseMetric",
    "Plugin",
    "PluginChoice",
    "PluginParams",
    "Rollouts",
    "SpanCosines",
    "SpanExtractor",
    "StudentLayer",
    "TeacherLayer",
    "TeacherNeed",
]
