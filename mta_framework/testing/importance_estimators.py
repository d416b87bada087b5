"""Contract tests of importance estimators."""

from __future__ import annotations

import copy
import dataclasses
import json

import pytest
import torch

from mta_framework.alignment.unchanged_inputs import unchanged_inputs
from mta_framework.interfaces import ImportanceEstimator
from mta_framework.testing.plugin import PluginContract
from mta_framework.testing.values import batch_of, random_example, random_states, some_texts, with_garbage
from mta_framework.types import Batch, ModelShape, States

_SHAPE = ModelShape(6, 8)


def _inputs(gradient: bool = False) -> tuple[Batch, States]:
    """Three texts of 7, 4 and 1 tokens."""
    batch = batch_of(*(random_example(length, 1, seed=length) for length in (7, 4, 1)))
    return batch, random_states(batch, _SHAPE, gradient=gradient)


def _at(states: States, layer: int) -> States:
    """The states with one layer alone, as a run has key layers alone."""
    return dataclasses.replace(states, layers={layer: states.layers[layer]})


class ImportanceEstimatorContract(PluginContract):
    """Tests of an importance estimator, which the fixture ``plugin`` returns."""

    CONTRACT = ImportanceEstimator

    @pytest.mark.parametrize("layer", [2, 6])
    def test_weights_are_finite_non_negative_and_zero_on_padding(self, plugin: ImportanceEstimator, layer: int) -> None:
        batch, states = _inputs()
        states = _at(states, layer)
        with unchanged_inputs(f"importance estimator {plugin.NAME!r}", states=states, mask_BT=batch.attention_mask_BT):
            weight_BT = plugin.weigh(states, layer, batch.attention_mask_BT)
        assert weight_BT.shape == batch.attention_mask_BT.shape
        assert weight_BT.dtype == torch.float32
        assert torch.isfinite(weight_BT).all()
        assert (weight_BT >= 0).all()
        assert (weight_BT[batch.attention_mask_BT == 0] == 0).all()
        assert (weight_BT[:2].sum(1) > 0).all(), "no token of a text has any weight"

    def test_weights_have_no_gradient(self, plugin: ImportanceEstimator) -> None:
        batch, states = _inputs(gradient=True)
        assert not plugin.weigh(states, 6, batch.attention_mask_BT).requires_grad

    def test_padding_and_company_do_not_change_the_weights_within_a_text(self, plugin: ImportanceEstimator) -> None:
        batch, states = _inputs()
        mask_BT = batch.attention_mask_BT
        whole_BT = plugin.weigh(states, 2, mask_BT)
        dirty_BT = plugin.weigh(with_garbage(states, mask_BT), 2, mask_BT)
        for text, length in enumerate(mask_BT[:2].sum(1).tolist()):
            part = slice(text, text + 1)
            (alone_T,) = plugin.weigh(some_texts(states, part, length), 2, mask_BT[part, :length])
            for weight_T in (dirty_BT[text, :length], alone_T):
                torch.testing.assert_close(weight_T / weight_T.sum(), whole_BT[text, :length] / whole_BT[text].sum())

    def test_its_fingerprint_is_json_and_stays_the_same(self, plugin: ImportanceEstimator) -> None:
        batch, states = _inputs()
        unused = copy.deepcopy(plugin)
        plugin.weigh(states, 2, batch.attention_mask_BT)
        assert plugin.fingerprint() == unused.fingerprint()
        assert json.loads(plugin.fingerprint())
