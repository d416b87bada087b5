"""The contract tests of alignment terms fail for terms that wait for the device or keep what they fit to themselves."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mta_framework import AlignmentTerm, RunError
from mta_framework.testing import AlignmentTermContract

CONTRACT = AlignmentTermContract()


class Length(AlignmentTerm):
    """Sum of a function of the student's span vectors."""

    NAME = "length"

    def __init__(self, value=lambda vector_SD: vector_SD.square().sum()):
        super().__init__(self.Params())
        self.value = value

    def teacher_needs(self, has_shared_tokenizer):
        return ()

    def compute(self, layer, module):
        return self.value(layer.student.span_vector_SD)


@pytest.mark.parametrize(
    "value",
    [
        lambda vector_SD: vector_SD.sum() * vector_SD.sum().item(),
        lambda vector_SD: vector_SD.sum() if vector_SD.sum() > 0 else vector_SD.square().sum(),
        lambda vector_SD: vector_SD[vector_SD > 0].sum(),
        lambda vector_SD: vector_SD.masked_select(vector_SD > 0).sum(),
        lambda vector_SD: vector_SD.flatten().index_select(0, vector_SD.flatten().nonzero()[:, 0]).sum(),
    ],
    ids=["item", "if", "boolean index", "masked_select", "nonzero"],
)
def test_a_term_that_waits_for_the_device_is_reported(value):
    with pytest.raises(RunError, match="waits for the device"):
        CONTRACT.test_it_does_not_wait_for_the_device(Length(value))


def test_a_term_that_does_not_wait_passes():
    CONTRACT.test_it_does_not_wait_for_the_device(Length())


@pytest.mark.parametrize(
    ("need", "message"),
    [("states", "reads nothing that needs 'states'; leave it out"), ("state", "{'state'}; there are geometry, ")],
)
def test_a_need_that_nothing_reads_or_that_does_not_exist_is_reported(need, message):
    term = Length()
    term.teacher_needs = lambda has_shared_tokenizer: (need,)
    with pytest.raises(AssertionError, match=message):
        CONTRACT.test_it_declares_what_it_reads_of_the_teacher_and_nothing_else(term)


class Centred(Length):
    """Distance of span vectors from their mean, which is fitted, and kept in a buffer or outside of it."""

    NAME = "centred"
    num_texts = 4

    def __init__(self, in_buffer):
        super().__init__()
        self.in_buffer = in_buffer

    def make_module(self, student, teacher):
        module = nn.Module()
        module.register_buffer("mean_D", torch.zeros(student.hidden_size), persistent=self.in_buffer)
        return module

    def collect(self, layer, module):
        module.mean_D += layer.student.span_vector_SD.sum(0)

    def compute(self, layer, module):
        return (layer.student.span_vector_SD - module.mean_D).square().sum()


def test_what_is_fitted_must_be_in_checkpoints():
    check = CONTRACT.test_checkpoints_hold_all_that_its_modules_need
    check(Centred(in_buffer=True))
    with pytest.raises(AssertionError):
        check(Centred(in_buffer=False))
