"""Terms that are fitted before the first step, on states of real models."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from mta_framework import AlignmentTerm, LayerPair, RunError
from mta_framework.alignment import Alignment, WeightedTerm
from mta_framework.alignment.term_fitting import fit_terms
from mta_framework.models.state_reader import shape_of
from mta_framework.models.teacher_states import Teacher
from mta_plugins.importance_estimators.uniform import Uniform

PAIRS = LayerPair(1, 1, "words"), LayerPair(2, 3, "words")


class Mean(AlignmentTerm):
    """Keeps the mean of the student's first states at one key layer in a buffer."""

    NAME = "mean"
    num_texts = 2

    def __init__(self, chosen):
        super().__init__(self.Params())
        self.chosen = chosen

    def teacher_needs(self, has_shared_tokenizer):
        return ()

    def key_layers(self, pairs):
        return [pairs[self.chosen]]

    def make_module(self, student, teacher):
        module = nn.Module()
        module.register_buffer("mean_D", torch.zeros(student.hidden_size))
        module.seen = []
        return module

    def collect(self, layer, module):
        assert not torch.is_grad_enabled()
        module.seen.append(layer.student.hidden_BTD[:, 0])

    def fit(self, module):
        module.mean_D.copy_(torch.cat(module.seen).mean(0))

    def compute(self, layer, module):
        return (layer.student.hidden_BTD * module.mean_D).sum()


def model(layers, width, seed=0, dropout=0.0):
    torch.manual_seed(seed)
    sizes = {"hidden_size": width, "intermediate_size": 2 * width, "num_attention_heads": 2, "num_key_value_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=30, num_hidden_layers=layers, attention_dropout=dropout, **sizes))


@pytest.fixture
def batch(make_batch):
    ids = torch.randint(30, (2, 6), generator=torch.Generator().manual_seed(3))
    return replace(make_batch([6, 4], [[(0, 2)], [(1, 3)]], 6), input_ids_BT=ids)


def alignment(student, teacher, *terms):
    weighted = [WeightedTerm(term, 1.0) for term in terms]
    return Alignment(PAIRS, Uniform(Uniform.Params()), weighted, shape_of(student), shape_of(teacher))


@pytest.mark.parametrize("chosen", [0, 1])
def test_a_term_is_fitted_on_as_many_texts_as_it_asks_for_at_its_key_layers(batch, chosen):
    student, teacher = model(2, 8, dropout=0.5).train(), model(3, 12, seed=1)
    made = alignment(student, teacher, Mean(chosen))
    asked = []
    state = torch.get_rng_state()
    fit_terms(made, student, Teacher.of(teacher), lambda count: asked.append(count) or [batch, batch])
    assert asked == [2]
    assert torch.equal(torch.get_rng_state(), state)
    assert student.training
    assert not any(module._forward_hooks for module in student.modules())
    with torch.no_grad():
        hidden = student.eval()(batch.input_ids_BT, output_hidden_states=True).hidden_states[PAIRS[chosen].student]
    (module,) = made.term_modules["mean"]
    torch.testing.assert_close(module.mean_D, hidden[:, 0].mean(0))
    assert set(made.state_dict()) == {"term_modules.mean.0.mean_D"}


def test_terms_that_ask_for_no_text_are_left_alone(batch):
    class Unfitted(Mean):
        num_texts = 0

        def collect(self, layer, module):
            raise AssertionError

    student, teacher = model(2, 8), model(3, 12)
    fit_terms(
        alignment(student, teacher, Unfitted(0)),
        student,
        Teacher.of(teacher),
        lambda count: pytest.fail("texts are read"),
    )


def test_a_term_that_fails_is_named(batch):
    class Failing(Mean):
        def collect(self, layer, module):
            raise KeyError("x")

    student, teacher = model(2, 8), model(3, 12)
    with pytest.raises(RunError, match=r"^alignment term 'mean' failed \(KeyError: 'x'"):
        fit_terms(alignment(student, teacher, Failing(0)), student, Teacher.of(teacher), lambda count: [batch])
