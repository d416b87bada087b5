"""Discovers plugins and creates them by name. pluggy is used here, once per command, and nowhere else."""

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
from mta_framework.errors import Fault, InputError, error_summary, nearest
from mta_framework.interfaces import (
    AlignmentTerm,
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
    "alignment_terms": AlignmentTerm,
    "base_losses": BaseLoss,
    "metrics": Metric,
}
"""The contract of each plugin family; its hook is called ``mta_register_`` + the family."""

_HOOK = "mta_register_"


@dataclass(frozen=True)
class Registered:
    """A registered plugin class.

    Args:
        plugin: The class.
        provider: Distribution with version, or file, that it comes from.
    """

    plugin: type[Plugin]
    provider: str

    @property
    def schema(self) -> dict[str, Any]:
        """JSON Schema of the plugin's options."""
        return self.plugin.Params.model_json_schema()


@dataclass(frozen=True)
class Failure:
    """A provider, or one of its classes, that could not be registered.

    Args:
        provider: Distribution with version, or file.
        reason: Why not, as part of a sentence.
    """

    provider: str
    reason: str


@dataclass
class Registry:
    """All plugins by family and name.

    Args:
        families: Plugins by family and name. A name with several providers lists all of them and cannot be used.
        failures: Everything that could not be registered.
        files: SHA-256 digest of each plugin file that was loaded, by its path.
    """

    families: dict[str, dict[str, list[Registered]]] = field(default_factory=lambda: {name: {} for name in FAMILIES})
    failures: list[Failure] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)

    def names(self, family: str) -> list[str]:
        """List the names of a family's plugins, sorted."""
        return sorted(self.families[family])

    def create(self, family: str, name: str, params: Mapping[str, Any] | None = None) -> Any:
        """Create a plugin with its parts (options of type ``PluginChoice``), outside of any spec.

        Args:
            family: A key of ``FAMILIES``.
            name: Name of the plugin.
            params: Its options; None: the defaults.

        Raises:
            InputError: There is no such plugin.
            pydantic.ValidationError: The options are invalid.
        """
        plugin = self.find(family, name, name).plugin
        options = plugin.Params.model_validate(params or {})
        parts = {
            option: self.create(family, choice.name, choice.params) for option, choice in parts_of(options).items()
        }
        return plugin(options, **parts)

    def find(self, family: str, name: str, where: str) -> Registered:
        """Find a plugin by name.

        Args:
            family: A key of ``FAMILIES``.
            name: Name of the plugin.
            where: Location of the name in the spec, for the error.

        Raises:
            InputError: No plugin, or more than one, has this name.
        """
        offers = self.families[family].get(name, [])
        if len(offers) == 1:
            return offers[0]
        noun = noun_of(family)
        if offers:
            providers = " and ".join(offer.provider for offer in offers)
            problem = f"more than one {noun} is called {name!r} ({providers})"
            raise InputError([Fault(where, problem, "one provider of each name", "Uninstall or rename one of them.")])
        installed = f"one of the installed {family.replace('_', ' ')}: {', '.join(self.names(family)) or 'none'}"
        hint = (
            nearest(name, self.names(family))
            or "Choose one of them, install its provider, or give its file by -p FILE."
        )
        for failure in self.failures:
            hint += f" {failure.provider} could not be loaded ({failure.reason}): see `mta plugins`."
        raise InputError([Fault(where, f"no {noun} is called {name!r}", installed, hint)])


def missing_fault(plugin: Plugin, where: str) -> Fault | None:
    """The fault of a plugin that lacks something on this machine, or None.

    Args:
        plugin: The plugin, with its options.
        where: Location of the plugin in the spec.
    """
    if not (missing := plugin.require()):
        return None
    return Fault(where, f"{plugin.NAME} cannot run here", "an environment with all that it needs", missing)


def parts_of(params: PluginParams) -> dict[str, PluginChoice]:
    """The options of type ``PluginChoice``, by option."""
    return {option: value for option, value in params if isinstance(value, PluginChoice)}


def noun_of(family: str) -> str:
    """The name of a family in the singular, e.g. ``base loss``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", FAMILIES[family].__name__).lower()


def discover(plugin_files: Sequence[Path] = ()) -> Registry:
    """Load all installed providers and the given files.

    A provider that fails to import, misspells a hook or returns a broken class becomes a ``Failure``; all others are
    registered.

    Args:
        plugin_files: Python files given on the command line.

    Raises:
        InputError: One of ``plugin_files`` could not be loaded.
    """
    registry = Registry()
    for entry in sorted(entry_points(group=hookspecs.PROJECT), key=lambda entry: entry.name):
        _register_provider(registry, _provider_of(entry), entry.load)
    installed_failures = len(registry.failures)
    paths = dict.fromkeys(path.resolve() for path in plugin_files)
    for path in paths:
        _register_provider(registry, str(path), partial(_module_from, path))
    faults = [
        Fault(
            f"-p {failure.provider}",
            f"cannot be loaded ({failure.reason})",
            "a Python file with functions marked @hookimpl",
            "Correct the file, or leave out -p.",
        )
        for failure in registry.failures[installed_failures:]
    ]
    if faults:
        raise InputError(faults)
    registry.files = {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    return registry


def _provider_of(entry: EntryPoint) -> str:
    distribution = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "unknown distribution"
    return f"{distribution} ({entry.value})"


def _module_from(path: Path) -> ModuleType:
    # A digest keeps two files of one name apart; sys.modules makes the classes importable in worker processes.
    name = f"mta_plugin_file_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if not path.is_file():
        raise FileNotFoundError("no such file")
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError("its name does not end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
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
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # foreign code: whatever it raises must not take the others down
        registry.failures.append(Failure(provider, error_summary(error)))
        return
    for family, contract in FAMILIES.items():
        try:
            for offered in getattr(manager.hook, f"{_HOOK}{family}")():
                for plugin in offered:
                    _register_class(registry, family, contract, plugin, provider)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # as above
            registry.failures.append(Failure(provider, f"{_HOOK}{family}: {error_summary(error)}"))


def _hook_faults(manager: pluggy.PluginManager, module: object) -> list[str]:
    hooks = [f"{_HOOK}{family}" for family in FAMILIES]
    marked = [name for name in dir(module) if manager.parse_hookimpl_opts(module, name) is not None]
    faults = [f"{name} is not a hook. {nearest(name, hooks)}".rstrip() for name in marked if name not in hooks]
    unmarked = [name for name in dir(module) if name.startswith(_HOOK) and name not in marked]
    faults += [f"{name} is not marked @hookimpl" for name in unmarked]
    return faults if marked or unmarked else ["it implements no hook: a function mta_register_... marked @hookimpl"]


def _register_class(registry: Registry, family: str, contract: type[Plugin], plugin: object, provider: str) -> None:
    reason = class_fault(contract, plugin)
    if reason:
        registry.failures.append(Failure(provider, f"{family}: {reason}"))
        return
    assert isinstance(plugin, type)
    assert issubclass(plugin, Plugin)
    registry.families[family].setdefault(plugin.NAME, []).append(Registered(plugin, provider))


def class_fault(contract: type[Plugin], plugin: object) -> str | None:
    """Say why an object cannot be registered as a plugin of this contract; None if it can."""
    if not (isinstance(plugin, type) and issubclass(plugin, contract)):
        return f"{plugin!r} is not a subclass of {contract.__name__}"
    if getattr(plugin, "__abstractmethods__", None):
        return f"{plugin.__name__} does not define {', '.join(sorted(plugin.__abstractmethods__))}"
    name = getattr(plugin, "NAME", None)
    if not (isinstance(name, str) and re.fullmatch(r"[a-z][a-z0-9_]*", name)):
        return f"{plugin.__name__}.NAME must be lower case letters, digits and _ (got {name!r})"
    if name == "new":
        return f"{plugin.__name__}.NAME must not be 'new': `mta plugins new` is a command"
    if not (isinstance(plugin.Params, type) and issubclass(plugin.Params, PluginParams)):
        return f"{plugin.__name__}.Params must derive from PluginParams"
    if issubclass(plugin, SpanExtractor) and not isinstance(getattr(plugin, "VERSION", None), str):
        return f"{plugin.__name__}.VERSION must be a string: it is part of the span cache's key"
    if not (isinstance(plugin.PACKAGES, tuple) and all(isinstance(package, str) for package in plugin.PACKAGES)):
        return f"{plugin.__name__}.PACKAGES must be a tuple of names of distributions"
    return None


def describe(plugin: object) -> str:
    """First line of the docstring of a class or object; empty if there is none."""
    lines: Iterable[str] = (plugin.__doc__ or "").strip().splitlines()
    return next(iter(lines), "")
