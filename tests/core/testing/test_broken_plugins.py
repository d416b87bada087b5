"""The contract tests fail for plugins that break their contract, each in one way."""

from __future__ import annotations

import pytest
import torch

from mta_framework import (
    ImportanceEstimator,
    LayerMapper,
    LayerPair,
    Metric,
    PluginParams,
    RunError,
    ScoreSet,
    SpanExtractor,
)
from mta_framework.testing import (
    ImportanceEstimatorContract,
    LayerMapperContract,
    MetricContract,
    SpanExtractorContract,
)

from .breaking import breaks


class Whole(SpanExtractor):
    """The whole text."""

    NAME = "whole"
    VERSION = "1"

    @property
    def granularities(self):
        return ("words",)

    def extract(self, texts):
        return [{"words": [(0, len(text))] if text else []} for text in texts]


class Beyond(Whole):
    """Ends outside the text."""

    def extract(self, texts):
        return [{"words": [(0, len(text) + 1)]} for text in texts]


class Overlapping(Whole):
    """Promises what it does not keep."""

    def overlap(self, granularity):
        return "none"

    def extract(self, texts):
        return [{"words": [(0, 2), (1, 3)] if len(text) > 3 else []} for text in texts]


class Sociable(Whole):
    """Looks at the other texts."""

    def extract(self, texts):
        return [{"words": [(0, 1)] if text and len(texts) > 1 else []} for text in texts]


class Missing(Whole):
    """Needs something."""

    def require(self):
        return "a parser: install it."


class Forgetful(Whole):
    """A fingerprint that changes with use."""

    used = 0

    def extract(self, texts):
        self.used += 1
        return super().extract(texts)

    def fingerprint(self):
        return f"[{self.used}]"


class Loose(Whole):
    """Options that nobody can understand."""

    class Params(PluginParams):
        size: int = 3


class Undescribed(Whole):
    Params = PluginParams


@pytest.mark.parametrize(
    ("plugin", "checks"),
    [
        (Whole, []),
        (Beyond, ["texts_of_all_kinds", "alone_among_others"]),
        (Overlapping, ["texts_of_all_kinds", "alone_among_others"]),
        (Sociable, ["alone_among_others"]),
        (Missing, ["what_it_needs"]),
        (Forgetful, ["fingerprint"]),
        (Loose, ["every_option_is_described_and_every_number_bounded"]),
        (Undescribed, ["says_what_it_is"]),
    ],
)
def test_a_broken_span_extractor_fails_where_it_is_broken(plugin, checks):
    breaks(SpanExtractorContract, plugin(plugin.Params()), *checks, errors=(AssertionError, RunError))


def lowest(hidden_BTD, mask_BT):
    """Least norm of any token of the batch."""
    return hidden_BTD.detach().norm(dim=-1)[mask_BT.bool()].min()


class Lowest(ImportanceEstimator):
    """Its faults are methods of one line."""

    NAME = "lowest"

    def __init__(self, weigh):
        super().__init__(self.Params())
        self._weigh = weigh

    def weigh(self, states, layer, mask_BT):
        return self._weigh(states.layers[layer], mask_BT)


@pytest.mark.parametrize(
    ("weigh", "checks"),
    [
        (lambda hidden, mask: hidden.detach().norm(dim=-1) * mask, []),
        (lambda hidden, mask: hidden.norm(dim=-1) * mask, ["have_no_gradient"]),
        (lambda hidden, mask: hidden.detach()[..., 0] * mask, ["non_negative"]),
        (lambda hidden, mask: torch.full_like(hidden[..., 0], torch.nan).detach(), ["non_negative", "within_a_text"]),
        (lambda hidden, mask: torch.ones_like(hidden[..., 0]).detach(), ["zero_on_padding", "within_a_text"]),
        (lambda hidden, mask: mask, ["non_negative"]),
        (lambda hidden, mask: torch.zeros_like(hidden[..., 0]).detach(), ["non_negative", "within_a_text"]),
        (lambda hidden, mask: (hidden.detach().norm(dim=-1) + hidden.detach().norm()) * mask, ["within_a_text"]),
        (lambda hidden, mask: (hidden.detach().norm(dim=-1) - lowest(hidden, mask) + 1) * mask, ["within_a_text"]),
    ],
)
def test_a_broken_importance_estimator_fails_where_it_is_broken(weigh, checks):
    breaks(ImportanceEstimatorContract, Lowest(weigh), *checks)


def test_an_importance_estimator_that_reads_another_layer_is_reported():
    class Below(Lowest):
        """The layer below."""

        def weigh(self, states, layer, mask_BT):
            return self._weigh(states.layers[layer - 1], mask_BT)

    below = Below(lambda hidden, mask: hidden.detach().norm(dim=-1) * mask)
    breaks(ImportanceEstimatorContract, below, "non_negative", errors=(KeyError,))


class Pairs(LayerMapper):
    """Says what it is told to."""

    NAME = "pairs"
    granularities = ("words",)

    def __init__(self, choose):
        super().__init__(self.Params())
        self._choose = choose

    def map(self, student, teacher):
        return self._choose(student.num_layers, teacher.num_layers)


def refused(student, teacher):
    if min(student, teacher) == 1:
        raise ValueError("no")
    return [LayerPair(1, 2, "words")]


@pytest.mark.parametrize(
    ("choose", "checks"),
    [
        (lambda student, teacher: [LayerPair(student, teacher, "words")], []),
        (lambda student, teacher: [LayerPair(student + 1, teacher, "words")], ["within", "too_small"]),
        (lambda student, teacher: [LayerPair(1, 1, "words"), LayerPair(0, 1, "words")], ["within", "too_small"]),
        (lambda student, teacher: [LayerPair(1, 1, "lines")], ["within", "too_small"]),
        (lambda student, teacher: [], ["within", "too_small"]),
        (lambda student, teacher: [LayerPair(float(student), teacher, "words")], ["within", "too_small"]),
        (lambda student, teacher: [(student, teacher, "words")], ["within", "too_small"]),
        (refused, ["too_small"]),
    ],
)
def test_a_broken_layer_mapper_fails_where_it_is_broken(choose, checks):
    breaks(LayerMapperContract, Pairs(choose), *checks)


class Scores(Metric):
    """Says what it is told to."""

    NAME = "scores"

    def __init__(self, score):
        super().__init__(self.Params())
        self._score = score

    def score(self, answers):
        return ScoreSet(tuple(map(self._score, answers.predictions, answers.references)))


class Sorted(Scores):
    """In an order of its own."""

    def score(self, answers):
        return ScoreSet(tuple(sorted(super().score(answers).scores)))


@pytest.mark.parametrize(
    ("metric", "checks"),
    [
        (Scores(lambda text, others: 1.0 * (text in others)), []),
        (Scores(lambda text, others: -1.0 * (text in others)), ["perfect"]),
        (Scores(lambda text, others: 1.0 * (text in others) if text else float("nan")), ["finite", "order"]),
        (Sorted(lambda text, others: 1.0 * (text in others)), ["order", "perfect"]),
    ],
)
def test_a_broken_metric_fails_where_it_is_broken(metric, checks):
    breaks(MetricContract, metric, *checks)


def test_a_module_that_loads_torch_is_reported(tmp_path):
    from mta_framework.registry import discover

    path = tmp_path / "heavy.py"
    source = "import torch\nfrom mta_framework import Metric, ScoreSet, hookimpl\n"
    source += 'class Heavy(Metric):\n    """Heavy."""\n    NAME = "heavy"\n'
    source += "    def score(self, answers):\n        return ScoreSet(())\n"
    path.write_text(f"{source}@hookimpl\ndef mta_register_metrics():\n    return [Heavy]\n")
    check = MetricContract().test_its_module_loads_no_heavy_library
    with pytest.raises(AssertionError, match="import them inside methods"):
        check(discover([path]).create("metrics", "heavy"))
    path.write_text(path.read_text().replace("import torch\n", ""))
    check(discover([path]).create("metrics", "heavy"))


def test_an_extractor_that_cannot_be_pickled_is_reported():
    extractor = Whole(Whole.Params())
    extractor.parser = lambda text: text
    with pytest.raises(Exception, match=r"(?i)pickle"):
        SpanExtractorContract().test_it_travels_to_another_process_after_use(extractor)


def test_contract_tests_show_the_values_of_a_failed_assertion():
    with pytest.raises(AssertionError, match=r"assert 'a parser: install it\.' is None"):
        SpanExtractorContract().test_what_it_needs_is_here(Missing(Missing.Params()))
    with pytest.raises(AssertionError, match=r"== \[\(1, 1\)|LayerPair\(student=0"):
        LayerMapperContract().test_pairs_are_sorted_within_both_models_and_of_its_granularities(
            Pairs(lambda student, teacher: [LayerPair(0, 1, "words")]), (6, 12)
        )
