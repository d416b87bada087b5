"""Shards models over the processes of a run (FSDP2), and gathers weights where a model is needed whole.

Each process keeps its share of a parameter as a ``DTensor``. FSDP gathers a decoder block for its forward pass and
again for its backward pass, and what is outside of the blocks from the forward pass of the whole to the end of its
backward pass.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from mta_framework.models.decoder import base_of, blocks_of

_GATHER = "gather_weights"
"""Attribute of a plain copy: the function that gives it weights."""


def shard_module(root: nn.Module, model: nn.Module, mesh: DeviceMesh, methods: tuple[str, ...] = ()) -> None:
    """Shard all parameters of a module over the processes, in place: each process keeps an equal share of every one.

    The parameters of each decoder block are gathered together, those of the input embeddings unless they are tied to
    the head, and all others of ``root``, which stay gathered from the forward pass to the end of the backward pass:
    losses read the weight of the head directly.

    Args:
        root: Module whose forward pass uses all others.
        model: The causal language model in it, possibly with adapters.
        mesh: All processes.
        methods: Methods of ``root`` that run a forward pass, without a backward pass to follow.
    """
    for block in blocks_of(model)[1]:
        fully_shard(block, mesh=mesh)
    base = base_of(model)
    embeddings, head = base.get_input_embeddings(), base.get_output_embeddings()
    if isinstance(embeddings, nn.Embedding) and embeddings.weight is not getattr(head, "weight", None):
        fully_shard(embeddings, mesh=mesh)
    fully_shard(root, mesh=mesh)
    for name in methods:
        register_fsdp_forward_method(root, name)
        setattr(root, name, partial(_then_reshard, root, getattr(root, name)))


def _then_reshard(root: nn.Module, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    try:
        return method(*args, **kwargs)
    finally:
        reshard(root)


def is_sharded(module: nn.Module) -> bool:
    """Whether ``shard_module`` has sharded the module."""
    return isinstance(module, FSDPModule)


def reshard(root: nn.Module) -> None:
    """Free the parameters that stay gathered after the forward pass of a sharded module."""
    if isinstance(root, FSDPModule):
        root.reshard()


def whole(tensor: Tensor) -> Tensor:
    """Gather a tensor that may be sharded, on all processes; any other is returned as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def sharded_like(value: Tensor, parameter: Tensor) -> Tensor:
    """Take this process's share of a whole tensor, as that of a parameter; for a plain parameter, all of it.

    Args:
        value: Whole tensor, the same on every process.
        parameter: Parameter of the same shape.
    """
    if not isinstance(parameter, DTensor):
        return value
    mesh = parameter.device_mesh
    return distribute_tensor(value.to(mesh.device_type), mesh, parameter.placements, src_data_rank=None)


def plain_copy(model: nn.Module) -> nn.Module:
    """Copy a model that is going to be sharded, without its weights, for use as a whole (see ``gathered``).

    Args:
        model: Model that is not sharded yet; its buffers are copied.
    """
    empty = {
        id(parameter): nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=False)
        for parameter in model.parameters()
    }
    plain = copy.deepcopy(model, empty)  # type: ignore[arg-type]  # ``deepcopy`` keeps what it copied by identity
    setattr(plain, _GATHER, partial(_filled, model, plain))
    return plain


def gathered(model: nn.Module) -> AbstractContextManager[None]:
    """Gather the present weights of the sharded model behind a plain copy, for the block; all processes take part.

    Any other model has its weights, and nothing is done.
    """
    gather: Callable[[], AbstractContextManager[None]] | None = getattr(model, _GATHER, None)
    return nullcontext() if gather is None else gather()


@contextmanager
def _filled(sharded: nn.Module, plain: nn.Module) -> Iterator[None]:
    empty = dict(plain.named_parameters(remove_duplicate=False))
    weights: dict[int, nn.Parameter] = {}
    for name, parameter in sharded.named_parameters(remove_duplicate=False):
        if id(parameter) not in weights:
            weight = whole(parameter.detach())
            if not isinstance(parameter, DTensor):  # FSDP has gathered it, and will free the memory that it is in
                weight = weight.clone()
            weights[id(parameter)] = nn.Parameter(weight, requires_grad=False)
        _replace(plain, name, weights[id(parameter)])
    for name, buffer in sharded.named_buffers():
        plain.get_buffer(name).data = buffer.clone()
    try:
        yield
    finally:
        for name, parameter in empty.items():
            _replace(plain, name, parameter)


def _replace(model: nn.Module, name: str, parameter: nn.Parameter) -> None:
    owner, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(owner), attribute, parameter)
