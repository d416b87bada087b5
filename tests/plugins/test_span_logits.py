"""Span logits: values and gradients by loops in float64, restriction to shared tokens, and at which layers."""

from __future__ import annotations

import pytest
import torch
from transformers import OPTConfig, OPTForCausalLM

from mta_framework import FinalLayers, Head, InputError, LayerPair, ModelShape, States
from mta_framework.alignment.objective import Alignment, WeightedTerm
from mta_framework.models.teacher_states import Teacher
from mta_framework.runs.build import require_final_norms
from mta_framework.testing import AlignmentTermContract, batch_of, random_example, term_sums
from mta_plugins.alignment_terms.span_logits import SpanLogits
from mta_plugins.importance_estimators.uniform import Uniform

SPANS = [((0, 2), (1, 4)), (), ((0, 1), (1, 3), (2, 3))]
LENGTHS = [5, 2, 4]
UPPER, LOWER = LayerPair(2, 3, "words"), LayerPair(1, 2, "words")


def made(**options):
    return SpanLogits(SpanLogits.Params(**options))


def texts():
    return batch_of(*(random_example(n, 1, spans={"words": s}) for n, s in zip(LENGTHS, SPANS, strict=True)))


def norm(hidden):
    return hidden / hidden.square().mean(-1, keepdim=True).sqrt()


def states(width, depth, vocabulary, seed, gradient=False, **final):
    generator = torch.Generator().manual_seed(seed)

    def leaf(*sizes):
        return torch.randn(*sizes, generator=generator, dtype=torch.float64).requires_grad_(gradient)

    layers = {layer: leaf(3, 5, width) for layer in range(1, depth + 1)}
    head = Head(leaf(vocabulary, width), leaf(vocabulary))
    return States(layers[depth], layers, head, FinalLayers(ModelShape(depth, width), **{"norm": norm} | final))


def expected(pair, student, teacher, kept=None):
    """All tokens of a text weigh the same: a span counts by its number of tokens."""
    total = torch.zeros((), dtype=torch.float64)
    for text, spans in enumerate(SPANS):
        members = sum(end - start for start, end in spans)
        for start, end in spans:
            logs = []
            for side, layer, ids in ((student, pair.student, 0), (teacher, pair.teacher, 1)):
                vector = side.layers[layer][text, start:end].mean(0)
                if layer < max(side.layers):
                    vector = norm(vector)
                logits = side.head.weight_VD @ vector + side.head.bias_V
                logs.append((logits if kept is None else logits[kept[ids]]).log_softmax(-1))
            total = total + (end - start) / members * (logs[1].exp() * (logs[1] - logs[0])).sum()
    return total


@pytest.mark.parametrize("kept", [None, (torch.tensor([5, 0, 8]), torch.tensor([1, 11, 4]))])
@pytest.mark.parametrize("pair", [UPPER, LOWER])
def test_value_and_gradients_are_those_of_loops_over_spans(pair, kept):
    student, teacher = states(4, 2, 9, 1, gradient=True), states(6, 3, 9 if kept is None else 12, 2)
    (value,) = term_sums(made(), [pair], student, teacher, texts(), kept)
    reference = expected(pair, student, teacher, kept)
    assert value.item() == pytest.approx(reference.item(), rel=1e-6)
    leaves = student.layers[pair.student], student.head.weight_VD, student.head.bias_V
    for gradient, wanted in zip(*(torch.autograd.grad(total, leaves) for total in (value, reference)), strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-6, atol=1e-7)  # weights of spans are float32
        assert gradient.any()


def test_equal_models_have_no_divergence_and_padded_vocabularies_are_cut():
    student = states(4, 2, 9, 1, gradient=True)
    padded = Head(torch.cat([student.head.weight_VD, torch.ones(3, 4, dtype=torch.float64)]).detach())
    bare = States(student.final_BTD, student.layers, Head(student.head.weight_VD), student.final_layers)
    teacher = States(student.final_BTD, student.layers, padded, student.final_layers)
    (value,) = term_sums(made(), [LayerPair(2, 2, "words")], bare, teacher, texts())
    assert value.item() == pytest.approx(0, abs=1e-12)


def test_the_order_of_the_ids_and_tokens_that_one_vocabulary_lacks_change_nothing():
    student, teacher = states(4, 2, 9, 1), states(6, 3, 12, 2)
    ids, order = (torch.tensor([0, 3, 7]), torch.tensor([2, 9, 5])), torch.tensor([2, 0, 1])
    (value,) = term_sums(made(), [UPPER], student, teacher, texts(), ids)
    student.head.weight_VD[[1, 2, 4, 5, 6, 8]] = 1e3
    teacher.head.weight_VD[[0, 1, 3, 4, 6, 7, 8, 10, 11]] = -1e3
    (again,) = term_sums(made(), [UPPER], student, teacher, texts(), tuple(side[order] for side in ids))
    assert again.item() == pytest.approx(value.item(), rel=1e-12)


def test_it_is_computed_at_the_last_key_layer_for_every_granularity_there_unless_all_are_asked_for():
    pairs = [LayerPair(5, 6, "words"), LayerPair(1, 1, "words"), LayerPair(4, 4, "phrases"), LayerPair(5, 6, "phrases")]
    assert made().key_layers(pairs) == [pairs[0], pairs[3]]
    assert made().key_layers(pairs[1:]) == [pairs[3]]
    assert made(layers="all").key_layers(pairs) == pairs


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_a_model_without_final_norm_is_refused_before_training_unless_its_last_layer_is_read(side):
    sizes = {"vocab_size": 12, "hidden_size": 8, "word_embed_proj_dim": 8, "ffn_dim": 8, "num_attention_heads": 1}
    with_norm, without = (
        OPTForCausalLM(OPTConfig(**sizes, num_hidden_layers=2, max_position_embeddings=8, do_layer_norm_before=before))
        for before in (True, False)
    )
    student, teacher = (without if name == side else with_norm for name in ("student", "teacher"))
    for pairs in ([LayerPair(1, 1, "words")], [LayerPair(1, 1, "words"), LayerPair(2, 2, "words")]):
        aligner = Alignment(pairs, Uniform(Uniform.Params()), [WeightedTerm(made(), 1.0)], *[ModelShape(2, 8)] * 2)
        if len(pairs) == 2:
            require_final_norms(aligner, 2, student, Teacher.of(teacher))
            continue
        with pytest.raises(InputError, match=f"alignment.terms.0: applies the {side}'s head below its last layer"):
            require_final_norms(aligner, 2, student, Teacher.of(teacher))


def test_a_projection_after_the_norm_is_applied_to_every_layer():
    turn = torch.randn(4, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    student, teacher = states(4, 2, 9, 1, projection=lambda hidden: hidden @ turn), states(6, 3, 9, 2)
    turned = States(student.final_BTD, student.layers, Head(student.head.weight_VD @ turn.T, student.head.bias_V))
    turned = States(turned.final_BTD, turned.layers, turned.head, FinalLayers(ModelShape(2, 4), norm))
    for pair in (UPPER, LOWER):
        values = [term_sums(made(), [pair], side, teacher, texts())[0].item() for side in (student, turned)]
        assert values[0] == pytest.approx(values[1], rel=1e-12)


class TestAtAllLayers(AlignmentTermContract):
    @pytest.fixture
    def plugin(self):
        return made(layers="all")
