"""The distillm2 base loss: against numbers of the authors' code, and what those do not show."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pydantic
import pytest
import torch

from mta_framework import TEXTS_BY_OTHERS, TEXTS_BY_STUDENT, Batch, Head, Progress, States
from mta_plugins.base_losses.distillm2 import DistiLLM2

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "distillm2.json").read_text())["cases"]
EVERY_CASE = pytest.mark.parametrize("case", GOLDEN, ids=["no_anchors", "anchors", "other_anchors"])
START = Progress(step=0, total_steps=10, epoch=0.0)


def _tensor(entry):
    return torch.tensor(entry["data"]).view(entry["shape"])


def _batch(label_BT, by_student_B):
    """Position t predicts label t + 1; -100 is not supervised."""
    next_BT = torch.cat([label_BT[:, 1:], torch.full((len(label_BT), 1), -100)], 1).long()
    position_N = (next_BT != -100).flatten().nonzero().squeeze(1)
    answered_B = (next_BT != -100).any(1)
    by_B = by_student_B if by_student_B is not None else torch.zeros(len(label_BT), dtype=torch.bool)
    counts = {
        TEXTS_BY_STUDENT: int((answered_B & by_B).sum()),
        TEXTS_BY_OTHERS: int((answered_B & ~by_B).sum()),
    }
    ids_BT = torch.zeros_like(next_BT)
    return Batch(ids_BT, ids_BT + 1, position_N, next_BT.flatten()[position_N], {}, counts, by_student_B)


def _golden(case, trained=True):
    student, teacher = (_tensor(case[name]) for name in ("student_logits", "teacher_logits"))
    identity = Head(torch.eye(student.shape[-1]))
    by_student_B = torch.arange(len(student)) >= case["teacher_response_rows"]
    states = (States(student.requires_grad_(trained), {}, identity), States(teacher, {}, identity))
    return *states, _batch(_tensor(case["labels"]), by_student_B)


def _anchored(case):
    """The loss after one step with the anchors as leads."""
    loss = DistiLLM2(DistiLLM2.Params(anchor_steps=1))
    if case["anchor_teacher_minus_student"] is not None:
        values = case["anchor_teacher_minus_student"], case["anchor_student_minus_teacher"]
        loss.observe(dict(zip(("teacher_lead", "student_lead"), values, strict=True)))
    return loss


def _means(terms, counts):
    return {term.name: term.sum / max(counts[term.unit], 1) for term in terms}


def _total(terms, counts):
    return sum(term.weight * term.sum / max(counts[term.unit], 1) for term in terms)


def _only(batch, row):
    keep = batch.text_N == row
    counts = {TEXTS_BY_STUDENT: int(batch.by_student_B[row]), TEXTS_BY_OTHERS: int(~batch.by_student_B[row])}
    return replace(batch, position_N=batch.position_N[keep], target_N=batch.target_N[keep], counts=counts)


@EVERY_CASE
def test_loss_and_gradient_are_those_of_the_authors_code(case):
    student, teacher, batch = _golden(case)
    total = _total(_anchored(case).compute(student, teacher, batch, START), batch.counts)
    assert total.item() == pytest.approx(case["expected"]["loss"], rel=1e-5)
    (gradient,) = torch.autograd.grad(total, student.final_BTD)
    golden = _tensor(case["expected"]["grad_student_logits"])
    torch.testing.assert_close(gradient, golden, rtol=1e-4, atol=1e-4 * golden.abs().max().item())


@EVERY_CASE
def test_each_response_has_the_value_and_lead_of_the_authors_code(case):
    student, teacher, batch = _golden(case, trained=False)
    expected, loss, pairs = case["expected"], _anchored(case), case["teacher_response_rows"]
    probabilities = [_tensor(expected[name]).exp() for name in ("teacher_mean_logp", "student_mean_logp")]
    for row in range(2 * pairs):
        terms = _means(loss.compute(student, teacher, _only(batch, row), START), batch.counts)
        values = _tensor(expected["teacher_response_skew_kl" if row < pairs else "student_response_skew_reverse_kl"])
        lead = (probabilities[0] - probabilities[1])[row].item() * (1 if row < pairs else -1)
        writer, reader = ("teacher", "student") if row < pairs else ("student", "teacher")
        assert terms[f"distillm2_{writer}"].item() * pairs == pytest.approx(values[row % pairs].item(), rel=1e-5)
        assert terms[f"{writer}_lead"].item() * pairs == pytest.approx(lead, rel=1e-4)
        assert terms[f"distillm2_{reader}"].item() == terms[f"{reader}_lead"].item() == 0


def _states(seed, width=4, texts=4, trained=False, vocabulary=9):
    generator = torch.Generator().manual_seed(seed)
    final = torch.randn(texts, 6, width, generator=generator).requires_grad_(trained)
    return States(final, {}, Head(torch.randn(vocabulary, width, generator=generator).requires_grad_(trained)))


LABELS = torch.tensor([[-100, -100, 1, 2, 3, 0], [-100, 4, 0, -100, -100, -100]] * 2)
BY_STUDENT = torch.tensor([False, False, True, True])


def _compute(loss=None, batch=None, progress=START, student=None, teacher=None):
    loss, batch = loss or DistiLLM2(DistiLLM2.Params()), batch or _batch(LABELS, BY_STUDENT)
    terms = loss.compute(student or _states(0), teacher or _states(1, 5), batch, progress)
    return {term.name: term for term in terms}


def test_terms_name_their_units_and_leads_are_logged_only():
    student = _states(0, trained=True)
    terms = _compute(student=student)
    assert {name: (term.unit, term.weight) for name, term in terms.items()} == {
        "distillm2_teacher": (TEXTS_BY_OTHERS, 1.0),
        "teacher_lead": (TEXTS_BY_OTHERS, 0.0),
        "distillm2_student": (TEXTS_BY_STUDENT, 1.0),
        "student_lead": (TEXTS_BY_STUDENT, 0.0),
    }
    assert {name for name, term in terms.items() if not term.sum.requires_grad} == {"teacher_lead", "student_lead"}


def test_responses_of_one_kind_leave_zeros_of_the_other_on_the_graph():
    student = _states(0, trained=True)
    batch = _batch(LABELS, None)
    terms = _compute(batch=batch, student=student)
    assert terms["student_lead"].sum.item() == terms["distillm2_student"].sum.item() == 0
    gradients = torch.autograd.grad(terms["distillm2_student"].sum, (student.final_BTD, student.head.weight_VD))
    assert not any(gradient.any() for gradient in gradients)
    nobody = _compute(batch=replace(batch, by_student_B=torch.zeros(4, dtype=torch.bool)))
    assert {name: term.sum.item() for name, term in terms.items()} == {
        name: term.sum.item() for name, term in nobody.items()
    }


def test_a_text_without_response_counts_for_nothing():
    answered = _batch(LABELS, BY_STUDENT)
    label_BT = LABELS.clone()
    label_BT[1], label_BT[3] = -100, -100
    silent = _batch(label_BT, BY_STUDENT)
    assert silent.counts == {TEXTS_BY_STUDENT: 1, TEXTS_BY_OTHERS: 1}
    rows = [_only(answered, row) for row in (0, 2)]
    for name, term in _compute(batch=silent).items():
        assert term.sum.item() == pytest.approx(sum(_compute(batch=row)[name].sum.item() for row in rows), rel=1e-6)


@pytest.mark.parametrize("observed", [False, True], ids=["constant_skew", "skew_per_response"])
def test_sums_do_not_depend_on_the_cut(observed):
    loss = DistiLLM2(DistiLLM2.Params(anchor_steps=1))
    if observed:
        loss.observe({"teacher_lead": 0.001, "student_lead": -0.02})
    batch, parts = _batch(LABELS, BY_STUDENT), []
    student = _states(0, trained=True)
    whole = _compute(loss, student=student)
    for row in range(4):
        parts.append(_compute(loss, _only(batch, row), student=student))
    for name, term in whole.items():
        torch.testing.assert_close(term.sum, sum(part[name].sum for part in parts))
    gradients = []
    for cut in ([whole], parts):
        total = sum(term.weight * term.sum for terms in cut for term in terms.values())
        gradients.append(torch.autograd.grad(total, (student.final_BTD, student.head.weight_VD)))
    torch.testing.assert_close(*gradients)


def test_padding_and_prompts_change_nothing():
    plain = _compute()
    student, teacher = _states(0), _states(1, 5)
    wider = []
    for states in (student, teacher):
        final = torch.full((4, 8, states.final_BTD.shape[-1]), 50.0)
        final[:, :6] = states.final_BTD
        final[:, 0][[0, 2]] = -9.0
        wider.append(States(final, {}, states.head))
    label_BT = torch.cat([LABELS, torch.full((4, 2), -100)], 1)
    terms = DistiLLM2(DistiLLM2.Params()).compute(*wider, _batch(label_BT, BY_STUDENT), START)
    for term in terms:
        assert term.sum.item() == pytest.approx(plain[term.name].sum.item(), rel=1e-6)


def _expected(student, teacher, anchors):
    """Skews and sums by writer, with whole distributions in float64."""
    batch, skews, sums = _batch(LABELS, BY_STUDENT), [], {"teacher": 0.0, "student": 0.0}
    q, p = ((states.final_BTD @ states.head.weight_VD.T).double().softmax(-1) for states in (student, teacher))
    for row, writer in enumerate(("teacher", "teacher", "student", "student")):
        of_row = batch.text_N == row
        index = row, batch.position_N[of_row] % 6
        first, second = (p[index], q[index]) if writer == "teacher" else (q[index], p[index])
        probability = [part.gather(1, batch.target_N[of_row, None]).log().mean().exp() for part in (first, second)]
        skew = 1 - 0.9 * anchors[writer] / (probability[0] - probability[1] + 1e-5).item()
        skews.append(min(max(skew, 0.01), 0.1))
        mixture = skews[-1] * first + (1 - skews[-1]) * second
        sums[writer] += (first * (first / mixture).log()).sum(-1).mean().item()
    return skews, sums


def test_anchors_are_the_mean_leads_of_the_first_steps_that_have_one():
    student, teacher = _states(3), _states(4, 5)
    loss = DistiLLM2(DistiLLM2.Params(anchor_steps=2))
    constant = _compute(DistiLLM2(DistiLLM2.Params(curriculum=False)), student=student, teacher=teacher)
    for values in ({"teacher_lead": 0.01, "student_lead": 0.0}, {}, {"student_lead": 0.05}):
        loss.observe(values)
        terms = _compute(loss, student=student, teacher=teacher)
        assert all(term.sum.item() == terms[name].sum.item() for name, term in constant.items())
    loss.observe({"teacher_lead": 0.03, "student_lead": 0.07})
    loss.observe({"teacher_lead": 100.0, "student_lead": 100.0})
    terms = _compute(loss, student=student, teacher=teacher)
    skews, sums = _expected(student, teacher, {"teacher": 0.02, "student": 0.06})
    assert skews == pytest.approx([0.052, 0.01, 0.1, 0.054], abs=0.002)
    for writer, value in sums.items():
        assert terms[f"distillm2_{writer}"].sum.item() == pytest.approx(value, rel=1e-5)
        assert constant[f"distillm2_{writer}"].sum.item() != pytest.approx(value, rel=1e-3)


def test_state_survives_json_and_continues_the_same_anchors():
    straight, stopped = (DistiLLM2(DistiLLM2.Params(anchor_steps=3)) for _ in range(2))
    leads = [{"teacher_lead": 0.1 / 3, "student_lead": 1e-17}, {"teacher_lead": -0.2}, {"teacher_lead": 0.7}]
    for values in leads:
        straight.observe(values)
    stopped.observe(leads[0])
    resumed = DistiLLM2(DistiLLM2.Params(anchor_steps=3))
    resumed.restore(json.loads(json.dumps(stopped.state())))
    for values in leads[1:]:
        resumed.observe(values)
    assert resumed.state() == straight.state()
    assert {name: term.sum.item() for name, term in _compute(resumed).items()} == {
        name: term.sum.item() for name, term in _compute(straight).items()
    }


def test_computing_moves_no_anchor():
    loss = DistiLLM2(DistiLLM2.Params(anchor_steps=1))
    before = json.dumps(loss.state())
    _compute(loss)
    assert json.dumps(loss.state()) == before


def test_gradual_beta_moves_weight_from_the_teachers_to_the_students_responses():
    whole, half = ((0, 1.0), (4, 1.2), (10, 1.5)), ((0, 1.0), (2, 1.2), (5, 1.5), (8, 1.5))
    cases = [(share, *entry) for share, entries in ((1.0, whole), (0.5, half)) for entry in entries]
    for share, step, beta in cases:
        loss = DistiLLM2(DistiLLM2.Params(gradual_beta=share))
        terms = _compute(loss, progress=Progress(step, 10, 0.0))
        weights = terms["distillm2_teacher"].weight, terms["distillm2_student"].weight
        assert weights == pytest.approx((2 - beta, beta))
    assert _compute(progress=Progress(10, 10, 0.0))["distillm2_student"].weight == 1


def test_without_curriculum_there_are_no_leads_and_no_second_pass(monkeypatch):
    from mta_framework import chunked_loss

    monkeypatch.delattr(chunked_loss, "chunked_values")
    terms = _compute(DistiLLM2(DistiLLM2.Params(curriculum=False, skew=0.0)))
    assert set(terms) == {"distillm2_teacher", "distillm2_student"}


def test_it_brings_pairs_along():
    assert DistiLLM2(DistiLLM2.Params()).batch_policy().RESPONDERS == ("teacher", "student")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"curriculum": False, "anchor_steps": 5}, "anchor_steps has no effect"),
        ({"skew": 0.01}, "curriculum must be false"),
        ({"skew": 1}, "skew"),
        ({"anchor_steps": 0}, "anchor_steps"),
        ({"gradual_beta": 0}, "gradual_beta"),
        ({"batches": {"policy": "fixed"}}, "policy"),
    ],
)
def test_options_out_of_range_or_without_effect_are_refused(options, named):
    with pytest.raises(pydantic.ValidationError, match=named):
        DistiLLM2.Params.model_validate(options)
