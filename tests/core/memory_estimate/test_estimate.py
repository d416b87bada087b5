"""The estimated peak of a training step against the allocator's, and its parts against counts by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from mta_framework.data.batches import Collator
from mta_framework.memory_estimate.estimate import TrainedRun, estimate_memory
from mta_framework.models.lora import add_lora
from mta_framework.models.model_summary import ModelSummary
from mta_framework.models.state_reader import shape_of
from mta_framework.models.teacher_states import Teacher
from mta_framework.registry import discover
from mta_framework.spec.run import RunSpec
from mta_framework.testing import random_example
from mta_framework.training.distiller import Distiller, contribution
from mta_framework.training.train import checkpoint_activations
from mta_framework.types import Progress

CPU = torch.device("cpu")
ENDS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}


def llama(width, layers):
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    sizes = {"hidden_size": width, "intermediate_size": 3 * width, "num_hidden_layers": layers}
    return AutoConfig.for_model("llama", vocab_size=300, tie_word_embeddings=True, **heads, **sizes, **ENDS)


def gpt2(width, layers):
    sizes = {"n_embd": width, "n_layer": layers, "n_head": 4, "n_positions": 64}
    return AutoConfig.for_model("gpt2", vocab_size=300, **sizes, **ENDS)


def summary(config, dtype="float32"):
    return ModelSummary(shape_of(config), 0, 0, dtype, 0, config)


def trained_run(make, width, base_loss="kl", student=None, dtype="float32", **training):
    """Four texts, a teacher of four blocks and a student of two."""
    loss = discover().create("base_losses", base_loss)
    models = summary(make(width, 2), dtype), summary(make(width, 4))
    spec = RunSpec.model_validate(
        {
            "name": "run",
            "teacher": {"path": "teacher"},
            "student": {"path": "student", **(student or {})},
            "data": {"train": {"path": "rows.jsonl"}},
            "base_loss": {"name": base_loss},
            "training": {"max_steps": 2, "batch_size": 4, **training},
        }
    )
    texts = [random_example(length, 8, seed=length) for length in (48, 41, 40, 33)]
    collator, micro_batches = Collator(0, ()), 1
    return TrainedRun(spec, *models, loss, lambda: None, (), (), texts, micro_batches, collator)


def real_peak(run, peak_bytes):
    """Peak of a second optimiser step on models with values."""
    held = []

    def work():
        torch.manual_seed(0)
        teacher = AutoModelForCausalLM.from_config(run.teacher.config).eval().requires_grad_(False)
        dtype = getattr(torch, run.student.dtype)
        student = AutoModelForCausalLM.from_config(run.student.config, dtype=dtype)
        if run.spec.student.lora:
            student = add_lora(student, run.spec.student.lora)
        if run.spec.training.gradient_checkpointing:
            checkpoint_activations(student)
        distiller = Distiller(student.train(), Teacher.of(teacher), run.base_loss)
        trained = [parameter for parameter in distiller.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, fused=True)
        batch = run.collator(run.texts)
        for _ in range(2):
            with torch.autocast("cpu", torch.bfloat16, enabled=run.spec.training.precision == "bf16"):
                loss = contribution(distiller(batch, Progress(0, 1, 0.0)), dict(batch.counts))
            loss.backward()
            del loss
            optimizer.step()
            optimizer.zero_grad()
        held.append(distiller)

    return peak_bytes(work)


@pytest.mark.parametrize("width", [32, 64])
@pytest.mark.parametrize("make", [llama, gpt2])
def test_peak_is_that_of_the_allocator(make, width, peak_bytes):
    run = trained_run(make, width)
    estimate = estimate_memory(run, CPU, 1)
    assert estimate.problem == ""
    assert estimate.total == pytest.approx(real_peak(run, peak_bytes), rel=0.02)
    assert (estimate.texts, estimate.tokens) == (4, 48)


@pytest.mark.parametrize(
    ("student", "dtype", "training"),
    [
        ({}, "float32", {"precision": "bf16"}),
        ({}, "float32", {"gradient_checkpointing": True}),
        ({"lora": {"rank": 2}}, "bfloat16", {"precision": "bf16"}),
    ],
)
def test_peak_follows_the_settings(student, dtype, training, peak_bytes):
    run = trained_run(llama, 64, student=student, dtype=dtype, **training)
    assert estimate_memory(run, CPU, 1).total == pytest.approx(real_peak(run, peak_bytes), rel=0.02)


def second_micro_batch(run, processes=1):
    """The parts of the peak in the second micro-batch of a step, when all gradients and moments are there."""
    return estimate_memory(replace(run, micro_batches=2), CPU, processes).bytes_by_part


def test_weights_gradients_and_moments_are_those_of_the_parameters():
    run = trained_run(llama, 64)
    model, teacher = (AutoModelForCausalLM.from_config(one.config) for one in (run.student, run.teacher))
    count = sum(parameter.numel() for parameter in model.parameters())
    parts = second_micro_batch(run)
    assert parts["student weights"] == 4 * count + sum(buffer.nbytes for buffer in model.buffers())
    assert parts["teacher weights"] == sum(one.nbytes for one in (*teacher.parameters(), *teacher.buffers()))
    assert parts["gradients"] == 4 * count
    assert parts["optimiser"] == 8 * count + 4 * len(list(model.parameters()))  # moments, and a step count for each


def test_two_processes_hold_every_gradient_twice():
    run = trained_run(llama, 64)
    one, two = (second_micro_batch(run, processes) for processes in (1, 2))
    assert two == {**one, "gradients": 2 * one["gradients"]}


def test_frozen_weights_have_the_bytes_of_their_dtype_and_no_moments():
    run = trained_run(llama, 64, student={"lora": {"rank": 2}}, dtype="bfloat16", precision="bf16")
    frozen = AutoModelForCausalLM.from_config(run.student.config)
    count = sum(parameter.numel() for parameter in frozen.parameters())
    linear = [module for name, module in frozen.named_modules() if isinstance(module, nn.Linear) and name != "lm_head"]
    adapters = sum(2 * (module.in_features + module.out_features) for module in linear)
    parts = second_micro_batch(run)
    assert parts["student weights"] == 2 * count + 4 * adapters + sum(buffer.nbytes for buffer in frozen.buffers())
    assert parts["gradients"] == 4 * adapters
    assert parts["optimiser"] == 8 * adapters + 4 * 2 * len(linear)


def saved_bytes(bits):
    """Bytes of weights that quantising a student with adapters saves over bf16, and its linear modules."""
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    plain, quantized = (
        estimate_memory(trained_run(llama, 64, student=student, dtype="bfloat16", precision="bf16"), CPU, 1)
        for student in ({"lora": {"rank": 2}}, {"lora": {"rank": 2}, "quantization": {"bits": bits}})
    )
    assert quantized.problem == ""
    model = AutoModelForCausalLM.from_config(llama(64, 2))
    linear = [module for name, module in model.named_modules() if isinstance(module, nn.Linear) and name != "lm_head"]
    return plain.bytes_by_part["student weights"] - quantized.bytes_by_part["student weights"], linear


def test_weights_in_4_bit_have_half_a_byte_and_a_scale_for_64():
    saved, linear = saved_bytes(4)
    weights = sum(module.weight.numel() for module in linear)
    codes = 64 * len(linear)  # 16 values in float32 for each module
    assert saved == weights * 2 - weights // 2 - 4 * weights // 64 - codes


def test_weights_in_8_bit_have_a_byte_and_a_scale_for_each_row():
    saved, linear = saved_bytes(8)
    assert saved == sum(module.weight.numel() - 4 * module.out_features for module in linear)


def test_sharded_processes_hold_half_of_weights_and_moments():
    run = trained_run(llama, 64, sharding="fsdp2")
    one, two = (estimate_memory(run, CPU, processes) for processes in (1, 2))
    assert two.problem == ""
    assert two.bytes_by_part["optimiser"] == pytest.approx(one.bytes_by_part["optimiser"] / 2, rel=0.02)


def test_a_plugin_that_cannot_be_traced_is_named():
    class Reads(type(discover().create("base_losses", "kl"))):
        def compute(self, student, teacher, batch, progress):
            raise ValueError("needs a value")

    run = trained_run(llama, 32)
    estimate = estimate_memory(replace(run, base_loss=Reads(run.base_loss.params)), CPU, 1)
    assert estimate.total == 0
    assert "needs a value" in estimate.problem
