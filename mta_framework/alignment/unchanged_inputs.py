"""Inputs that plugins share, each of which must leave them as they are for the next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import is_dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from mta_framework.errors import RunError

_VERSIONS = "_versions_when_computed"


class lazy_tensor(cached_property[Tensor]):
    """A tensor that is computed when it is first read, as it was then for ``unchanged_inputs``."""

    def __get__(self, instance: Any, owner: type[Any] | None = None) -> Any:
        value = super().__get__(instance, owner)
        if isinstance(value, Tensor) and not value.is_inference():
            vars(instance).setdefault(_VERSIONS, {})[self.attrname] = value._version
        return value


@contextmanager
def unchanged_inputs(plugin: str, **inputs: Any) -> Iterator[None]:
    """Refuse a change in place of any tensor that a plugin is given.

    Of what is only computed while the block runs each ``lazy_tensor`` is looked at. Inference tensors are not: torch
    protects them itself.

    Args:
        plugin: Name of the plugin in messages.
        inputs: Tensors, and mappings and dataclasses of them, by their names in messages.

    Raises:
        RunError: One was changed.
    """
    before = {name: tensor._version for name, tensor, _ in _tensors(inputs)}
    yield
    after = [(name, tensor._version, before.get(name, computed)) for name, tensor, computed in _tensors(inputs)]
    changed = [name for name, version, expected in after if expected is not None and version != expected]
    if changed:
        raise RunError(f"{plugin} must not change its inputs in place (changed: {', '.join(changed)})")


def _tensors(named: Mapping[Any, Any], where: str = "") -> Iterator[tuple[str, Tensor, int | None]]:
    """Name, tensor, and its version when it was computed, as far as that is known."""
    computed = named.get(_VERSIONS, {})
    for key, value in named.items():
        name = f"{where}.{str(key).lstrip('_')}" if where else str(key)
        if isinstance(value, Tensor):
            if not value.is_inference():
                yield name, value, computed.get(key)
        elif isinstance(value, Mapping):
            yield from _tensors(value, name)
        elif is_dataclass(value):  # with what it has computed
            yield from _tensors(vars(value), name)
