"""The hook specifications, one per plugin family. A hook returns plugin classes; it is called once, at discovery.

A distribution registers plugins through an entry point in the group ``mta_framework``. It names a module that
implements some of these hooks, as functions of the same names marked ``@hookimpl``::

    [project.entry-points.mta_framework]
    mine = "mta_mine.hooks"

A single file with such functions is loaded by ``mta -p FILE``; a spec cannot load one.
"""

from __future__ import annotations

from collections.abc import Sequence

import pluggy

from mta_framework.interfaces import AlignmentTerm, BaseLoss, ImportanceEstimator, LayerMapper, Metric, SpanExtractor

PROJECT = "mta_framework"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def mta_register_span_extractors() -> Sequence[type[SpanExtractor]]:
    """Return classes that find the spans of texts; ``alignment.spans`` in a spec selects one by name."""


@hookspec
def mta_register_importance_estimators() -> Sequence[type[ImportanceEstimator]]:
    """Return classes that weigh tokens; ``alignment.importance`` and ``alignment.pooling`` in a spec select by name."""


@hookspec
def mta_register_layer_mappers() -> Sequence[type[LayerMapper]]:
    """Return classes that choose the key layers; ``alignment.layers`` in a spec selects one by name."""


@hookspec
def mta_register_alignment_terms() -> Sequence[type[AlignmentTerm]]:
    """Return classes that compare states at key layers; ``alignment.terms`` in a spec selects any number by name."""


@hookspec
def mta_register_base_losses() -> Sequence[type[BaseLoss]]:
    """Return classes that compute the loss the alignment is added to; ``base_loss`` in a spec selects one by name."""


@hookspec
def mta_register_metrics() -> Sequence[type[Metric]]:
    """Return classes that score generated texts; ``evaluation.metrics`` in a spec selects any number by name."""
