"""Checkpoints of which each process writes its share: weights, and the optimiser's state, as safetensors.

The folder ``shards`` of a checkpoint has one file for each process that wrote it, in the safetensors format of
``torch.distributed.checkpoint``. A tensor is named ``weights.PARAMETER``, or ``optimizer.ENTRY.PARAMETER`` for an entry
of the optimiser's state; the header of the file says which part of the whole it is. Any number of processes can read
them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load as load_state_dict
from torch.distributed.checkpoint.state_dict_saver import save as save_state_dict

from mta_framework.distributed import processes
from mta_framework.errors import RunError
from mta_framework.models.export import require_same_shapes, trained_weights
from mta_framework.models.sharding import reshard
from mta_framework.training.distiller import Distiller

SHARDS = "shards"
"""Name of the folder of shards in a checkpoint."""

_WEIGHTS, _OPTIMIZER = "weights.", "optimizer."


def is_sharded_checkpoint(checkpoint: Path) -> bool:
    """Whether the weights of a checkpoint are in shards."""
    return (checkpoint / SHARDS).is_dir()


def save_shards(distiller: Distiller, optimizer: torch.optim.Optimizer, checkpoint: Path) -> None:
    """Write this process's share of weights and optimiser; all processes must call this.

    Args:
        distiller: Student and projections, sharded.
        optimizer: Their optimiser.
        checkpoint: Folder of the checkpoint, made if missing; the same on all processes.

    Raises:
        OSError: A process cannot write its file.
        RunError: The processes write to different file systems.
    """
    reshard(distiller)
    folder = checkpoint / SHARDS
    folder.mkdir(parents=True, exist_ok=True)
    tensors = _weights(distiller)
    for name, parameter in distiller.named_parameters():
        entries = optimizer.state.get(parameter, {})
        tensors |= {f"{_OPTIMIZER}{entry}.{name}": value for entry, value in entries.items()}
    with _as_its_cause():
        save_state_dict(tensors, storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True))
    names = sorted(path.name for path in folder.iterdir())
    if any(others != names for others in gather_object([names])):
        hint = "Set output_dir to a folder that all machines share, or training.checkpoints to full."
        raise RunError(f"{folder}: does not have the same files on all processes. {hint}")


def load_weight_shards(distiller: Distiller, checkpoint: Path) -> None:
    """Restore student and projections from shards, in place; all processes must call this.

    Args:
        distiller: Student and projections, sharded over any number of processes or not at all.
        checkpoint: Folder of the checkpoint.

    Raises:
        RunError: They are those of another student.
    """
    weights = _weights(distiller)
    saved = {name: it.size for name, it in _saved_tensors(checkpoint).items() if name.startswith(_WEIGHTS)}
    require_same_shapes(checkpoint / SHARDS, saved, {name: it.shape for name, it in weights.items()})
    _read(weights, checkpoint)


def load_optimizer_shards(distiller: Distiller, optimizer: torch.optim.Optimizer, checkpoint: Path) -> None:
    """Restore the optimiser's state from shards; all processes must call this.

    Args:
        distiller: Module whose parameters it optimises.
        optimizer: Optimiser to restore, whose parameter groups are restored already.
        checkpoint: Folder of the checkpoint.
    """
    index_of = {
        id(parameter): index
        for index, parameter in enumerate(
            parameter for group in optimizer.param_groups for parameter in group["params"]
        )
    }
    parameters = {name: it for name, it in distiller.named_parameters() if id(it) in index_of}
    state: dict[int, dict[str, Tensor]] = {}
    tensors = {}
    for name, saved in _saved_tensors(checkpoint).items():
        if name.startswith(_OPTIMIZER):
            entry, _, parameter_name = name.removeprefix(_OPTIMIZER).partition(".")
            parameter = parameters[parameter_name]
            tensors[name] = _empty(saved, parameter)
            state.setdefault(index_of[id(parameter)], {})[entry] = tensors[name]
    _read(tensors, checkpoint)
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _weights(distiller: Distiller) -> dict[str, Any]:
    student = {f"student.{name}": weight.detach() for name, weight in trained_weights(distiller.student).items()}
    alignment = distiller.alignment.state_dict(prefix="alignment.") if distiller.alignment is not None else {}
    return {f"{_WEIGHTS}{name}": weight for name, weight in {**student, **alignment}.items()}


def _empty(saved: TensorStorageMetadata, parameter: Tensor) -> Tensor:
    """A tensor to read into, distributed as the parameter if it has its shape."""
    dtype = saved.properties.dtype
    if saved.size == parameter.shape:
        return torch.zeros_like(parameter, dtype=dtype, requires_grad=False)
    return torch.zeros(saved.size, dtype=dtype)


def _saved_tensors(checkpoint: Path) -> Mapping[str, TensorStorageMetadata]:
    metadata: Any = HuggingFaceStorageReader(str(checkpoint / SHARDS)).read_metadata().state_dict_metadata
    return metadata


def _read(tensors: dict[str, Any], checkpoint: Path) -> None:
    reader = HuggingFaceStorageReader(str(checkpoint / SHARDS))
    with _as_its_cause(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # a single process needs no group
        load_state_dict(tensors, storage_reader=reader, no_dist=processes().num_processes == 1)


@contextmanager
def _as_its_cause() -> Iterator[None]:
    """Raise what failed on some process, on all of them, in place of a report that is no ``Exception``."""
    try:
        yield
    except CheckpointException as error:
        raise next(iter(error.failures.values()))[0] from None
