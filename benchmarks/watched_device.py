"""A device in name alone, with tensors that have shapes and no values: shows what an accelerator would not take.

The device is torch's ``meta``. Operations are looked at as they are dispatched: those that take tensors of two devices,
those whose result the host has to wait for, and those that make float64, which Apple's MPS does not have.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode

import mta_framework
import mta_plugins

NAME = "meta"
_PROJECT = [Path(str(package.__file__)).parent for package in (mta_framework, mta_plugins)]
_PRODUCTS = ("linear", "matmul", "__matmul__", "mm", "bmm", "addmm", "baddbmm", "scaled_dot_product_attention")
"""Functions that autocast computes in 16 bits: those of a transformer, out of the list of CUDA."""
_aten = torch.ops.aten

Kind = Literal["two devices", "host read", "upload", "float64"]


@dataclass(frozen=True)
class Event:
    """Something that an accelerator would refuse or wait for.

    Args:
        kind: ``two devices``: an operation takes tensors of host and device. ``host read``: the host waits for a value
            or a size. ``upload``: it waits until values are copied out of memory that is not pinned. ``float64``: a
            tensor that MPS does not have.
        file: Innermost file of the project in the stack, e.g. ``chunked_loss/key_layer_states.py``; the innermost of a
            library where there is none.
        line: Number of the line.
        function: Name of the function there.
    """

    kind: Kind
    file: str
    line: int
    function: str


class Watch(TorchDispatchMode):
    """Records what an accelerator would refuse or wait for, and goes on with some value.

    Attributes:
        events: What was recorded.
    """

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Event] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is _aten._pin_memory.default:
            return args[0].clone()  # there may be no accelerator to pin it for
        tensors = [leaf for leaf in _pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        with self:  # in inference mode, operations arrive that are made of others
            result = func.decompose(*args, **kwargs)
        if result is not NotImplemented:
            return result
        if any(tensor.device.type == NAME for tensor in tensors):
            if func is _aten._local_scalar_dense.default:
                return self._read(1.0 if args[0].is_floating_point() else 1)
            if func is _aten.nonzero.default:
                return self._read(args[0].new_zeros((args[0].numel(), args[0].dim()), dtype=torch.int64))
            if func is _aten._to_copy.default and kwargs.get("device", torch.device(NAME)).type != NAME:
                return self._read(torch.zeros(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype))
            if func is _aten.index.Tensor:
                args = (args[0], self._indices(args[1]))
            elif func is not _aten.copy_.default and any(_is_of_the_host(tensor) for tensor in tensors):
                self.record("two devices")
        result = func(*args, **kwargs)
        outputs = [leaf for leaf in _pytree.tree_leaves(result) if isinstance(leaf, Tensor)]
        if any(tensor.device.type == NAME and tensor.dtype == torch.float64 for tensor in outputs):
            self.record("float64")
        is_copy = func in (_aten._to_copy.default, _aten.copy_.default) and not kwargs.get("non_blocking")
        if is_copy and tensors[-1].device.type != outputs[0].device.type:
            self.record("upload")
        return result

    def _read(self, value: Any) -> Any:
        self.record("host read")
        return value

    def _indices(self, indices: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Indices without masks, as if all entries of these were true."""
        if any(index is not None and _is_of_the_host(index) for index in indices):
            self.record("upload")
        positions: list[Tensor | None] = []
        for index in indices:
            if index is None or index.dtype != torch.bool:
                positions.append(index)
            else:
                self.record("host read")
                count = torch.zeros(index.numel(), dtype=torch.int64, device=index.device)
                positions += [count] * index.dim()
        return positions

    def record(self, kind: Kind) -> None:
        """Record an event at the present line."""
        stack = [(Path(frame.filename), frame) for frame in reversed(traceback.extract_stack())]
        lines = [(path.relative_to(root), frame) for path, frame in stack for root in _PROJECT if root in path.parents]
        lines += [(Path(path.name), frame) for path, frame in stack[2:] if path != Path(__file__)]
        path, frame = lines[0]
        self.events.append(Event(kind, path.as_posix(), frame.lineno or 0, frame.name))


def _is_of_the_host(tensor: Tensor) -> bool:
    """Whether a tensor is on the CPU, and no scalar, which goes along with any device."""
    return tensor.device.type == "cpu" and tensor.dim() > 0


class _Functions(TorchFunctionMode):
    """Sees the values that tensors are made of, and does what autocast does, which torch has not for this device."""

    def __init__(self, watch: Watch):
        super().__init__()
        self.is_in_16_bits = False
        self._watch = watch

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.tensor and torch.device(kwargs.get("device") or "cpu").type == NAME:
            self._watch.record("upload")
        if self.is_in_16_bits and func.__name__ in _PRODUCTS:
            args, kwargs = _pytree.tree_map(_in_16_bits, (args, kwargs))
        return func(*args, **kwargs)


def _in_16_bits(value: Any) -> Any:
    is_cast = isinstance(value, Tensor) and value.device.type == NAME and value.dtype == torch.float32
    return value.to(torch.bfloat16) if is_cast else value


@contextmanager
def watched_device() -> Iterator[Watch]:
    """Record what happens on the device in a block; ``torch.autocast`` works there."""
    watch = Watch()
    functions = _Functions(watch)

    class Autocast:
        def __init__(self, device_type: str, dtype: torch.dtype | None = None, enabled: bool = True):
            self._enabled = enabled
            self._before: list[bool] = []

        def __enter__(self) -> None:
            self._before.append(functions.is_in_16_bits)
            functions.is_in_16_bits = self._enabled

        def __exit__(
            self, kind: type[BaseException] | None, error: BaseException | None, stack: TracebackType | None
        ) -> None:
            functions.is_in_16_bits = self._before.pop()

    autocast = {
        "autocast": Autocast,
        "is_autocast_enabled": lambda device_type: device_type == NAME and functions.is_in_16_bits,
        "get_autocast_dtype": lambda device_type: torch.bfloat16,
    }
    with mock.patch.multiple(torch, **autocast), functions, watch:
        yield watch
