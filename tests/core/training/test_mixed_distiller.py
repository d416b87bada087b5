"""Batches, losses and logs of several teachers, without models of a run."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import tiny_model

from mta_framework.alignment import Alignment, WeightedTerm
from mta_framework.batch_policies.buffer import ReplayBuffer
from mta_framework.data.batches import Collator
from mta_framework.data.mixed_batches import MixedCollator
from mta_framework.errors import RunError
from mta_framework.models.teacher_states import Teacher
from mta_framework.registry import discover
from mta_framework.training.distiller import LossMeter, TeacherLosses, contribution
from mta_framework.training.global_counts import GlobalCounts
from mta_framework.training.mixed_distiller import MixedDistiller
from mta_framework.types import ATTENDED_TOKENS, TOKENS, Example, LayerPair, LossTerm, ModelShape, Progress

NAMES = ("values", "code")  # the first is a method of the module that would hold a module of this name


def alone(values):
    """The sum over the processes of a run on one."""
    return values


def text(length, name, seed=0):
    ids = np.random.default_rng(seed).integers(0, 250, length).astype(np.int32)
    return Example(ids, 2, {}, teacher_name=name)


@pytest.fixture
def collator():
    return MixedCollator({name: Collator(256, ()) for name in NAMES}, {name: text(4, name) for name in NAMES})


def test_a_batch_counts_what_it_has_of_each_teacher_and_nothing_of_absent_ones(collator):
    batch = collator([text(5, "code"), text(7, "code", 1)])
    assert list(batch.parts) == ["code"]
    counts = batch.counts_by_teacher
    assert {name: of_teacher[TOKENS] for name, of_teacher in counts.items()} == {"code": 3 + 5, "values": 0}
    both = collator([text(5, "values"), text(5, "code")]).counts_by_teacher
    assert {name: [*units] for name, units in counts.items()} == {name: [*units] for name, units in both.items()}


def test_counts_of_all_processes_are_summed_by_unit_and_teacher(collator):
    """Another process has the texts of ``values``; each sums in the same order, whichever texts it has."""
    here, there = collator([text(5, "code"), text(7, "code", 1)]), collator([text(6, "values")])
    sent = []
    GlobalCounts.of([there], lambda counted: sent.append(counted) or counted)
    counts = GlobalCounts.of([here, here], lambda counted: counted + sent[0])
    assert {name: of_teacher[TOKENS] for name, of_teacher in counts.by_teacher.items()} == {"code": 16, "values": 4}
    assert counts.all_texts[TOKENS] == 20
    assert counts.all_texts[ATTENDED_TOKENS] == 2 * 12 + 6


def test_names_of_teachers_are_kept_apart_whatever_they_are():
    names = ("a", "a of teacher a")
    collator = MixedCollator({name: Collator(256, ()) for name in names}, {name: text(4, name) for name in names})
    counts = GlobalCounts.of([collator([text(4, "a"), text(7, "a of teacher a")])], alone)
    assert [counts.by_teacher[name][TOKENS] for name in names] == [2, 5]


def test_the_order_in_which_teachers_are_given_has_no_effect_on_parameters_and_parts():
    base_loss = discover().find("base_losses", "kl", "base_loss").plugin
    texts, orders = [text(6, "values"), text(9, "code", 1)], []
    for names in (NAMES, NAMES[::-1]):
        by_teacher = {name: TeacherLosses(None, torch.nn.Linear(2, 1 + NAMES.index(name))) for name in names}
        distiller = MixedDistiller(tiny_model("llama", 0), base_loss(base_loss.Params()), by_teacher)
        collator = MixedCollator({name: Collator(256, ()) for name in names}, {name: text(4, name) for name in names})
        orders.append([*dict(distiller.named_parameters()), *collator(texts).parts])
    assert orders[0] == orders[1]
    assert orders[0][-2:] == ["code", "values"]


def test_the_loss_is_the_mean_over_all_rows_by_the_teacher_of_each(collator):
    student, *models = (tiny_model("llama", seed).double() for seed in range(3))
    base_loss = discover().find("base_losses", "kl", "base_loss").plugin
    by_teacher = {name: TeacherLosses(Teacher.of(model)) for name, model in zip(NAMES, models, strict=True)}
    distiller = MixedDistiller(student, base_loss(base_loss.Params()), by_teacher)
    texts = [text(6, "values"), text(9, "code", 1), text(4, "values", 2)]
    batch = collator(texts)
    terms = distiller(batch, Progress(0, 1, 0.0))
    total, tokens = 0.0, 0
    for each in texts:
        ids = torch.from_numpy(each.input_ids).long()[None]
        of_teacher = models[NAMES.index(each.teacher_name)]
        with torch.no_grad():
            log_q, log_p = (model(ids).logits[0, 1:-1].log_softmax(-1) for model in (student, of_teacher))
        total += (log_p.exp() * (log_p - log_q)).sum().item()
        tokens += len(log_p)
    counts = GlobalCounts.of([batch], alone)
    assert contribution(terms, counts.all_texts).item() == pytest.approx(total / tokens, rel=1e-6)
    assert {term.teacher_name for term in terms} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_projection_of_any_teacher_without_a_gradient_is_an_error(name):
    base_loss = discover().find("base_losses", "kl", "base_loss").plugin
    hid = discover().find("alignment_terms", "hid", "alignment.terms.0").plugin
    uniform = discover().find("importance_estimators", "uniform", "alignment.importance").plugin
    pairs, shape = [LayerPair(1, 1, "words")], ModelShape(2, 8)
    weighted = [WeightedTerm(hid(hid.Params()), 1.0)]
    by_teacher = {
        each: TeacherLosses(None, Alignment(pairs, uniform(uniform.Params()), weighted, shape, shape)) for each in NAMES
    }
    distiller = MixedDistiller(tiny_model("llama", 0), base_loss(base_loss.Params()), by_teacher)
    for parameter in distiller.alignment.parameters():
        parameter.grad = torch.zeros_like(parameter)
    distiller.require_gradients()
    for parameter in by_teacher[name].alignment.parameters():
        parameter.grad = None
    with pytest.raises(RunError, match="alignment term 'hid' gives 'weight'"):
        distiller.require_gradients()


def term(name, value, teacher, weight=1.0):
    return LossTerm(name, torch.tensor(value), TOKENS, weight, teacher)


def counts_of(**tokens):
    return GlobalCounts(
        {TOKENS: sum(tokens.values())},
        {name: dict.fromkeys((TOKENS, ATTENDED_TOKENS), count) for name, count in tokens.items()},
    )


COUNTS = counts_of(a=4, b=6)


def test_the_log_has_each_term_over_all_texts_and_the_loss_of_each_teacher():
    meter = LossMeter()
    terms = [term("kl", 8.0, "a"), term("dsa", 4.0, "a", 0.5), term("dsa", 2.0, "a", 0.5), term("kl", 12.0, "b")]
    meter.update((*terms, term("dsa", 6.0, "b", 1.0)), COUNTS)
    values = meter.reduce("step 1", lambda stacked: stacked)
    assert values["kl"] == pytest.approx(20 / 10)
    assert values["dsa"] == pytest.approx((3 + 6) / 10)  # the mean over the layers of each teacher
    assert values["loss"] == pytest.approx((8 + 3 + 12 + 6) / 10)
    assert values["loss_a"] == pytest.approx((8 + 3) / 4)
    assert values["loss_b"] == pytest.approx((12 + 6) / 6)


def test_the_loss_of_a_teacher_is_averaged_over_the_steps_with_its_texts_across_a_checkpoint():
    meter = LossMeter()
    meter.update((term("kl", 8.0, "a"), term("kl", 6.0, "b")), COUNTS)
    meter.reduce("step 1", lambda stacked: stacked)
    resumed = LossMeter()
    resumed.restore(meter.state())
    resumed.update((term("kl", 4.0, "a"),), counts_of(a=4, b=0))
    assert "loss_b" not in resumed.reduce("step 2", lambda stacked: stacked)
    means = resumed.pop()
    assert means["loss_a"] == pytest.approx((8 / 4 + 4 / 4) / 2)
    assert means["loss_b"] == pytest.approx(6 / 6)


def test_processes_sum_the_same_values_whichever_teachers_texts_they_have():
    orders = []
    for terms in ([term("kl", 1.0, "a")], [term("uld", 0.0, "b"), term("kl", 1.0, "b")]):
        meter = LossMeter()
        meter.update((*terms, term("uld", 0.0, terms[0].teacher_name))[:2], COUNTS)
        meter.reduce("step 1", lambda stacked: orders.append(len(stacked)) or stacked)
    assert orders == [5, 5]


def test_a_replayed_response_keeps_its_teacher():
    buffer, restored = ReplayBuffer(2), ReplayBuffer(2)
    buffer.add([text(5, "code"), text(6, "")])
    state = buffer.state()
    assert "teacher_name" not in state[1]
    restored.restore(state)
    assert [each.teacher_name for each in restored._texts] == ["code", ""]
