"""What a base loss returns is checked, since it may be anyone's code."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from mta_framework.data.batches import collate
from mta_framework.errors import RunError
from mta_framework.interfaces import BaseLoss
from mta_framework.training.distiller import Distiller
from mta_framework.training.returned_terms import require_names
from mta_framework.types import TOKENS, Example, LossTerm, Progress

CONNECTED = "the sum of the student's states"


def computing(*terms):
    class Fixed(BaseLoss):
        NAME = "fixed"
        NEEDS_TEACHER = False

        def compute(self, student, teacher, batch, progress):
            total = student.final_BTD.sum()
            return [replace(term, sum=total) if getattr(term, "sum", 0) is CONNECTED else term for term in terms]

    return Fixed(Fixed.Params())


@pytest.fixture(scope="module")
def student():
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(vocab_size=20, n_positions=8, n_embd=8, n_layer=1, n_head=1))


def compute(student, *terms):
    batch = collate([Example(np.arange(4, dtype=np.int32), 2, {})], pad_token_id=0, granularities=())
    return Distiller(student, None, computing(*terms))(batch, Progress(0, 1, 0.0))


def test_sound_terms_pass(student):
    connected, logged = LossTerm("own", CONNECTED, TOKENS), LossTerm("logged", torch.tensor(1.0), TOKENS, weight=0.0)
    assert [term.name for term in compute(student, connected)] == ["own"]
    assert compute(student, connected, logged)[1] == logged


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


@pytest.mark.parametrize("returned", [None, 1.5, torch.tensor([1.0]), LossTerm("own", torch.tensor(1.0), TOKENS)])
def test_what_is_no_collection_of_terms_is_named(student, returned):
    loss = computing()
    loss.compute = lambda *given: returned
    batch = collate([Example(np.arange(4, dtype=np.int32), 2, {})], pad_token_id=0, granularities=())
    message = f"^base loss 'fixed' must return a tuple of loss terms \\(got {type(returned).__name__}\\)$"
    with pytest.raises(RunError, match=message):
        Distiller(student, None, loss)(batch, Progress(0, 1, 0.0))


@pytest.mark.parametrize("power", [1, 2])
def test_a_sum_with_a_gradient_that_does_not_reach_the_student_is_detached(student, power):
    total = torch.tensor(1.0, requires_grad=True)
    with pytest.raises(RunError, match="must return a term with a gradient"):
        compute(student, LossTerm("own", total if power == 1 else total**power, TOKENS))


@pytest.mark.parametrize(
    "name",
    [
        *("loss", "cross_entropy", "learning_rate", "grad_norm", "step", "epoch", "training_seconds"),
        *("share_by_student", "response_length", "eval_kl", "loss_maths", "train_runtime"),
    ],
)
def test_names_that_mean_something_else_in_the_log_are_refused(student, name):
    with pytest.raises(RunError, match=rf"must be its own, and '{name}' is an entry of the log by itself$"):
        compute(student, LossTerm(name, CONNECTED, TOKENS))


@pytest.mark.parametrize("name", ["", "My loss", 7, "a-b"])
def test_malformed_names_are_refused(student, name):
    with pytest.raises(RunError, match=rf"lower case letters, digits and _ \(got {name!r}\)$"):
        compute(student, LossTerm(name, CONNECTED, TOKENS))


def test_the_name_of_an_alignment_term_of_the_run_is_refused():
    terms = (LossTerm("dsa", CONNECTED, TOKENS),)
    require_names(terms, "base loss 'fixed'", ("hid",))
    with pytest.raises(RunError, match=r"'dsa' is that of an alignment term of this run$"):
        require_names(terms, "base loss 'fixed'", ("dsa", "hid"))


def test_terms_of_one_name_are_of_one_unit(student):
    terms = [LossTerm("own", CONNECTED, unit) for unit in (TOKENS, "texts")]
    with pytest.raises(RunError, match=r"terms of one name, 'own', must have one unit \(got 'tokens' and 'texts'\)$"):
        compute(student, *terms)
    assert len(compute(student, terms[0], terms[0])) == 2


@pytest.mark.parametrize("weight", [None, "1", True])
def test_a_weight_that_is_no_number_is_named(student, weight):
    with pytest.raises(RunError, match=rf"the weight of term 'own' must be a number \(got {type(weight).__name__}\)$"):
        compute(student, LossTerm("own", CONNECTED, TOKENS, weight))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda states, batch: batch.target_N.fill_(0), "batch.target_N"),
        (lambda states, batch: states.final_BTD.mul_(2.0), "student.final_BTD"),
    ],
)
def test_a_change_of_inputs_in_place_is_named(student, change, named):
    class Changing(BaseLoss):
        NAME = "changing"
        NEEDS_TEACHER = False

        def compute(self, student, teacher, batch, progress):
            change(student, batch)
            return (LossTerm("own", student.final_BTD.sum(), TOKENS),)

    batch = collate([Example(np.arange(4, dtype=np.int32), 2, {})], pad_token_id=0, granularities=())
    message = rf"^base loss 'changing' must not change its inputs in place \(changed: {named}\)$"
    with pytest.raises(RunError, match=message):
        Distiller(student, None, Changing(Changing.Params()))(batch, Progress(0, 1, 0.0))


def test_a_base_loss_that_raises_is_named_with_the_line(student):
    loss = computing()
    loss.compute = lambda *given: {}["x"]
    batch = collate([Example(np.arange(4, dtype=np.int32), 2, {})], pad_token_id=0, granularities=())
    with pytest.raises(RunError, match=r"^base loss 'fixed' failed \(KeyError: 'x', in test_distiller.py:\d+\)$"):
        Distiller(student, None, loss)(batch, Progress(0, 1, 0.0))
