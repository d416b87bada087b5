"""The two alignment terms: values by an independent reference, invariances, and the cases in which nothing is there."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mta_framework import ImportanceEstimator, RunError
from mta_framework.alignment import Alignment, WeightedTerm
from mta_framework.types import LayerPair, ModelShape, States, texts_with_span_pairs, texts_with_spans
from mta_plugins.alignment_terms.dsa import DSA
from mta_plugins.alignment_terms.hid import Hid
from mta_plugins.importance_estimators.attention import Attention
from mta_plugins.importance_estimators.uniform import Uniform

STUDENT, TEACHER = 4, 6
PAIRS = (LayerPair(1, 1, "words"),)
LENGTHS = [9, 5, 7, 6, 3, 9, 1, 8]
SPANS = [
    [(0, 2), (2, 6), (4, 9)],
    [(1, 3), (3, 5)],
    [],
    [(0, 1), (1, 4), (1, 6), (5, 6)],
    [(0, 3)],
    [(0, 3), (2, 5), (6, 7), (7, 9)],
    [(0, 1)],
    [(3, 8), (4, 6)],
]


class FromStates(ImportanceEstimator):
    """A weight for each token that depends on its own state only, so that a reference can know it."""

    NAME = "from_states"

    def weigh(self, states, layer, mask_BT):
        assert not torch.is_grad_enabled()
        return (states.layers[layer].detach()[..., 0].abs() + 0.1).float() * mask_BT


def _hidden(width, seed, texts=8, length=9):
    return torch.randn(texts, length, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _alignment(importance=FromStates, pairs=PAIRS, *, dsa=2.0, hid=0.2, over_layers="mean", width=TEACHER, **options):
    """MTA's terms, those of weight 0 left out; ``over_layers`` is an option of Hid, others are of DSA."""
    torch.manual_seed(0)
    terms = [
        WeightedTerm(DSA(DSA.Params(**options)), dsa),
        WeightedTerm(Hid(Hid.Params(reduction=over_layers)), hid),
    ]
    shapes = ModelShape(9, STUDENT), ModelShape(9, width)
    chosen = [entry for entry in terms if entry.weight]
    return Alignment(pairs, importance(importance.Params()), chosen, *shapes).double()


def _projections(alignment):
    return alignment.term_modules["hid"]


def _sums(terms):
    return {term.name: term.sum for term in terms}


@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_sums_equal_loops_over_spans_and_tokens_in_float64(make_batch, make_states, slow_reference, data):
    length = data.draw(st.integers(1, 7))
    starts = st.integers(0, length - 1).flatmap(lambda start: st.tuples(st.just(start), st.integers(start + 1, length)))
    spans = data.draw(st.lists(st.lists(starts, max_size=4), min_size=1, max_size=3))
    student, teacher = _hidden(STUDENT, 1, len(spans), length), _hidden(TEACHER, 2, len(spans), length)
    weights = [(hidden[..., 0].abs() + 0.1) for hidden in (student, teacher)]
    alignment = _alignment()
    batch = make_batch([length] * len(spans), spans, length)
    sums = _sums(alignment(make_states(student), make_states(teacher), batch))
    with torch.no_grad():
        dsa, hid = slow_reference(student, teacher, *weights, spans, _projections(alignment)[0])
    assert sums["dsa"].item() == pytest.approx(sum(dsa), rel=1e-5, abs=1e-9)
    assert sums["hid"].item() == pytest.approx(sum(hid), rel=1e-5)
    assert (len(dsa), len(hid)) == (
        batch.counts[texts_with_span_pairs("words")],
        batch.counts[texts_with_spans("words")],
    )


@pytest.mark.parametrize("importance", [FromStates, Attention, Uniform])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_sums_do_not_depend_on_how_a_batch_is_cut_and_padded(make_batch, make_states, importance, size):
    student, teacher = _hidden(STUDENT, 1), _hidden(TEACHER, 2)
    alignment = _alignment(importance)

    def sums(start, end):
        longest = max(LENGTHS[start:end])
        batch = make_batch(LENGTHS[start:end], SPANS[start:end], longest)
        cut = [make_states(hidden[start:end, :longest]) for hidden in (student, teacher)]
        return _sums(alignment(*cut, batch))

    whole, parts = sums(0, 8), [sums(start, start + size) for start in range(0, 8, size)]
    for name in ("dsa", "hid"):
        assert sum(part[name].item() for part in parts) == pytest.approx(whole[name].item(), rel=1e-6)
    alone = [sums(text, text + 1)["dsa"].item() for text in range(8)]
    assert [value > 0 for value in alone] == [len(ranges) > 1 for ranges in SPANS]


def test_batch_reduction_divides_once_and_is_scaled_to_its_count(make_batch, make_states):
    student, teacher = _hidden(STUDENT, 1), _hidden(TEACHER, 2)
    alignment = _alignment(Uniform, reduction="batch", hid=0)
    batch = make_batch(LENGTHS, SPANS, 9)
    above = below = 0.0
    for text, ranges in enumerate(SPANS):
        memberships = sum(end - start for start, end in ranges)
        means = [[hidden[text, start:end].mean(0) for start, end in ranges] for hidden in (student, teacher)]
        for i, first in enumerate(ranges):
            for j, second in enumerate(ranges):
                if i != j:
                    weight = (first[1] - first[0]) * (second[1] - second[0]) / memberships**2
                    angles = [torch.cosine_similarity(mean[i], mean[j], dim=0) for mean in means]
                    above, below = above + weight * (angles[0] - angles[1]) ** 2, below + weight
    (term,) = alignment(make_states(student), make_states(teacher), batch)
    assert (term.sum / batch.counts[term.unit]).item() == pytest.approx((above / below).item(), rel=1e-6)


def test_max_spans_leaves_spans_out_of_dsa_by_the_teachers_weights_and_hid_as_it_was(make_batch, make_states):
    """Uniform weights: the longest spans are the heaviest."""
    student, teacher = _hidden(STUDENT, 1), _hidden(TEACHER, 2)
    longest = [sorted(sorted(ranges, key=lambda span: span[0] - span[1])[:2]) for ranges in SPANS]
    assert longest != [sorted(ranges) for ranges in SPANS]
    states, few = (make_states(student), make_states(teacher)), make_batch(LENGTHS, longest, 9)
    whole = make_batch(LENGTHS, [sorted(ranges) for ranges in SPANS], 9)
    limited = _sums(_alignment(Uniform, max_spans=2)(*states, whole))
    assert limited["dsa"].item() == pytest.approx(_sums(_alignment(Uniform)(*states, few))["dsa"].item(), rel=1e-6)
    assert limited["hid"].item() == _sums(_alignment(Uniform)(*states, whole))["hid"].item()


def test_padding_gets_no_gradient_and_garbage_in_it_changes_nothing(make_batch, make_states):
    lengths, spans = [4, 6], [[(0, 2), (2, 4)], [(0, 3), (3, 6), (4, 5)]]
    student, teacher = _hidden(STUDENT, 1, 2, 6).requires_grad_(), _hidden(TEACHER, 2, 2, 6)
    alignment, batch = _alignment(Attention), make_batch(lengths, spans, 6)
    clean = _sums(alignment(make_states(student), make_states(teacher), batch))
    (clean["dsa"] + clean["hid"]).backward()
    assert not student.grad[0, 4:].any()
    assert student.grad[0, :4].abs().sum() > 0
    for hidden in (student, teacher):
        hidden.data[0, 4:] = 1e3
    dirty = _sums(alignment(make_states(student), make_states(teacher), batch))
    for name in clean:
        assert dirty[name].item() == pytest.approx(clean[name].item(), rel=1e-6)


@pytest.mark.parametrize("spans", [[[], []], [[(0, 2)], []], [[(1, 3)], [(0, 4)]]])
@pytest.mark.parametrize("reduction", ["example", "batch"])
def test_without_pairs_dsa_is_zero_and_every_gradient_is_there(make_batch, make_states, spans, reduction):
    student, teacher = _hidden(STUDENT, 1, 2, 4).requires_grad_(), _hidden(TEACHER, 2, 2, 4)
    alignment = _alignment(reduction=reduction)
    sums = _sums(alignment(make_states(student), make_states(teacher), make_batch([4, 4], spans, 4)))
    assert sums["dsa"].item() == 0
    (gradient,) = torch.autograd.grad(sums["dsa"], student, retain_graph=True)
    assert not gradient.any()
    sums["hid"].backward()
    for parameter in alignment.parameters():
        assert parameter.grad is not None
        assert parameter.grad.any() == any(spans)
    assert student.grad.any() == any(spans)


def test_dsa_is_zero_when_the_student_is_the_teacher_rotated_and_scaled(make_batch, make_states):
    teacher = _hidden(STUDENT, 2)
    rotation = torch.linalg.qr(_hidden(STUDENT, 5, 1, STUDENT)[0])[0]
    batch = make_batch(LENGTHS, SPANS, 9)
    options = {"width": STUDENT, "hid": 0}
    (same,) = _alignment(Uniform, **options)(make_states(3 * teacher @ rotation), make_states(teacher), batch)
    (bent,) = _alignment(Uniform, **options)(make_states(teacher.abs() @ rotation), make_states(teacher), batch)
    assert same.sum.item() < 1e-9
    assert bent.sum.item() > 1e-2


def test_hid_is_zero_when_the_map_hits_the_direction_of_the_teacher(make_batch, make_states):
    student, alignment = _hidden(STUDENT, 1), _alignment(dsa=0)
    teacher = 5 * _projections(alignment)[0](student).detach()
    (term,) = alignment(make_states(student), make_states(teacher), make_batch(LENGTHS, SPANS, 9))
    assert term.name == "hid"
    assert abs(term.sum.item()) < 1e-9


def test_terms_that_are_left_out_leave_no_maps(make_batch, make_states):
    states = make_states(_hidden(STUDENT, 1)), make_states(_hidden(TEACHER, 2))
    batch = make_batch(LENGTHS, SPANS, 9)
    only_structure, only_hidden = _alignment(hid=0), _alignment(dsa=0)
    assert [term.name for term in only_structure(*states, batch)] == ["dsa"]
    assert list(only_structure.parameters()) == []
    assert [term.name for term in only_hidden(*states, batch)] == ["hid"]
    assert [tuple(parameter.shape) for parameter in only_hidden.parameters()] == [(TEACHER, STUDENT), (TEACHER,)]


@pytest.mark.parametrize(("reduction", "hid_weight"), [("mean", 0.3 / 2), ("sum", 0.3)])
def test_weights_average_over_key_layers_or_sum_hid_as_asked(make_batch, make_states, reduction, hid_weight):
    pairs = [LayerPair(1, 3, "words"), LayerPair(2, 4, "words")]
    alignment = _alignment(pairs=pairs, dsa=4.0, hid=0.3, over_layers=reduction)
    head = make_states(_hidden(1, 0)).head
    student = States(_hidden(STUDENT, 0), {1: _hidden(STUDENT, 1), 2: _hidden(STUDENT, 2)}, head)
    teacher = States(_hidden(TEACHER, 0), {3: _hidden(TEACHER, 3), 4: _hidden(TEACHER, 4)}, head)
    terms = alignment(student, teacher, make_batch(LENGTHS, SPANS, 9))
    assert [(term.name, term.weight) for term in terms] == [("dsa", 2.0), ("hid", hid_weight)] * 2
    assert {term.unit for term in terms} == {texts_with_span_pairs("words"), texts_with_spans("words")}
    alone = _alignment(pairs=pairs[1:])
    _projections(alone)[0].load_state_dict(_projections(alignment)[1].state_dict())
    for term, expected in zip(terms[2:], alone(student, teacher, make_batch(LENGTHS, SPANS, 9)), strict=True):
        torch.testing.assert_close(term.sum, expected.sum)


class Nothing(ImportanceEstimator):
    """Weight 0 for all."""

    NAME = "nothing"

    def weigh(self, states, layer, mask_BT):
        return torch.zeros_like(mask_BT, dtype=torch.float32)


class Scaled(FromStates):
    """The same weights in another unit."""

    def weigh(self, states, layer, mask_BT):
        return 1e-12 * super().weigh(states, layer, mask_BT)


@pytest.mark.parametrize("importance", [Nothing, FromStates])
def test_zero_weights_and_zero_states_give_finite_values_and_gradients(make_batch, make_states, importance):
    student, teacher = _hidden(STUDENT, 1), _hidden(TEACHER, 2)
    student[1], teacher[0, 2:6] = 0, 0
    student.requires_grad_()
    sums = _sums(_alignment(importance)(make_states(student), make_states(teacher), make_batch(LENGTHS, SPANS, 9)))
    sum(sums.values()).backward()
    assert all(value.isfinite() for value in sums.values())
    assert student.grad.isfinite().all()
    if importance is Nothing:
        assert not any(sums.values())


def test_scale_of_the_importance_is_free(make_batch, make_states):
    states = make_states(_hidden(STUDENT, 1)), make_states(_hidden(TEACHER, 2))
    batch = make_batch(LENGTHS, SPANS, 9)
    plain, scaled = _sums(_alignment()(*states, batch)), _sums(_alignment(Scaled)(*states, batch))
    for name, value in plain.items():
        assert scaled[name].item() == pytest.approx(value.item(), rel=1e-5)


def test_no_gradient_flows_through_importance(make_batch, make_states):
    """The student's gradient is that of fixed weights."""

    class Fixed(ImportanceEstimator):
        NAME = "fixed"

        def weigh(self, states, layer, mask_BT):
            return weights[states.final_BTD.shape[-1]]

    student, teacher = _hidden(STUDENT, 1).requires_grad_(), _hidden(TEACHER, 2)
    batch = make_batch(LENGTHS, SPANS, 9)
    weights = {
        hidden.shape[-1]: (hidden.detach()[..., 0].abs() + 0.1).float() * batch.attention_mask_BT
        for hidden in (student, teacher)
    }
    gradients = []
    for importance in (FromStates, Fixed):
        sums = _sums(_alignment(importance)(make_states(student), make_states(teacher), batch))
        gradients.append(torch.autograd.grad(sums["dsa"] + sums["hid"], student)[0])
    torch.testing.assert_close(*gradients)


def test_bf16_autocast_and_a_teacher_of_inference_tensors_stay_near_float32(make_batch, make_states):
    student, batch = _hidden(STUDENT, 1).float().requires_grad_(), make_batch(LENGTHS, SPANS, 9)
    alignment = _alignment(Attention).float()
    with torch.inference_mode():
        teacher = make_states(_hidden(TEACHER, 2).bfloat16())
    plain = _sums(alignment(make_states(student), teacher, batch))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = _sums(alignment(make_states(student), teacher, batch))
    # Between the roundings of float32, 2^-24, and one of bfloat16, 2^-9.
    assert mixed["dsa"].item() == pytest.approx(plain["dsa"].item(), rel=2**-16)
    assert mixed["hid"].item() == pytest.approx(plain["hid"].item(), rel=1e-2)
    assert {value.dtype for value in mixed.values()} == {torch.float32}
    sum(mixed.values()).backward()
    assert student.grad.isfinite().all()
    assert _projections(alignment)[0].weight.grad.dtype == torch.float32


def test_an_estimator_that_gives_another_shape_is_named(make_batch, make_states):
    class PerText(ImportanceEstimator):
        NAME = "per_text"

        def weigh(self, states, layer, mask_BT):
            return torch.ones(len(mask_BT))

    states = make_states(_hidden(STUDENT, 1)), make_states(_hidden(TEACHER, 2))
    shapes = r"\(got \(8,\) for a mask of \(8, 9\)\)"
    message = f"^importance estimator 'per_text' must return weights of the shape of its mask {shapes}$"
    with pytest.raises(RunError, match=message):
        _alignment(PerText)(*states, make_batch(LENGTHS, SPANS, 9))


def test_parameters_without_a_gradient_are_named_with_term_and_key_layer(make_batch, make_states):
    """The projection of the second key layer is out of the graph, as if the term had detached it."""
    pairs = (LayerPair(1, 1, "words"), LayerPair(2, 2, "words"))
    alignment = _alignment(Uniform, pairs)
    hidden = [[_hidden(width, seed) for seed in (1, 2)] for width in (STUDENT, TEACHER)]
    hidden[0][0].requires_grad_()
    states = [States(make_states(layers[0]).final_BTD, {1: layers[0], 2: layers[1]}, None) for layers in hidden]
    sum(term.sum for term in alignment(*states, make_batch(LENGTHS, SPANS, 9))).backward()
    alignment.require_gradients()
    _projections(alignment)[1].weight.grad = None
    fault = "alignment term 'hid' gives 'weight' of its module at key layer 2->2 words no gradient"
    with pytest.raises(RunError, match=fault):
        alignment.require_gradients()
    _projections(alignment)[1].requires_grad_(False)
    alignment.require_gradients()
