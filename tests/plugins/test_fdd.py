"""The fdd base loss."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pydantic
import pytest
import torch
from torch.nn import functional

from mta_framework import (
    ATTENDED_TOKENS,
    TOKENS,
    BaseLoss,
    Batch,
    FinalLayers,
    Head,
    LossTerm,
    ModelShape,
    Progress,
    RunError,
    States,
)
from mta_framework.registry import discover
from mta_plugins.base_losses.fdd import FDD

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "fdd.json").read_text())
PROGRESS = Progress(step=0, total_steps=1, epoch=0.0)
STUDENT, TEACHER = ModelShape(6, 5), ModelShape(12, 4)
PAIRS = [(2, 4), (3, 6), (4, 8)]
DOUBLE = torch.float64


class Output(BaseLoss):
    """Stands in for the output loss and records what it is asked for."""

    NAME = "output"

    def __init__(self):
        self.seen = []

    def compute(self, student, teacher, batch, progress):
        return (LossTerm("output", student.final_BTD.sum(), TOKENS, 0.5),)

    def key_layers(self, student, teacher):
        return [(3, 6), (6, 12)]

    def batch_policy(self):
        return "its policy"

    def observe(self, values):
        self.seen.append(values)

    def state(self):
        return {"seen": len(self.seen)}

    def restore(self, state):
        self.seen = [None] * state["seen"]


def fdd(output=None, **options):
    return FDD(FDD.Params(**options), output=output or Output())


def states(shape, seed, pairs_side, vocabulary=11, dtype=torch.float32, trainable=None, tied=False):
    generator = torch.Generator().manual_seed(seed)
    trainable = seed == 0 if trainable is None else trainable

    def draw(*size):
        return torch.randn(size, generator=generator, dtype=DOUBLE).to(dtype).requires_grad_(trainable)

    layers = {layer: draw(2, 5, shape.hidden_size) for layer in pairs_side}
    final_BTD = layers.get(shape.num_layers)
    if final_BTD is None:
        final_BTD = draw(2, 5, shape.hidden_size)
    return States(final_BTD, layers, Head(draw(vocabulary, shape.hidden_size)), FinalLayers(shape))


def both(**options):
    return states(STUDENT, 0, [2, 3, 4, 6], **options), states(TEACHER, 1, [4, 6, 8, 12], **options)


def batch(*lengths, tokens=5, supervised=(1, 2)):
    mask_BT = (torch.arange(tokens) < torch.tensor(lengths)[:, None]).long()
    position_N = torch.tensor(supervised, dtype=torch.int64)
    counts = {TOKENS: len(position_N), ATTENDED_TOKENS: int(mask_BT.sum())}
    return Batch(torch.zeros_like(mask_BT), mask_BT, position_N, position_N % 11, {}, counts)


def dense(student, teacher, mask_BT, pairs=PAIRS, temperature=5.0):
    """Both distances, summed over attended tokens, from whole logits in float64."""
    chosen = mask_BT.bool()

    def logits(side, layers):
        return [side.layers[layer][chosen].double() @ side.head.weight_VD.double().T for layer in layers]

    z, t = logits(student, [layer for layer, _ in pairs]), logits(teacher, [layer for _, layer in pairs])
    trajectory = derivative = 0.0
    for student_logits, teacher_logits in zip(z, t, strict=True):
        p, q = (
            functional.softmax(teacher_logits / temperature, -1),
            functional.softmax(student_logits / temperature, -1),
        )
        trajectory = trajectory + (p * (p / q).log()).sum() / len(pairs)
    for level in range(1, len(pairs)):
        delta_q = z[level].log_softmax(-1) - z[level - 1].log_softmax(-1)
        delta_p = t[level].log_softmax(-1) - t[level - 1].log_softmax(-1)
        cosine = (delta_q * delta_p).sum(-1) / (delta_q.norm(dim=-1) * delta_p.norm(dim=-1))
        derivative = derivative + (1 - cosine).sum() / (len(pairs) - 1)
    return trajectory, derivative


def test_terms_are_those_of_the_output_loss_then_the_distances_and_their_parts():
    student, teacher = both()
    given = batch(5, 3)
    terms = fdd().compute(student, teacher, given, PROGRESS)
    assert [(term.name, term.unit, term.weight) for term in terms] == [
        ("output", TOKENS, 0.5),
        ("fdd", ATTENDED_TOKENS, 1.0),
        ("fdd_trajectory", ATTENDED_TOKENS, 0.0),
        ("fdd_derivative", ATTENDED_TOKENS, 0.0),
    ]
    trajectory, derivative = dense(student, teacher, given.attention_mask_BT)
    expected = [trajectory + derivative, trajectory, derivative]
    assert [term.sum.item() for term in terms[1:]] == pytest.approx([value.item() for value in expected], rel=1e-5)
    inputs = [student.layers[layer] for layer in (2, 3, 4)] + [student.head.weight_VD]
    wanted = torch.autograd.grad(expected[0], inputs)
    for got, gradient in zip(torch.autograd.grad(terms[1].sum, inputs), wanted, strict=True):
        torch.testing.assert_close(got, gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "weights", "logged"),
    [
        ({"trajectory_weight": 2.0, "temperature": 2.0}, (2.0, 1.0), ["fdd_trajectory", "fdd_derivative"]),
        ({"derivative_weight": 0.0}, (1.0, 0.0), ["fdd_trajectory"]),
        ({"trajectory_weight": 0.0, "derivative_weight": 0.3}, (0.0, 0.3), ["fdd_derivative"]),
    ],
)
def test_weights_and_temperature_are_heeded(options, weights, logged):
    student, teacher = both()
    given = batch(5, 3)
    _, total, *parts = fdd(**options).compute(student, teacher, given, PROGRESS)
    values = dense(student, teacher, given.attention_mask_BT, temperature=options.get("temperature", 5.0))
    expected = sum(weight * value for weight, value in zip(weights, values, strict=True))
    assert total.sum.item() == pytest.approx(expected.item(), rel=1e-5)
    assert [part.name for part in parts] == logged


def test_default_is_the_authors_loss_on_their_numbers():
    case = GOLDEN["cases"][0]

    def tensor(entry):
        return torch.tensor(entry["data"], dtype=torch.float32).view(entry["shape"])

    mask_BT = tensor(case["attention_mask"]).long()
    student = {layer: tensor(entry).requires_grad_() for layer, entry in enumerate(case["student_hidden"], 1)}
    teacher = {layer: tensor(entry) for layer, entry in enumerate(case["teacher_hidden"], 1)}
    student_states = States(
        student[3], student, Head(tensor(case["student_head_weight"])), FinalLayers(ModelShape(4, 5))
    )
    teacher_states = States(
        teacher[3], teacher, Head(tensor(case["teacher_head_weight"])), FinalLayers(ModelShape(4, 7))
    )
    given = Batch(mask_BT, mask_BT, torch.tensor([0]), torch.tensor([0]), {}, {})
    term = fdd().compute(student_states, teacher_states, given, PROGRESS)[1]
    mean = term.sum / mask_BT.sum()
    assert mean.item() == pytest.approx(case["expected"]["trajectory_plus_derivative"], rel=1e-6)
    mean.backward()
    for layer, entry in enumerate(case["expected"]["grad_student_hidden"], 1):
        torch.testing.assert_close(student[layer].grad, tensor(entry), rtol=1e-4, atol=1e-7)


def test_default_output_is_distillm_on_the_data():
    loss = discover().create("base_losses", "fdd")
    assert loss.output.NAME == "distillm"
    assert loss.batch_policy() is None
    student, teacher = both()
    names = [term.name for term in loss.compute(student, teacher, batch(5, 5), PROGRESS)]
    assert names == ["distillm", "fdd", "fdd_trajectory", "fdd_derivative"]


def test_output_loss_decides_what_is_trained_on_and_keeps_its_state():
    output = Output()
    loss = fdd(output)
    loss.observe({"output": 1.0})
    assert loss.batch_policy() == "its policy"
    assert output.seen == [{"output": 1.0}]
    assert loss.state() == {"seen": 1}
    other = fdd()
    other.restore(loss.state())
    assert other.state() == loss.state()


@pytest.mark.parametrize(
    ("depths", "pairs"),
    [
        ((12, 48), [(4, 16), (6, 24), (8, 32)]),
        ((24, 32), [(8, 11), (12, 16), (16, 21)]),
        ((6, 12), PAIRS),
        ((3, 3), [(1, 1), (2, 2)]),
        ((12, 30), [(4, 10), (6, 15), (8, 20)]),
    ],
)
def test_layers_lie_at_a_third_a_half_and_two_thirds_of_both_models(depths, pairs):
    class Plain(Output):
        def key_layers(self, student, teacher):
            return ()

    shapes = [ModelShape(depth, 8) for depth in depths]
    assert fdd(Plain()).key_layers(*shapes) == pairs


def test_layers_of_the_spec_are_sorted_and_those_of_the_output_loss_are_read_too():
    layers = [{"student": 3, "teacher": 6}, {"student": 1, "teacher": 2}]
    assert fdd(layers=layers).key_layers(STUDENT, TEACHER) == [(1, 2), (3, 6), (6, 12)]


def test_layers_of_the_spec_are_those_that_are_compared():
    student, teacher = both()
    given = batch(5, 1)
    chosen = [(2, 8), (6, 12)]
    layers = [{"student": s, "teacher": t} for s, t in chosen]
    terms = fdd(layers=layers).compute(student, teacher, given, PROGRESS)
    values = dense(student, teacher, given.attention_mask_BT, chosen)
    assert terms[1].sum.item() == pytest.approx(sum(values).item(), rel=1e-5)


@pytest.mark.parametrize(
    ("layers", "shapes", "message"),
    [
        (
            [(1, 1), (7, 2)],
            (6, 12),
            r"within the models \(got 7->2\); expected layers 1 to 6 of the student",
        ),
        ([(1, 1), (2, 13)], (6, 12), r"within the models \(got 2->13\)"),
        (None, (1, 12), r"a student of 1 layers has 1 by default.*derivative_weight to 0"),
        (None, (2, 12), r"a student of 2 layers has 1 by default"),
        ([(1, 3), (2, 3)], (6, 12), r"from one key layer to the next.*\(got 2->3\)"),
        (None, (12, 2), r"from one key layer to the next.*\(got 6->1, 8->1\)"),
    ],
)
def test_layers_that_do_not_fit_the_models_are_refused(layers, shapes, message):
    given = None if layers is None else [{"student": s, "teacher": t} for s, t in layers]
    with pytest.raises(ValueError, match=message) as caught:
        fdd(layers=given).key_layers(*(ModelShape(depth, 8) for depth in shapes))
    assert "; " in str(caught.value)
    assert ". " in str(caught.value).partition("; ")[2]


def test_one_layer_will_do_without_the_derivative():
    loss = fdd(layers=[{"student": 2, "teacher": 4}], derivative_weight=0)
    assert (2, 4) in loss.key_layers(STUDENT, TEACHER)
    student, teacher = both()
    given = batch(5, 3)
    term = loss.compute(student, teacher, given, PROGRESS)[1]
    assert term.sum.item() == pytest.approx(
        dense(student, teacher, given.attention_mask_BT, [(2, 4)])[0].item(), rel=1e-5
    )


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0},
        {"trajectory_weight": -1},
        {"trajectory_weight": 0, "derivative_weight": 0},
        {"trajectory_weight": 0, "temperature": 2},
        {"layers": []},
        {"layers": [{"student": 1, "teacher": 1}]},
        {"layers": [{"student": 0, "teacher": 1}, {"student": 1, "teacher": 2}]},
        {"layers": [{"student": 1, "teacher": 1}, {"student": 1, "teacher": 2}]},
        {"layers": [{"student": 1, "teacher": 1, "granularity": "words"}, {"student": 2, "teacher": 2}]},
        {"skew": 0.1},
    ],
)
def test_options_out_of_range_without_effect_or_unknown_are_refused(options):
    with pytest.raises(pydantic.ValidationError):
        FDD.Params(**options)


def test_padding_counts_nothing_and_more_of_it_changes_nothing():
    student, teacher = both()
    narrow = fdd().compute(student, teacher, batch(5, 3), PROGRESS)

    def widened(side):
        layers = {
            layer: functional.pad(hidden.detach(), (0, 0, 0, 2), value=float("nan"))
            for layer, hidden in side.layers.items()
        }
        for hidden in layers.values():
            hidden[1, 3:] = float("nan")
        return replace(side, layers={layer: hidden.requires_grad_() for layer, hidden in layers.items()})

    wide_student = widened(student)
    wide = fdd().compute(wide_student, widened(teacher), batch(5, 3, tokens=7), PROGRESS)
    assert [term.sum.item() for term in wide[1:]] == pytest.approx([term.sum.item() for term in narrow[1:]], rel=1e-6)
    wide[1].sum.backward()
    for layer in (2, 3, 4):
        gradient = wide_student.layers[layer].grad
        assert torch.isfinite(gradient).all()
        assert not gradient[0, 5:].any()
        assert not gradient[1, 3:].any()


def test_prompt_tokens_count_as_much_as_supervised_ones():
    student, teacher = both()
    sums = [fdd().compute(student, teacher, batch(5, 3, supervised=s), PROGRESS)[1].sum for s in ((1, 2), (), (7,))]
    assert sums[0] == sums[1] == sums[2]


def test_sums_do_not_depend_on_how_the_batch_is_cut():
    student, teacher = both()
    whole = fdd().compute(student, teacher, batch(5, 3), PROGRESS)

    def row(side, index):
        layers = {layer: hidden[index : index + 1] for layer, hidden in side.layers.items()}
        return replace(side, layers=layers, final_BTD=side.final_BTD[index : index + 1])

    parts = [
        fdd().compute(row(student, index), row(teacher, index), batch(length, supervised=()), PROGRESS)
        for index, length in enumerate((5, 3))
    ]
    for term, *cut in zip(whole[1:], *(part[1:] for part in parts), strict=True):
        assert term.sum.item() == pytest.approx(sum(part.sum.item() for part in cut), rel=1e-5)


@pytest.mark.parametrize("lengths", [(1, 0), (5, 0), (0, 0)])
def test_one_text_one_token_and_none_are_normal(lengths):
    student, teacher = both()
    given = batch(*lengths, supervised=())
    term = fdd().compute(student, teacher, given, PROGRESS)[1]
    expected = sum(dense(student, teacher, given.attention_mask_BT))
    assert term.sum.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-12)
    term.sum.backward()
    assert torch.isfinite(student.head.weight_VD.grad).all()
    assert bool(student.head.weight_VD.grad.any()) is (sum(lengths) > 0)


def test_padded_vocabulary_counts_on_the_common_part():
    student, teacher = both()
    wide = replace(teacher, head=Head(torch.cat([teacher.head.weight_VD, torch.full((4, 4), 50.0)])))
    sums = [fdd().compute(student, side, batch(5, 3), PROGRESS)[1].sum.item() for side in (teacher, wide)]
    assert sums[0] == pytest.approx(sums[1], rel=1e-6)


def test_final_norm_is_applied_to_both_models():
    student, teacher = both()

    def normed(side):
        norm = torch.nn.LayerNorm(side.final_layers.shape.hidden_size)
        ready = {layer: norm(hidden) for layer, hidden in side.layers.items()}
        return replace(side, final_layers=replace(side.final_layers, norm=norm)), replace(side, layers=ready)

    (student_states, student_ready), (teacher_states, teacher_ready) = normed(student), normed(teacher)
    given = batch(5, 3)
    term = fdd(final_norm=True).compute(student_states, teacher_states, given, PROGRESS)[1]
    expected = sum(dense(student_ready, teacher_ready, given.attention_mask_BT))
    assert term.sum.item() == pytest.approx(expected.item(), rel=1e-5)
    assert fdd().compute(student_states, teacher_states, given, PROGRESS)[1].sum.item() != pytest.approx(
        expected.item(), rel=1e-3
    )


def test_final_norm_is_refused_where_there_is_none():
    with pytest.raises(RunError, match="no final norm was found"):
        fdd(final_norm=True).compute(*both(), batch(5, 3), PROGRESS)


def test_a_loss_that_is_its_own_output_is_refused():
    inner = discover().create("base_losses", "fdd")
    with pytest.raises(ValueError, match="output must be another loss than fdd itself"):
        FDD(FDD.Params(), output=inner)
