"""Registers the plugins with mta-framework, which finds this module by the entry point in pyproject.toml."""

from collections.abc import Sequence

from mta_framework import BaseLoss, SpanExtractor, hookimpl
from mta_hello.clauses import Clauses
from mta_hello.squared_logits import SquaredLogits


@hookimpl
def mta_register_span_extractors() -> Sequence[type[SpanExtractor]]:
    return (Clauses,)


@hookimpl
def mta_register_base_losses() -> Sequence[type[BaseLoss]]:
    return (SquaredLogits,)
