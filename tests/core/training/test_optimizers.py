"""Every optimiser that a spec may name: its first step, its groups, and how many bits its moments have."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import nn

from mta_framework.spec.training import TrainingSection
from mta_framework.training.arguments import training_arguments
from mta_framework.training.trainer import DistillationTrainer

NAMES = get_args(TrainingSection.model_fields["optimizer"].annotation)
RATE, DECAY, PROJECTION_RATE = 0.01, 0.1, 0.02


class Module(nn.Module):
    """The parameters of a distiller: a student with embeddings, a matrix and a norm, and a projection."""

    def __init__(self):
        super().__init__()
        self.student = nn.Sequential(nn.Embedding(80, 64), nn.Linear(64, 80, bias=False), nn.LayerNorm(80))
        self.alignment = nn.Linear(64, 80, bias=False)


def optimizer_of(name: str, module: Module, folder: Path) -> torch.optim.Optimizer:
    if "8bit" in name:
        pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    section = TrainingSection(epochs=1, optimizer=name, learning_rate=RATE, weight_decay=DECAY)
    trainer = object.__new__(DistillationTrainer)
    trainer.args = training_arguments(
        section, 0, folder, validates=False, higher_is_better=False, unused_parameters=False
    )
    trainer.distiller, trainer.optimizer, trainer._projection_learning_rate = module, None, PROJECTION_RATE
    return trainer.create_optimizer()


@pytest.fixture
def module() -> Module:
    torch.manual_seed(0)
    module = Module()
    for parameter in module.parameters():
        parameter.grad = torch.randn_like(parameter)
    return module


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
@pytest.mark.parametrize("name", NAMES)
def test_first_step_is_the_sign_of_the_gradient_and_the_decay(name: str, module: Module, tmp_path: Path) -> None:
    """The first step of Adam is ``rate * g / |g|`` where g is far from 0; that of Adafactor is of about that size."""
    before = {key: value.detach().clone() for key, value in module.named_parameters()}
    optimizer_of(name, module, tmp_path).step()
    for key, parameter in module.named_parameters():
        rate = PROJECTION_RATE if key.startswith("alignment") else RATE
        decay = DECAY if "student.2" not in key else 0.0
        moved = parameter.detach() - before[key] * (1 - rate * decay)
        if name == "adafactor":
            assert 0.5 * rate < float(moved.square().mean().sqrt()) < 1.01 * rate
            assert float((moved.sign() == -parameter.grad.sign()).float().mean()) == 1.0
        else:
            large = parameter.grad.abs() > 0.1
            torch.testing.assert_close(moved[large], (-rate * parameter.grad.sign())[large], rtol=1e-3, atol=1e-6)


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
@pytest.mark.parametrize("name", [name for name in NAMES if "8bit" in name])
def test_moments_of_matrices_have_8_bit_and_those_of_embeddings_32(name: str, module: Module, tmp_path: Path) -> None:
    optimizer = optimizer_of(name, module, tmp_path)
    optimizer.step()
    dtypes = {key: optimizer.state[value]["state1"].dtype for key, value in module.named_parameters()}
    assert dtypes["student.1.weight"] == dtypes["alignment.weight"] == torch.uint8
    assert dtypes["student.0.weight"] == dtypes["student.2.bias"] == torch.float32


def test_default_is_that_of_transformers(module: Module, tmp_path: Path) -> None:
    from transformers import TrainingArguments

    given = TrainingArguments(output_dir=str(tmp_path), use_cpu=True).optim
    assert TrainingSection(epochs=1).optimizer == given
    assert optimizer_of("adamw_torch_fused", module, tmp_path).defaults["fused"] is True
