"""What a base loss returns is checked, since it may be anyone's code."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mta_framework.data.batches import collate
from mta_framework.errors import RunError
from mta_framework.interfaces import BaseLoss
from mta_framework.training.distiller import Distiller
from mta_framework.types import TOKENS, Example, LossTerm, Progress


def computing(*terms):
    class Fixed(BaseLoss):
        NAME = "fixed"
        NEEDS_TEACHER = False

        def compute(self, student, teacher, batch, progress):
            return terms

    return Fixed(Fixed.Params())


@pytest.fixture(scope="module")
def student():
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(vocab_size=20, n_positions=8, n_embd=8, n_layer=1, n_head=1))


def compute(student, *terms):
    batch = collate([Example(np.arange(4, dtype=np.int32), 2, {})], pad_token_id=0, granularities=())
    return Distiller(student, None, computing(*terms))(batch, Progress(0, 1, 0.0))


def test_sound_terms_pass(student):
    term = LossTerm("own", torch.tensor(1.0, requires_grad=True), TOKENS)
    assert compute(student, term) == (term,)
    logged = LossTerm("logged", torch.tensor(1.0), TOKENS, weight=0.0)
    assert compute(student, term, logged) == (term, logged)


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ((), "base loss 'fixed' must return at least one term"),
        ("loss", "base loss 'fixed' must return loss terms (got str)"),
        ((1.5,), "base loss 'fixed' must return loss terms (got float)"),
        ((LossTerm("own", 1.5, TOKENS),), "base loss 'fixed': the sum of term 'own' must be a tensor (got float)"),
        (
            (LossTerm("own", torch.tensor(1.0), TOKENS),),
            "base loss 'fixed' must return a term with a gradient (got 'own', detached from the student)",
        ),
        (
            (LossTerm("own", torch.zeros(2, 3), TOKENS),),
            "base loss 'fixed': the sum of term 'own' must be a scalar (got [2, 3])",
        ),
        (
            (LossTerm("own", torch.tensor(1.0), "words"),),
            "base loss 'fixed': the unit of term 'own' must be one of 'tokens', 'texts', 'attended tokens', "
            "'texts by the student', 'texts by others' (got 'words')",
        ),
    ],
)
def test_terms_that_break_the_contract_are_named(student, terms, message):
    with pytest.raises(RunError) as caught:
        compute(student, *terms)
    assert str(caught.value) == message


def test_a_base_loss_that_raises_is_named_with_the_line(student):
    loss = computing()
    loss.compute = lambda *given: {}["x"]
    batch = collate([Example(np.arange(4, dtype=np.int32), 2, {})], pad_token_id=0, granularities=())
    with pytest.raises(RunError, match=r"^base loss 'fixed' failed \(KeyError: 'x', in test_distiller.py:\d+\)$"):
        Distiller(student, None, loss)(batch, Progress(0, 1, 0.0))
