"""Inputs that plugins share, each of which must leave them as they are for the next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import is_dataclass
from typing import Any

from torch import Tensor

from mta_framework.errors import RunError


@contextmanager
def unchanged_inputs(plugin: str, **inputs: Any) -> Iterator[None]:
    """Refuse a change in place of any tensor that a plugin is given.

    What is only computed while the block runs is not looked at, nor are inference tensors, which torch protects itself.

    Args:
        plugin: Name of the plugin in messages.
        inputs: Tensors, and mappings and dataclasses of them, by their names in messages.

    Raises:
        RunError: One was changed.
    """
    before = [(name, tensor, tensor._version) for name, tensor in _tensors(inputs)]
    yield
    changed = [name for name, tensor, version in before if tensor._version != version]
    if changed:
        raise RunError(f"{plugin} must not change its inputs in place (changed: {', '.join(changed)})")


def _tensors(named: Mapping[Any, Any], where: str = "") -> Iterator[tuple[str, Tensor]]:
    for key, value in named.items():
        name = f"{where}.{str(key).lstrip('_')}" if where else str(key)
        if isinstance(value, Tensor):
            if not value.is_inference():
                yield name, value
        elif isinstance(value, Mapping):
            yield from _tensors(value, name)
        elif is_dataclass(value):  # with what it has computed
            yield from _tensors(vars(value), name)
