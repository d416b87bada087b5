"""Finds plugins and binds a spec's names and options to them. pluggy is consulted here, once, and nowhere else."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from mta_framework import hookspecs
from mta_framework.errors import Fault, InputError, nearest
from mta_framework.interfaces import (
    BaseLoss,
    ImportanceEstimator,
    LayerMapper,
    Metric,
    Plugin,
    PluginChoice,
    PluginParams,
    SpanExtractor,
)

FAMILIES: dict[str, type[Plugin]] = {
    "span_extractors": SpanExtractor,
    "importance_estimators": ImportanceEstimator,
    "layer_mappers": LayerMapper,
    "base_losses": BaseLoss,
    "metrics": Metric,
}
"""Family -> contract; the hook of a family is ``mta_register_`` + its name."""

_HOOK = "mta_register_"


@dataclass(frozen=True)
class Registered:
    """A plugin class and who provides it (a distribution with version, or a file)."""

    plugin: type[Plugin]
    provider: str

    @property
    def schema(self) -> dict[str, Any]:
        """JSON Schema of the options."""
        return self.plugin.Params.model_json_schema()


@dataclass(frozen=True)
class Failure:
    """A provider, or one class of it, that could not be registered, and why."""

    provider: str
    reason: str


@dataclass
class Registry:
    """All plugins by family and name. A name with two providers is listed with both and can't be bound."""

    families: dict[str, dict[str, list[Registered]]] = field(default_factory=lambda: {name: {} for name in FAMILIES})
    failures: list[Failure] = field(default_factory=list)

    def names(self, family: str) -> list[str]:
        """The names that a spec may use for this family, sorted."""
        return sorted(self.families[family])

    def create(self, family: str, name: str, params: Mapping[str, Any] | None = None) -> Any:
        """A plugin with these options, outside a spec; its parts (``PluginChoice``) are created with it.

        Raises:
            InputError: No such plugin.
            pydantic.ValidationError: The options are wrong.
        """
        plugin = self.find(family, name, name).plugin
        options = plugin.Params.model_validate(params or {})
        parts = {
            option: self.create(family, choice.name, choice.params) for option, choice in parts_of(options).items()
        }
        return plugin(options, **parts)

    def find(self, family: str, name: str, where: str) -> Registered:
        """The plugin that a spec names.

        Raises:
            InputError: No plugin, or more than one, has this name; ``where`` is blamed.
        """
        offers = self.families[family].get(name, [])
        if len(offers) == 1:
            return offers[0]
        noun = noun_of(family)
        if offers:
            providers = " and ".join(offer.provider for offer in offers)
            problem = f"more than one {noun} is called {name!r} (got {providers})"
            raise InputError([Fault(where, problem, "one provider per name", "Uninstall or rename one of them.")])
        installed = f"installed: {', '.join(self.names(family)) or 'none'}"
        hint = nearest(name, self.names(family)) or "Choose one of them, or install its provider."
        for failure in self.failures:
            hint += f" {failure.provider} could not be loaded ({failure.reason}): see `mta plugins`."
        raise InputError([Fault(where, f"no {noun} is called {name!r} (got {name!r})", installed, hint)])


def parts_of(params: PluginParams) -> dict[str, PluginChoice]:
    """The options that name other plugins."""
    return {option: value for option, value in params if isinstance(value, PluginChoice)}


def noun_of(family: str) -> str:
    """What one plugin of a family is called in a sentence, e.g. ``base loss``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", FAMILIES[family].__name__).lower()


def discover(plugin_files: Sequence[Path] = ()) -> Registry:
    """Load every installed provider and the given files.

    What fails to import, misspells a hook or offers a broken class becomes a ``Failure``; everything else is registered
    all the same.

    Raises:
        InputError: One of ``plugin_files`` could not be loaded: it was asked for by name.
    """
    registry = Registry()
    for entry in sorted(entry_points(group=hookspecs.PROJECT), key=lambda entry: entry.name):
        _register_provider(registry, _provider_of(entry), entry.load)
    installed_failures = len(registry.failures)
    for path in dict.fromkeys(path.resolve() for path in plugin_files):
        _register_provider(registry, str(path), partial(_module_from, path))
    faults = [
        Fault(
            f"-p {failure.provider}",
            f"cannot be loaded (got {failure.reason})",
            "a Python file with functions marked @hookimpl",
            "Correct the file, or leave out -p.",
        )
        for failure in registry.failures[installed_failures:]
    ]
    if faults:
        raise InputError(faults)
    return registry


def _provider_of(entry: EntryPoint) -> str:
    distribution = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "unknown distribution"
    return f"{distribution} ({entry.value})"


def _module_from(path: Path) -> ModuleType:
    # A digest keeps two files of one name apart; sys.modules makes the classes importable in worker processes.
    name = f"mta_plugin_file_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if not path.is_file():
        raise FileNotFoundError("no such file")
    found = importlib.util.spec_from_file_location(name, path)
    if found is None or found.loader is None:
        raise ImportError("its name does not end in .py")
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    try:
        found.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _register_provider(registry: Registry, provider: str, load: Callable[[], object]) -> None:
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    try:
        module = load()
        for reason in _hook_faults(manager, module):
            registry.failures.append(Failure(provider, reason))
        manager.register(module, name=provider)
    except (Exception, SystemExit) as error:  # foreign code: whatever it raises must not take the others down
        registry.failures.append(Failure(provider, f"{type(error).__name__}: {error}"))
        return
    for family, contract in FAMILIES.items():
        try:
            for offered in getattr(manager.hook, f"{_HOOK}{family}")():
                for plugin in offered:
                    _register_class(registry, family, contract, plugin, provider)
        except (Exception, SystemExit) as error:
            registry.failures.append(Failure(provider, f"{_HOOK}{family}: {type(error).__name__}: {error}"))


def _hook_faults(manager: pluggy.PluginManager, module: object) -> list[str]:
    hooks = [f"{_HOOK}{family}" for family in FAMILIES]
    marked = [name for name in dir(module) if manager.parse_hookimpl_opts(module, name) is not None]
    faults = [f"{name} is no hook. {nearest(name, hooks)}".rstrip() for name in marked if name not in hooks]
    unmarked = [name for name in dir(module) if name.startswith(_HOOK) and name not in marked]
    faults += [f"{name} is not marked @hookimpl" for name in unmarked]
    return faults if marked or unmarked else ["it has no hooks: functions mta_register_... marked @hookimpl"]


def _register_class(registry: Registry, family: str, contract: type[Plugin], plugin: object, provider: str) -> None:
    reason = class_fault(contract, plugin)
    if reason:
        registry.failures.append(Failure(provider, f"{family}: {reason}"))
        return
    assert isinstance(plugin, type)
    assert issubclass(plugin, Plugin)
    registry.families[family].setdefault(plugin.NAME, []).append(Registered(plugin, provider))


def class_fault(contract: type[Plugin], plugin: object) -> str | None:
    """What keeps an object from being registered as a plugin of this contract; None if nothing does."""
    if not (isinstance(plugin, type) and issubclass(plugin, contract)):
        return f"{plugin!r} is not a subclass of {contract.__name__}"
    if getattr(plugin, "__abstractmethods__", None):
        return f"{plugin.__name__} does not define {', '.join(sorted(plugin.__abstractmethods__))}"
    name = getattr(plugin, "NAME", None)
    if not (isinstance(name, str) and re.fullmatch(r"[a-z][a-z0-9_]*", name)):
        return f"{plugin.__name__}.NAME must be lower case letters, digits and _ (got {name!r})"
    if name == "new":
        return f"{plugin.__name__}.NAME must be another word: `mta plugins new` is a command (got 'new')"
    if not (isinstance(plugin.Params, type) and issubclass(plugin.Params, PluginParams)):
        return f"{plugin.__name__}.Params must derive from PluginParams"
    if issubclass(plugin, SpanExtractor) and not isinstance(getattr(plugin, "VERSION", None), str):
        return f"{plugin.__name__}.VERSION must be a string: it is part of the span cache's key"
    return None


def describe(plugin: object) -> str:
    """First line of the docstring of a class, or of an object's class."""
    lines: Iterable[str] = (plugin.__doc__ or "").strip().splitlines()
    return next(iter(lines), "")
