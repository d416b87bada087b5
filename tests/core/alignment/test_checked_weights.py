"""An importance estimator that breaks its contract stops the step and is named, without a question to the device."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from mta_framework import ImportanceEstimator, RunError
from mta_framework.alignment import Alignment, WeightedTerm
from mta_framework.types import LayerPair, ModelShape, States
from mta_plugins.alignment_terms.dsa import DSA
from mta_plugins.alignment_terms.hid import Hid

LENGTHS, SPANS = [4, 3], [[(0, 2), (2, 4)], [(0, 1), (1, 3)]]


class Listed(ImportanceEstimator):
    """Weight 1 but for some entries, from the teacher's layer 2 alone."""

    NAME = "told"

    def __init__(self, weights):
        super().__init__(self.Params())
        self.weights = weights

    def weigh(self, states, layer, mask_BT):
        weight_BT = mask_BT.float()
        if layer == 2:
            for index, value in self.weights.items():
                weight_BT[index] = value
        return weight_BT


def states(width, seed):
    generator = torch.Generator().manual_seed(seed)
    layers = {layer: torch.randn(2, 4, width, generator=generator) for layer in (1, 2)}
    return States(layers[2], layers, None)


def sums(alignment, make_batch):
    terms = alignment(states(4, 1), states(6, 2), make_batch(LENGTHS, SPANS, 4))
    return {term.name: term.sum.item() for term in terms}


def alignment_with(importance):
    terms = [WeightedTerm(DSA(DSA.Params()), 2.0), WeightedTerm(Hid(Hid.Params()), 0.2)]
    return Alignment([LayerPair(1, 2, "words")], importance, terms, ModelShape(2, 4), ModelShape(2, 6))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.5])
def test_an_unsound_weight_makes_the_terms_nan_and_is_found_afterwards(make_batch, value):
    alignment = alignment_with(Listed({(1, 2): value}))
    assert all(math.isnan(total) for total in sums(alignment, make_batch).values())
    expected = f"(got {value} for teacher, layer 2, token 2 of text 1 of a micro-batch)"
    message = "Importance estimator 'told' must give weights that are not negative and have a finite sum"
    assert alignment.fault() == f"{message} {expected}."


def test_the_text_is_called_by_its_place_in_the_data_set_where_that_is_known(make_batch):
    batch = replace(make_batch(LENGTHS, SPANS, 4), index_B=torch.tensor([4071, 16_000_001]))
    for row, text in ((0, "text 4071 of the data set"), (1, "text 16000001 of the data set")):
        alignment = alignment_with(Listed({(row, 2): math.nan}))
        alignment(states(4, 1), states(6, 2), batch)
        assert f"for teacher, layer 2, token 2 of {text})" in alignment.fault()


def test_the_first_fault_is_kept_however_many_follow(make_batch):
    importance = Listed({(0, 1): -1.0, (0, 3): math.nan})
    alignment = alignment_with(importance)
    sums(alignment, make_batch)
    importance.problem = {(1, 0): math.inf}
    sums(alignment, make_batch)
    importance.problem = {}
    sums(alignment, make_batch)
    assert "got -1.0 for teacher, layer 2, token 1 of text 0 " in alignment.fault()


@pytest.mark.parametrize("weights", [{}, {(0, 0): 0.0}, {(1, 3): math.nan}], ids=["none", "zero", "on padding"])
def test_sound_weights_leave_no_fault(make_batch, weights):
    alignment = alignment_with(Listed(weights))
    assert alignment.fault() is None
    assert all(math.isfinite(total) for total in sums(alignment, make_batch).values())
    assert alignment.fault() is None


def test_an_estimator_that_raises_is_named_with_the_line(make_batch):
    importance = Listed({(9, 9): 1.0})
    with pytest.raises(
        RunError, match=r"^importance estimator 'told' failed \(IndexError: .*, in test_checked_weights.py:\d+\)$"
    ):
        sums(alignment_with(importance), make_batch)


@pytest.mark.parametrize("returned", [None, 1.0, [0.5]])
def test_an_estimator_that_returns_no_tensor_is_named(make_batch, returned):
    importance = Listed({})
    importance.weigh = lambda *_: returned
    with pytest.raises(RunError, match=rf"must return a tensor of weights \(got {type(returned).__name__}\)"):
        sums(alignment_with(importance), make_batch)


def test_weights_whose_sum_overflows_are_unsound(make_batch):
    alignment = alignment_with(Listed({(0, 0): 3e38, (0, 1): 3e38}))
    assert all(math.isnan(total) for total in sums(alignment, make_batch).values())
    assert "have a finite sum (got 3" in alignment.fault()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int64, torch.bool])
def test_weights_of_any_real_dtype_are_taken(make_batch, dtype):
    importance = Listed({})
    expected = sums(alignment_with(importance), make_batch)
    importance.weigh = lambda states, layer, mask_BT: mask_BT.to(dtype)
    assert sums(alignment_with(importance), make_batch)["dsa"] == pytest.approx(expected["dsa"])


@pytest.mark.parametrize(
    ("change", "got"),
    [
        (lambda mask_BT: mask_BT + 1j, "torch.complex64"),
        (lambda mask_BT: mask_BT.float().to_sparse(), "torch.sparse_coo"),
        (lambda mask_BT: mask_BT.float().to("meta"), "meta"),
    ],
)
def test_weights_that_cannot_be_computed_with_are_named(make_batch, change, got):
    importance = Listed({})
    importance.weigh = lambda states, layer, mask_BT: change(mask_BT)
    with pytest.raises(RunError, match=rf"^importance estimator 'told' must return real, dense weights on cpu .*{got}"):
        sums(alignment_with(importance), make_batch)


def test_an_estimator_that_changes_the_mask_in_place_is_named(make_batch):
    importance = Listed({})
    importance.weigh = lambda states, layer, mask_BT: mask_BT.zero_().float()
    message = r"^importance estimator 'told' must not change its inputs in place \(changed: mask_BT\)$"
    with pytest.raises(RunError, match=message):
        sums(alignment_with(importance), make_batch)


def test_nothing_is_asked_of_the_device_before_a_fault_is_looked_for(make_batch, monkeypatch):
    """A value that leaves the device goes through one of these."""
    asked = []
    for name in ("item", "tolist", "__bool__", "__int__", "__float__", "__index__"):
        original = getattr(torch.Tensor, name)
        monkeypatch.setattr(
            torch.Tensor, name, lambda self, *given, o=original, n=name: asked.append(n) or o(self, *given)
        )
    from mta_framework.alignment.importance import CheckedImportance

    guard = CheckedImportance(Listed({(1, 2): math.nan}))
    guard.weigh(states(6, 2), 2, make_batch(LENGTHS, SPANS, 4).attention_mask_BT, "teacher")
    assert asked == []
    assert guard.fault() is not None
    assert asked == ["tolist"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.bool])
def test_weights_of_another_dtype_are_those_numbers(make_batch, dtype):
    class Typed(Listed):
        """Weight 1 in some dtype."""

        def weigh(self, states, layer, mask_BT):
            return mask_BT.to(dtype)

    alignments = []
    for estimator in (Typed({}), Listed({})):
        torch.manual_seed(0)  # of the maps of Hid
        alignments.append(alignment_with(estimator))
    first, second = (sums(alignment, make_batch) for alignment in alignments)
    assert first == second
