"""What every registered plugin promises, whatever it computes."""

from __future__ import annotations

import inspect
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import pytest
import torch
from pydantic import ValidationError

from mta_framework import (
    ATTENDED,
    TEXTS,
    TEXTS_BY_OTHERS,
    TEXTS_BY_STUDENT,
    TOKENS,
    Batch,
    Head,
    ModelShape,
    Progress,
    States,
    Tail,
)
from mta_framework.registry import FAMILIES, discover

REGISTRY = discover()
REQUIRED = {"explicit": {"pairs": [{"student": 2, "teacher": 4, "granularity": "words"}]}}
TEXTS_OF_ALL_KINDS = [
    "",
    " ",
    "\n\r\n\t",
    "Rain.",
    "The old keeper has carefully repaired the broken lamp.\r\nShe didn't know.",
    "日本語のテキストです。",
    "😀👩‍👩‍👧‍👦 e\u0301 \u200b x",
    "a" * 10_000,
    "for i in range(10): print(i)",
]


def of(family):
    return [entries[0].plugin for entries in REGISTRY.families[family].values()]


def create(plugin):
    family = next(family for family in FAMILIES if plugin in of(family))
    return REGISTRY.create(family, plugin.NAME, REQUIRED.get(plugin.NAME))


EVERY = [plugin for family in FAMILIES for plugin in of(family)]
named = {"ids": lambda plugin: plugin.NAME}


def test_all_families_have_plugins_and_no_provider_failed():
    assert all(REGISTRY.families[family] for family in FAMILIES)
    assert REGISTRY.failures == []


@pytest.mark.parametrize("plugin", EVERY, **named)
class TestEvery:
    def test_params_refuse_unknown_options_and_cannot_be_changed(self, plugin):
        with pytest.raises(ValidationError, match="no_such_option"):
            plugin.Params.model_validate({**REQUIRED.get(plugin.NAME, {}), "no_such_option": 1})
        params = create(plugin).params
        for name in plugin.Params.model_fields:
            with pytest.raises(ValidationError, match="frozen"):
                setattr(params, name, getattr(params, name))

    def test_every_option_is_described(self, plugin):
        properties = plugin.Params.model_json_schema().get("properties", {})
        assert [name for name, field in properties.items() if not field.get("description")] == []

    def test_params_survive_a_round_trip_through_json(self, plugin):
        params = create(plugin).params
        assert plugin.Params.model_validate(json.loads(params.model_dump_json())) == params

    def test_class_says_what_it_is(self, plugin):
        assert inspect.getdoc(plugin)
        assert plugin.__module__.rsplit(".", 1)[-1] == plugin.NAME


@pytest.mark.parametrize("plugin", of("span_extractors"), **named)
class TestSpanExtractors:
    def test_spans_lie_in_the_text_sorted_without_repetition(self, plugin):
        extractor = create(plugin)
        for text, spans in zip(TEXTS_OF_ALL_KINDS, extractor.extract(TEXTS_OF_ALL_KINDS), strict=True):
            assert sorted(spans) == sorted(extractor.granularities)
            for found in spans.values():
                found = [tuple(span) for span in found]
                assert all(0 <= start < end <= len(text) for start, end in found)
                assert found == sorted(set(found), key=lambda span: (span[0], -span[1]))

    def test_a_text_gives_the_same_spans_alone_and_among_others(self, plugin):
        extractor = create(plugin)
        together = extractor.extract(TEXTS_OF_ALL_KINDS)
        assert [create(plugin).extract([text])[0] for text in TEXTS_OF_ALL_KINDS] == together

    def test_no_texts_give_no_spans(self, plugin):
        assert create(plugin).extract([]) == []

    def test_it_travels_to_worker_processes_after_use(self, plugin):
        extractor = create(plugin)
        before = extractor.extract(["A red bicycle was sold."])
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as worker:
            assert worker.submit(extractor.extract, ["A red bicycle was sold."]).result(timeout=120) == before


def random_states(seed=0, batch=3, tokens=7, width=8, vocabulary=11, grad=False):
    torch.manual_seed(seed)
    hidden = torch.randn(batch, tokens, width, requires_grad=grad)
    layers = {2: torch.randn(batch, tokens, width), 3: torch.randn(batch, tokens, width), 4: hidden}
    head = Head(torch.randn(vocabulary, width, requires_grad=grad))
    return States(hidden, layers, head, Tail(ModelShape(6, width)))


def mask_of(*lengths, tokens=7):
    return (torch.arange(tokens) < torch.tensor(lengths)[:, None]).long()


@pytest.mark.parametrize("plugin", of("importance_estimators"), **named)
class TestImportanceEstimators:
    def test_weights_are_non_negative_without_gradient_and_zero_on_padding(self, plugin):
        mask_BT = mask_of(7, 4, 1)
        weight_BT = create(plugin).weigh(random_states(grad=True), 4, mask_BT)
        assert weight_BT.shape == mask_BT.shape
        assert weight_BT.dtype == torch.float32
        assert not weight_BT.requires_grad
        assert (weight_BT >= 0).all()
        assert torch.isfinite(weight_BT).all()
        assert (weight_BT[mask_BT == 0] == 0).all()
        assert (weight_BT.sum(1) > 0).all()

    def test_padding_does_not_change_the_relative_weights(self, plugin):
        states, short = random_states(), random_states(tokens=5)
        for layer in short.layers:
            short.layers[layer].copy_(states.layers[layer][:, :5])
        long_BT = create(plugin).weigh(states, 2, mask_of(5, 5, 5))[:, :5]
        short_BT = create(plugin).weigh(short, 2, mask_of(5, 5, 5, tokens=5))
        torch.testing.assert_close(long_BT / long_BT.sum(1, True), short_BT / short_BT.sum(1, True))


@pytest.mark.parametrize("plugin", of("layer_mappers"), **named)
def test_layer_pairs_are_sorted_and_within_both_models(plugin):
    mapper = create(plugin)
    pairs = mapper.map(ModelShape(6, 16), ModelShape(12, 32))
    assert pairs == sorted(pairs)
    assert pairs
    assert all(1 <= pair.student <= 6 and 1 <= pair.teacher <= 12 for pair in pairs)
    assert {pair.granularity for pair in pairs} == set(mapper.granularities)


def loss_batch(positions):
    """The student wrote the response of the second text."""
    position_N, mask_BT = torch.tensor(positions, dtype=torch.int64), mask_of(7, 4, 1)
    texts = {position // 7 for position in positions}
    counts = {TOKENS: len(positions), TEXTS: len(texts), ATTENDED: int(mask_BT.sum())}
    counts |= {TEXTS_BY_STUDENT: len(texts & {1}), TEXTS_BY_OTHERS: len(texts - {1})}
    by_student_B = torch.tensor([False, True, False])
    return Batch(torch.zeros_like(mask_BT), mask_BT, position_N, position_N % 11, {}, counts, by_student_B)


@pytest.mark.parametrize("plugin", of("base_losses"), **named)
class TestBaseLosses:
    def terms(self, plugin, batch, student):
        teacher = random_states(seed=1, width=5) if plugin.NEEDS_TEACHER else None
        return create(plugin).compute(student, teacher, batch, Progress(0, 10, 0.0))

    def test_terms_are_finite_scalars_in_a_unit_of_the_batch_with_gradient(self, plugin):
        student, batch = random_states(grad=True), loss_batch([1, 2, 3, 8])
        for term in self.terms(plugin, batch, student):
            assert term.sum.shape == ()
            assert term.sum.dtype == torch.float32
            assert torch.isfinite(term.sum)
            assert term.unit in batch.counts
            assert term.sum.requires_grad or term.weight == 0

    def test_nothing_supervised_on_padding_alone_gives_zero_that_hangs_on_the_graph(self, plugin):
        student, batch = random_states(grad=True), loss_batch([])
        for term in self.terms(plugin, replace(batch, attention_mask_BT=mask_of(0, 0, 0)), student):
            assert term.sum.item() == 0
            if term.weight == 0:
                continue
            gradients = torch.autograd.grad(term.sum, (student.final_BTD, student.head.weight_VD))
            assert all((gradient == 0).all() for gradient in gradients)

    def test_sums_do_not_depend_on_how_the_batch_is_cut(self, plugin):
        student = random_states(grad=True)
        whole = self.terms(plugin, loss_batch([1, 2, 8, 9]), student)
        parts = [self.terms(plugin, self.cut(texts), student) for texts in ([0], [1, 2])]
        for index, term in enumerate(whole):
            torch.testing.assert_close(term.sum, sum(part[index].sum for part in parts))

    def cut(self, texts):
        """These texts; the others are left as padding."""
        batch = loss_batch([1, 2, 8, 9])
        keep = torch.isin(batch.text_N, torch.tensor(texts))
        mask_BT = batch.attention_mask_BT * torch.isin(torch.arange(3), torch.tensor(texts))[:, None]
        parts = {"position_N": batch.position_N[keep], "target_N": batch.target_N[keep], "attention_mask_BT": mask_BT}
        return replace(batch, **parts)

    def test_terms_are_the_same_ones_whatever_is_supervised_and_whoever_wrote_it(self, plugin):
        student = random_states(grad=True)
        batches = [loss_batch([1, 8]), loss_batch([8]), loss_batch([]), replace(loss_batch([1]), by_student_B=None)]
        kinds = [[(term.name, term.unit) for term in self.terms(plugin, batch, student)] for batch in batches]
        assert kinds == kinds[:1] * 4

    def test_state_survives_json(self, plugin):
        loss, other = create(plugin), create(plugin)
        terms = self.terms(plugin, loss_batch([1, 8]), random_states())
        loss.observe({term.name: term.sum.item() for term in terms})
        other.restore(json.loads(json.dumps(loss.state())))
        assert other.state() == loss.state()


@pytest.mark.parametrize("plugin", of("metrics"), **named)
class TestMetrics:
    def test_one_finite_score_per_prediction(self, plugin):
        predictions = ["", "a red bicycle", "日本語", "the lamp is broken"]
        references = [["x"], ["a red bicycle", "bike"], ["日本語"], ["his lamp was broken"]]
        scores = create(plugin).score(predictions, references).scores
        assert len(scores) == 4
        assert all(score == score and abs(score) != float("inf") for score in scores)

    def test_nothing_to_score_gives_no_scores(self, plugin):
        assert create(plugin).score([], []).scores == ()

    def test_a_perfect_prediction_scores_higher_than_a_wrong_one(self, plugin):
        right, wrong = create(plugin).score(["a red bicycle", "no"], [["a red bicycle"], ["a red bicycle"]]).scores
        assert right > wrong
