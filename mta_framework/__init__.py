"""MTA: distil language models with multi-granular trajectory alignment.

This is the public interface for plugin authors. Beside it plugins import ``mta_framework.chunked_loss`` and, for some,
``mta_framework.batch_policies`` and the tools that ``docs/explanation/architecture.md`` names.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mta_framework.errors import Fault, InputError, MTAError, RunError
    from mta_framework.hookspecs import hookimpl
    from mta_framework.interfaces import (
        AlignmentTerm,
        BaseLoss,
        BatchPolicy,
        ImportanceEstimator,
        KeyLayer,
        LayerMapper,
        MeasuringLayerMapper,
        Metric,
        PairwiseMetric,
        PluginChoice,
        PluginParams,
        Rollouts,
        SpanCosines,
        SpanExtractor,
        StudentLayer,
        TeacherLayer,
        TeacherNeed,
    )
    from mta_framework.types import (
        ATTENDED_TOKENS,
        CHUNKS,
        MATCHED_POSITIONS,
        TEXTS,
        TEXTS_BY_OTHERS,
        TEXTS_BY_STUDENT,
        TOKENS,
        Batch,
        Example,
        FinalLayers,
        Generations,
        Head,
        LayerPair,
        LayerSimilarity,
        Likelihood,
        LossTerm,
        LossTerms,
        ModelShape,
        Overlap,
        Progress,
        Responder,
        ScoreSet,
        Span,
        SpanIndex,
        SpanSet,
        States,
        span_memberships,
        texts_with_span_pairs,
        texts_with_spans,
    )

__version__ = "0.1.0"

__all__ = [
    "ATTENDED_TOKENS",
    "CHUNKS",
    "MATCHED_POSITIONS",
    "TEXTS",
    "TEXTS_BY_OTHERS",
    "TEXTS_BY_STUDENT",
    "TOKENS",
    "AlignmentTerm",
    "BaseLoss",
    "Batch",
    "BatchPolicy",
    "Example",
    "Fault",
    "FinalLayers",
    "Generations",
    "Head",
    "ImportanceEstimator",
    "InputError",
    "KeyLayer",
    "LayerMapper",
    "LayerPair",
    "LayerSimilarity",
    "Likelihood",
    "LossTerm",
    "LossTerms",
    "MTAError",
    "MeasuringLayerMapper",
    "Metric",
    "ModelShape",
    "Overlap",
    "PairwiseMetric",
    "PluginChoice",
    "PluginParams",
    "Progress",
    "Responder",
    "Rollouts",
    "RunError",
    "ScoreSet",
    "Span",
    "SpanCosines",
    "SpanExtractor",
    "SpanIndex",
    "SpanSet",
    "States",
    "StudentLayer",
    "TeacherLayer",
    "TeacherNeed",
    "__version__",
    "hookimpl",
    "span_memberships",
    "texts_with_span_pairs",
    "texts_with_spans",
]

_HOMES = ("errors", "hookspecs", "interfaces", "types")


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used: ``mta --help`` needs none of them, and importing pydantic is slow."""
    if name in __all__:
        for home in _HOMES:
            module = importlib.import_module(f"{__name__}.{home}")
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
