"""Contract tests for plugins, and helpers to call a plugin without a model. Needs pytest.

There is one contract class per family. Derive a test class from it, with one fixture, ``plugin``, that returns the
plugin as a run would create it::

    import pytest

    from mta_framework.testing import BaseLossContract
    from mta_mine.my_loss import MyLoss


    class TestMyLoss(BaseLossContract):
        @pytest.fixture
        def plugin(self):
            return MyLoss(MyLoss.Params(strength=2.0))
"""

from __future__ import annotations

import pytest

# This must precede their import: a failing assertion in them then shows its values, as in a test file.
pytest.register_assert_rewrite(
    *(
        f"{__name__}.{module}"
        for module in (
            "plugin",
            "alignment_terms",
            "span_extractors",
            "importance_estimators",
            "layer_mappers",
            "base_losses",
            "batch_policies",
            "metrics",
        )
    )
)

from mta_framework.testing.alignment_terms import AlignmentTermContract  # noqa: E402
from mta_framework.testing.base_losses import BaseLossContract  # noqa: E402
from mta_framework.testing.importance_estimators import ImportanceEstimatorContract  # noqa: E402
from mta_framework.testing.layer_mappers import LayerMapperContract  # noqa: E402
from mta_framework.testing.metrics import MetricContract, PairwiseMetricContract  # noqa: E402
from mta_framework.testing.rollouts import ScriptedRollouts  # noqa: E402
from mta_framework.testing.span_extractors import ODD_TEXTS, SpanExtractorContract  # noqa: E402
from mta_framework.testing.values import batch_of, random_example, random_states, term_sums  # noqa: E402

__all__ = [
    "ODD_TEXTS",
    "AlignmentTermContract",
    "BaseLossContract",
    "ImportanceEstimatorContract",
    "LayerMapperContract",
    "MetricContract",
    "PairwiseMetricContract",
    "ScriptedRollouts",
    "SpanExtractorContract",
    "batch_of",
    "random_example",
    "random_states",
    "term_sums",
]
