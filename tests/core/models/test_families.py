"""Every family of models gives the loss that a dense computation from ``model(...).logits`` gives, gradients included.

Student and teacher have vocabularies that differ by padding; texts are padded. All in float64.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cosine_similarity

from mta_framework import Example, Progress
from mta_framework.data.batches import collate
from mta_framework.models.head_check import check_head
from mta_framework.models.lora import add_lora
from mta_framework.models.state_reader import StateReader, shape_of
from mta_framework.registry import discover
from mta_framework.spec.student import LoraSection

FAMILIES = ["llama", "qwen2", "qwen3", "mistral", "gemma2", "gemma3", "gpt2", "opt", "opt_projected", "opt_350m", "phi",
            "gpt_neox", "cohere", "granite", "bloom", "falcon", "olmo2"]  # fmt: skip
TEXTS = ((9, 3), (8, 1), (10, 5), (9, 9))
"""Tokens of a text, and of its prompt. Eager attention in float64 gives NaN where a window holds padding alone, and
padding is no longer than the windows here."""
ROWS = [(row, position) for row, (length, prompt) in enumerate(TEXTS) for position in range(prompt - 1, length - 1)]
BY_STUDENT = (False, True, False, False)


@pytest.fixture(scope="module")
def registry():
    return discover()


@pytest.fixture(scope="module")
def batch():
    generator = np.random.default_rng(0)
    examples = [
        Example(generator.integers(0, 250, length).astype(np.int32), prompt, {}, by_student)
        for (length, prompt), by_student in zip(TEXTS, BY_STUDENT, strict=True)
    ]
    return collate(examples, 256, ())


@pytest.fixture
def pair(tiny):
    """``pair(family, tied, lora)``: a student of 300 tokens and a teacher, wider and deeper, of 308."""

    def make(family, tied=True, lora=False):
        student = tiny(family, seed=1, tie_word_embeddings=tied).double()
        teacher = tiny(family, seed=2, tie_word_embeddings=tied, vocab_size=308, hidden_size=24, num_hidden_layers=6)
        if lora:
            student = add_lora(student, LoraSection(rank=2)).double()
            for name, parameter in student.named_parameters():
                if "lora_B" in name:
                    nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(3))
        check_head(student)
        return student, teacher.double().requires_grad_(False)

    return make


def gradients(total, model):
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    values = torch.autograd.grad(total, list(trained.values()), allow_unused=True)
    return dict(zip(trained, values, strict=True))


def ours(base_loss, student, teacher, batch):
    """The weighted sum of the terms as the training step gets it, and its gradients."""
    layers = base_loss.key_layers(shape_of(student), shape_of(teacher))
    reader = StateReader(student, {layer for layer, _ in layers})
    with torch.inference_mode():
        teacher_reader = StateReader(teacher, {layer for _, layer in layers})
        teacher_states = teacher_reader.read(batch.input_ids_BT, batch.attention_mask_BT)
    states = reader.read(batch.input_ids_BT, batch.attention_mask_BT)
    terms = base_loss.compute(states, teacher_states, batch, Progress(0, 10, 0.0))
    total = sum(term.weight * term.sum for term in terms if term.weight)
    return total, gradients(total, student)


def dense_logits(student, teacher, batch):
    """Whole logits of both models, cut to the smaller vocabulary."""
    inputs = {"input_ids": batch.input_ids_BT, "attention_mask": batch.attention_mask_BT}
    return [model(**inputs).logits[..., :300] for model in (student, teacher)]


def dense_kl(log_first, log_second):
    return (log_first.exp() * (log_first - log_second)).sum(-1)


def mixture(share, log_first, log_second):
    return (share * log_first.exp() + (1 - share) * log_second.exp()).log()


def pairs_loss(log_q, log_p):
    """DistiLLM-2 without curriculum: the mean over each response."""
    values = [
        dense_kl(q, mixture(0.1, q.detach(), p)) if BY_STUDENT[row] else dense_kl(p, mixture(0.1, p, q))
        for (row, _), q, p in zip(ROWS, log_q, log_p, strict=True)
    ]
    return sum(value / sum(row == text for text, _ in ROWS) for (row, _), value in zip(ROWS, values, strict=True))


DENSE = {
    "kl": ("kl", {}, lambda q, p: dense_kl(p, q)),
    "kl_reverse": ("kl", {"reverse": True}, lambda q, p: dense_kl(q, p)),
    "jsd": (
        "jsd",
        {"beta": 0.3},
        lambda q, p: 0.3 * dense_kl(p, mixture(0.3, p, q)) + 0.7 * dense_kl(q, mixture(0.3, p, q)),
    ),
    "tv": ("jsd", {"divergence": "total_variation"}, lambda q, p: (p.exp() - q.exp()).abs().sum(-1) / 2),
    "distillm": ("distillm", {}, lambda q, p: dense_kl(q, mixture(0.1, q, p))),
    "distillm_forward": ("distillm", {"divergence": "forward"}, lambda q, p: dense_kl(p, mixture(0.1, p, q))),
    "distillm2": ("distillm2", {"curriculum": False}, pairs_loss),
}
"""What is tested -> base loss, its options, the dense formula in log q and log p at the supervised positions."""


def assert_same(total, actual, expected, model, rtol=1e-9, gradient_rtol=None):
    gradient_rtol = gradient_rtol or rtol
    assert float(expected) > 1e-4
    torch.testing.assert_close(total, expected, rtol=rtol, atol=0)
    wanted = gradients(expected, model)
    assert any(gradient is not None for gradient in wanted.values())
    for name, gradient in wanted.items():
        if gradient is None:
            assert actual[name] is None, name
        else:
            atol = gradient_rtol * max(float(gradient.abs().max()), 1e-3)
            message = f"{name}: {float((actual[name] - gradient).abs().max())} apart"
            torch.testing.assert_close(actual[name], gradient, rtol=0, atol=atol, msg=message)


def compare(registry, batch, models, loss):
    name, options, formula = DENSE[loss]
    total, actual = ours(registry.create("base_losses", name, options), *models, batch)
    rows, positions = zip(*ROWS, strict=True)
    log_q, log_p = (logits[rows, positions].log_softmax(-1) for logits in dense_logits(*models, batch))
    # distillm2 weighs positions in float32.
    assert_same(total, actual, formula(log_q, log_p).sum(), models[0], 1e-6 if name == "distillm2" else 1e-9)


def test_kl_equals_that_of_dense_logits_where_the_decoder_is_not_what_the_model_gives_as_one(registry, batch, pair):
    compare(registry, batch, pair("llama4"), "kl")


@pytest.mark.parametrize("lora", [False, True], ids=["whole", "lora"])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("family", FAMILIES)
def test_kl_equals_that_of_dense_logits(registry, batch, pair, family, tied, lora):
    compare(registry, batch, pair(family, tied, lora), "kl")


@pytest.mark.parametrize("loss", [name for name in DENSE if name != "kl"])
@pytest.mark.parametrize("family", ["qwen2", "gemma2", "gpt2", "opt_350m", "phi"])
def test_token_level_losses_equal_those_of_dense_logits(registry, batch, pair, family, loss):
    compare(registry, batch, pair(family), loss)


@pytest.mark.parametrize("families", [("gpt2", "llama"), ("opt_projected", "gemma2"), ("phi", "opt")])
def test_student_and_teacher_may_be_of_two_families(registry, batch, pair, families):
    compare(registry, batch, (pair(families[0])[0], pair(families[1], tied=False)[1]), "kl")


def test_a_teacher_with_the_smaller_vocabulary_leaves_the_rest_of_the_head_alone(registry, batch, tiny):
    student = tiny("phi", seed=1, vocab_size=320).double()
    models = student, tiny("phi", seed=2, vocab_size=300).double()
    compare(registry, batch, models, "kl")
    _, actual = ours(registry.create("base_losses", "kl"), *models, batch)
    assert not actual["lm_head.weight"][300:].any()
    assert not actual["lm_head.bias"][300:].any()
    assert actual["lm_head.weight"][:300].any()


def test_experts_are_as_exact_as_float32_allows(registry, batch, tiny):
    # torch multiplies grouped matrices in 32 bits at most.
    models = tiny("mixtral", seed=1), tiny("mixtral", seed=2, vocab_size=308)
    total, actual = ours(registry.create("base_losses", "kl"), *models, batch)
    rows, positions = zip(*ROWS, strict=True)
    log_q, log_p = (logits[rows, positions].double().log_softmax(-1) for logits in dense_logits(*models, batch))
    assert_same(total.double(), actual, dense_kl(log_p, log_q).sum(), models[0], 1e-4)


NORMS = {"gpt2": "transformer.ln_f", "opt": "model.decoder.final_layer_norm", "bloom": "transformer.ln_f",
         "opt_projected": "model.decoder.final_layer_norm", "phi": "model.final_layernorm",
         "gpt_neox": "gpt_neox.final_layer_norm", "falcon": "transformer.ln_f"}  # fmt: skip
NORMLESS = ("opt_350m", True)


def dense_readouts(model, batch, layers, norm):
    """Logits of intermediate layers at every position, as the family makes logits of its final states."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    inputs = {"input_ids": batch.input_ids_BT, "attention_mask": batch.attention_mask_BT}
    states = base(**inputs, output_hidden_states=True).hidden_states
    config, project = base.config, getattr(base.get_decoder(), "project_out", None)
    for layer in layers:
        hidden = states[layer]
        if layer < len(states) - 1:
            hidden = base.get_submodule(norm)(hidden) if norm else hidden
            hidden = project(hidden) if project else hidden
        logits = base.get_output_embeddings()(hidden)
        logits = logits * (config.logit_scale if config.model_type == "cohere" else 1)
        logits = logits / (config.logits_scaling if config.model_type == "granite" else 1)
        if (cap := getattr(config, "final_logit_softcapping", None)) is not None:
            logits = cap * torch.tanh(logits / cap)
        yield logits[..., :300]


def dense_fdd(student, teacher, batch, norm):
    """FDD at layers 2, 3 and 4 of the student, 3, 5 and 6 of the teacher: sum over attended tokens, T = 5."""
    attended = batch.attention_mask_BT.bool()
    student_logits, teacher_logits = (
        [logits[attended] for logits in dense_readouts(model, batch, layers, norm)]
        for model, layers in ((student, (2, 3, 4)), (teacher, (3, 5, 6)))
    )
    trajectory = [
        dense_kl((p / 5).log_softmax(-1), (q / 5).log_softmax(-1))
        for q, p in zip(student_logits, teacher_logits, strict=True)
    ]
    steps = [[high.log_softmax(-1) - low.log_softmax(-1) for low, high in pairwise(side)]
             for side in (student_logits, teacher_logits)]  # fmt: skip
    derivative = [1 - cosine_similarity(q, p, dim=-1) for q, p in zip(*steps, strict=True)]
    return (sum(trajectory) / 3).sum() + (sum(derivative) / 2).sum()


@pytest.mark.parametrize(
    ("family", "final_norm"),
    [(family, final_norm) for family in FAMILIES for final_norm in (False, True) if (family, final_norm) != NORMLESS],
)
def test_key_layers_are_read_out_as_final_states_are(registry, batch, pair, family, final_norm):
    student, teacher = pair(family, lora=family in ("llama", "gpt2"))
    layers = [{"student": 2, "teacher": 3}, {"student": 3, "teacher": 5}, {"student": 4, "teacher": 6}]
    options = {"layers": layers, "final_norm": final_norm, "output": {"name": "kl"}}
    total, actual = ours(registry.create("base_losses", "fdd", options), student, teacher, batch)
    norm = NORMS.get(family, "model.norm") if final_norm else None
    rows, positions = zip(*ROWS, strict=True)
    log_q, log_p = (logits[rows, positions].log_softmax(-1) for logits in dense_logits(student, teacher, batch))
    expected = dense_kl(log_p, log_q).sum() + dense_fdd(student, teacher, batch, norm)
    # Several gradients meet in norms that compute in float32 whatever the input dtype; the order of summation is free.
    assert_same(total, actual, expected, student, gradient_rtol=1e-5)
