"""The five doors through which plugins come in. Each hook returns classes; it is called once, when a spec is bound.

A distribution offers plugins by an entry point in the group ``mta_framework`` that names a module with functions of
these names, marked ``@hookimpl``::

    [project.entry-points.mta_framework]
    mine = "mta_mine.hooks"

A single file with such functions is loaded by ``mta -p FILE``, on the command line only.
"""

from __future__ import annotations

from collections.abc import Sequence

import pluggy

from mta_framework.interfaces import BaseLoss, ImportanceEstimator, LayerMapper, Metric, SpanExtractor

PROJECT = "mta_framework"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def mta_register_span_extractors() -> Sequence[type[SpanExtractor]]:
    """Classes that find the spans of a text; ``alignment.spans`` names one."""


@hookspec
def mta_register_importance_estimators() -> Sequence[type[ImportanceEstimator]]:
    """Classes that weigh the tokens of a text; ``alignment.importance`` names one."""


@hookspec
def mta_register_layer_mappers() -> Sequence[type[LayerMapper]]:
    """Classes that choose which layers are compared; ``alignment.layers`` names one."""


@hookspec
def mta_register_base_losses() -> Sequence[type[BaseLoss]]:
    """Classes that compute the loss which the alignment is added to; ``base_loss`` names one."""


@hookspec
def mta_register_metrics() -> Sequence[type[Metric]]:
    """Classes that score generated text; ``evaluation.metrics`` names any number of them."""
