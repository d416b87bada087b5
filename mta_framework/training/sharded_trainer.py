"""Shards student and teacher over the processes of a run, and trains them; the order of a step is the trainer's."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from mta_framework.models.sharding import shard_module, sharded_like, whole
from mta_framework.models.teacher_states import Teacher
from mta_framework.training import checkpoints
from mta_framework.training.checkpoint_shards import save_shards
from mta_framework.training.distiller import Distiller, LossMeter
from mta_framework.training.global_counts import GlobalCounts
from mta_framework.training.trainer import DistillationTrainer
from mta_framework.types import Example


def shard_distiller(distiller: Distiller, teacher: Teacher | None, mesh: DeviceMesh) -> None:
    """Shard student, projections and teacher, in place, and move them to the devices of the mesh.

    Args:
        distiller: Module to train; its forward pass gathers what it needs.
        teacher: Its teacher, which is sharded apart from it; None without one, or where it is kept whole.
        mesh: All processes.
    """
    shard_module(distiller, distiller.student, mesh, ("validate", "span_vectors"))
    if teacher is not None:
        teacher.shard(mesh)


class ShardedTrainer(DistillationTrainer):
    """Trains a ``Distiller`` that ``shard_distiller`` has sharded.

    Its checkpoints can be resumed from by any number of processes, sharded or not. By default they are those of
    ``DistillationTrainer``: the main process writes whole weights and the whole state of the optimiser.

    Args:
        arguments: Arguments of ``DistillationTrainer``.
        sharded_checkpoints: Whether each process writes its share of a checkpoint instead.
    """

    def __init__(self, *arguments: Any, sharded_checkpoints: bool = False):
        self._sharded_checkpoints = sharded_checkpoints
        super().__init__(*arguments)

    def create_accelerator_and_postprocess(self) -> None:
        """Create the accelerator, which must not replicate a module that reduces its gradients itself."""
        super().create_accelerator_and_postprocess()
        prepare: Any = partial(self.accelerator.prepare_model, evaluation_mode=True)
        self.accelerator.prepare_model = prepare

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Create the optimiser; the state that it gives is whole, or left out if checkpoints are sharded."""
        if self.optimizer is None:
            optimizer = super().create_optimizer(model)
            leave_out = _without_state if self._sharded_checkpoints else partial(_gather_state, self.args.should_save)
            optimizer.register_state_dict_post_hook(leave_out)
            optimizer.register_load_state_dict_pre_hook(_shard_state)
        assert self.optimizer is not None
        return self.optimizer

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """Run forward and backward pass of one micro-batch; its gradient is reduced at once and stays sharded."""
        loss = super().training_step(*args, **kwargs)
        self.distiller.reshard_teacher()
        return loss

    def _validate(self, parts: Sequence[Sequence[Example]], counts: GlobalCounts, meter: LossMeter) -> None:
        """Validate; a process with fewer batches repeats its last one, since all gather weights together."""
        most = max(gather_object([len(parts)]))
        super()._validate(parts, counts, meter)
        super()._validate([*parts[-1:]] * (most - len(parts)), counts, LossMeter())

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the distiller's part of a checkpoint, and where it is sharded that of the optimiser."""
        assert output_dir is not None
        folder, write = Path(output_dir), self.args.should_save
        if not self._sharded_checkpoints:
            checkpoints.save(self.distiller, self._data.policy, self._log_state, folder, write=write)
            return
        assert self.optimizer is not None
        save_shards(self.distiller, self.optimizer, folder)
        if write:
            checkpoints.save_memory(self.distiller, self._data.policy, self._log_state, folder)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self.args.should_save:
            assert self.optimizer is not None
            self.optimizer.state_dict()  # takes part in gathering it
        super()._save_optimizer_and_scheduler(output_dir)


def _without_state(_optimizer: torch.optim.Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
    return {**state_dict, "state": {}}


def _gather_state(keep: bool, _optimizer: torch.optim.Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
    """The state dict of an optimiser with whole tensors on the CPU; without them where they are not to be kept."""
    states: dict[int, dict[str, Any]] = {}
    for index, state in state_dict["state"].items():
        for name, value in state.items():
            gathered = whole(value) if isinstance(value, Tensor) else value
            if keep:
                states.setdefault(index, {})[name] = gathered.cpu() if isinstance(gathered, Tensor) else gathered
    return {**state_dict, "state": states}


def _shard_state(optimizer: torch.optim.Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
    """The state dict of an optimiser with this process's share of each tensor that belongs to a sharded parameter."""
    groups = zip(state_dict["param_groups"], optimizer.param_groups, strict=True)
    pairs = [zip(saved["params"], group["params"], strict=True) for saved, group in groups]
    parameters = dict(pair for group in pairs for pair in group)
    states = {
        index: {name: _share(value, parameters[index]) for name, value in state.items()}
        for index, state in state_dict["state"].items()
    }
    return {**state_dict, "state": states}


def _share(value: Any, parameter: Tensor) -> Any:
    is_whole = isinstance(value, Tensor) and not isinstance(value, DTensor) and value.shape == parameter.shape
    return sharded_like(value, parameter) if is_whole else value
