"""Counts the bytes of the tensors that are alive, as an allocator does, while operations run on tensors without values.

Tensors without values are torch's fake tensors: every operation tells the shape and dtype of its results, and what
autograd keeps for the backward pass stays alive as it would with values.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass_type

_CUDA_BLOCK = 512
"""CUDA's allocator rounds up to a multiple of this."""

_aten = torch.ops.aten
_NARROWING = (_aten.__iand__.Tensor, _aten.bitwise_and_.Tensor, _aten.logical_and_.default)


@dataclass(frozen=True)
class Peak:
    """The moment at which most bytes were alive.

    Args:
        phase: What was going on, as ``LiveBytes.phase`` named it.
        bytes_by_part: Part -> bytes at that moment.
    """

    phase: str = ""
    bytes_by_part: Mapping[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Bytes of all parts."""
        return sum(self.bytes_by_part.values())


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that are made in its block, each from when it is made to when it is freed.

    Tensors that share memory count once. Operations on real tensors alone (token ids, spans) are computed for real.
    Where an operation needs a value that only a real step knows, every entry of a mask is true: it selects all, and
    narrows no mask that is known.

    Args:
        device: Device whose tensors are counted.
    """

    def __init__(self, device: torch.device):
        super().__init__()
        self.peak = Peak()
        self._device = device
        self._block = _CUDA_BLOCK if device.type == "cuda" else 1
        self._labels = ("", "")
        self._size_of: dict[int, tuple[str, int]] = {}
        self._bytes: Counter[str] = Counter()
        self._total = 0

    @contextmanager
    def phase(self, phase: str, part: str) -> Iterator[None]:
        """Name the phase of a block, and the part that its new tensors belong to."""
        labels, self._labels = self._labels, (phase, part)
        try:
            yield
        finally:
            self._labels = labels

    def assign(self, tensor: Tensor, part: str) -> None:
        """Move a counted tensor to another part."""
        key = tensor.untyped_storage()._cdata
        if key in self._size_of:
            before, size = self._size_of[key]
            self._bytes[before] -= size
            self._bytes[part] += size
            self._size_of[key] = part, size

    def hold(self, tensor: Tensor) -> None:
        """Count a tensor that was made outside of the block, until it is freed; one that is counted stays so."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._size_of or tensor.device.type != self._device.type:
            return
        part, size = self._labels[1], self._rounded(storage.nbytes())
        self._size_of[key] = part, size
        weakref.finalize(storage, self._free, key)
        self._add(part, size)

    @contextmanager
    def following_resizes(self) -> Iterator[None]:
        """Follow memory that is given back, and taken again, behind tensors that stay, as FSDP does in this block."""
        original = torch.UntypedStorage.resize_

        def resize_(storage: torch.UntypedStorage, size: int) -> torch.UntypedStorage:
            result = original(storage, size)
            self._resized(storage._cdata, size)
            return result

        torch.UntypedStorage.resize_ = resize_  # type: ignore[method-assign, assignment]
        try:
            yield
        finally:
            torch.UntypedStorage.resize_ = original  # type: ignore[method-assign]

    def _resized(self, key: int, size: int) -> None:
        if key in self._size_of:
            part, before = self._size_of[key]
            self._size_of[key] = part, self._rounded(size)
            self._add(part, self._rounded(size) - before)

    def forget_peak(self) -> None:
        """Begin anew with what is alive now."""
        self.peak = Peak(self._labels[0], +self._bytes)

    def _rounded(self, size: int) -> int:
        return -(-size // self._block) * self._block

    def _free(self, key: int) -> None:
        part, size = self._size_of.pop(key)
        self._add(part, -size)

    def _add(self, part: str, size: int) -> None:
        self._bytes[part] += size
        self._total += size
        if self._total > self.peak.total:
            self.peak = Peak(self._labels[0], +self._bytes)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if any(is_traceable_wrapper_subclass_type(kind) for kind in types):
            return NotImplemented  # a sharded tensor runs the operation on its share, which comes here again
        if torch.is_inference_mode_enabled() and func.namespace == "aten":
            with self:  # operations arrive that are made of others
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        inputs = [leaf for leaf in _pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        has_values = bool(inputs) and not any(isinstance(tensor, FakeTensor) for tensor in inputs)
        if not has_values:
            if func is _aten._local_scalar_dense.default:
                return 1.0 if args[0].is_floating_point() else 1
            if func is _aten.nonzero.default:
                return args[0].new_zeros((args[0].numel(), args[0].dim()), dtype=torch.int64)
            if func in _NARROWING and not isinstance(args[0], FakeTensor):
                return args[0]
            if func is _aten.index.Tensor:
                args = (args[0], _without_masks(args[1]))
        with unset_fake_temporarily() if has_values else nullcontext():
            result = func(*args, **kwargs)
        for leaf in _pytree.tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.hold(leaf)
        return result


def _without_masks(indices: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Indices in place of boolean masks, of which those without values are true everywhere."""
    positions: list[Tensor | None] = []
    for index in indices:
        if index is None or index.dtype != torch.bool:
            positions.append(index)
        elif isinstance(index, FakeTensor):
            positions += [index.new_zeros(index.numel(), dtype=torch.int64)] * index.dim()
        else:
            with unset_fake_temporarily():
                positions += index.nonzero().unbind(1)
    return positions
