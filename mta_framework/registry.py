"""Discovers plugins and creates them by name. pluggy is used here, once per command, and nowhere else."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, cast, get_args, get_origin, get_type_hints

import pluggy
from pydantic import TypeAdapter, ValidationError
from pydantic.json_schema import PydanticJsonSchemaWarning
from pydantic_core import ErrorDetails

from mta_framework import hookspecs
from mta_framework.errors import Fault, InputError, error_summary, error_text, nearest
from mta_framework.interfaces import (
    FILE_DIGEST,
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
_CORRECT_IT = "Correct the plugin, or take another."


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
            InputError: There is no such plugin, or it cannot be created.
            pydantic.ValidationError: The options are invalid.
        """
        registered = self.find(family, name, name)
        options = registered.plugin.Params.model_validate(params or {})
        parts = {
            option: self.create(family, choice.name, choice.params) for option, choice in parts_of(options).items()
        }
        return create_instance(registered, options, name, **parts)

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
            problem = f"more than one {noun} is called {name!r} ({sources_of(offers)})"
            hint = "Rename one of them." if _is_one_provider(offers) else "Uninstall or rename one of them."
            raise InputError([Fault(where, problem, "one plugin of each name", hint)])
        installed = f"one of the installed {family.replace('_', ' ')}: {', '.join(self.names(family)) or 'none'}"
        hint = (
            nearest(name, self.names(family))
            or "Choose one of them, install its provider, or give its file by -p FILE."
        )
        for failure in self.failures:
            hint += f" {failure.provider} could not be loaded ({failure.reason}): see `mta plugins`."
        raise InputError([Fault(where, f"no {noun} is called {name!r}", installed, hint)])


def create_instance(registered: Registered, options: PluginParams, where: str, **parts: Plugin) -> Plugin:
    """Create a plugin, and check that it keeps its options.

    Args:
        registered: Class of the plugin.
        options: Its validated options.
        where: Location of the plugin in the spec, for the error.
        parts: The plugins that its options of type ``PluginChoice`` name.

    Raises:
        InputError: Its ``__init__`` fails, or does not call that of its base class.
    """
    name = registered.plugin.NAME
    try:
        instance = registered.plugin(options, **parts)
    except InputError:
        raise
    except Exception as error:  # foreign code: its fault is reported with all others
        problem = f"{name} cannot be created (got {error_summary(error)})"
        expected = f"options that {registered.provider} accepts"
        raise InputError([Fault(where, problem, expected, f"See `mta plugins {name}`.")]) from error
    if not isinstance(getattr(instance, "params", None), registered.plugin.Params):
        problem = f"{name} of {registered.provider} does not keep its options"
        raise InputError([Fault(where, problem, "an __init__ that calls super().__init__(params)", _CORRECT_IT)])
    return instance


def missing_fault(plugin: Plugin, where: str) -> Fault | None:
    """The fault of a plugin that lacks something on this machine, or cannot say so; None if there is none.

    Args:
        plugin: The plugin, with its options.
        where: Location of the plugin in the spec.
    """
    try:
        missing = plugin.require()
    except Exception as error:  # foreign code, as above
        problem = f"require() of {plugin.NAME} failed ({error_text(error)})"
        return Fault(where, problem, "None, or a sentence that says what is missing", _CORRECT_IT)
    if missing is None:
        return None
    if not isinstance(missing, str):
        problem = f"require() of {plugin.NAME} returned something else (got {missing!r})"
        return Fault(where, problem, "None, or a sentence that says what is missing", _CORRECT_IT)
    return Fault(where, f"{plugin.NAME} cannot run here", "an environment with all that it needs", missing)


def sources_of(offers: Sequence[Registered]) -> str:
    """The providers of plugins that share a name; where all come from one, their classes."""
    if not _is_one_provider(offers):
        return " and ".join(offer.provider for offer in offers)
    return f"{' and '.join(offer.plugin.__qualname__ for offer in offers)} of {offers[0].provider}"


def _is_one_provider(offers: Sequence[Registered]) -> bool:
    return len({offer.provider for offer in offers}) == 1


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
    setattr(module, FILE_DIGEST, hashlib.sha256(path.read_bytes()).hexdigest())
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
            # Called one by one, since pluggy leaves out a None, which a forgotten return gives.
            for implementation in getattr(manager.hook, f"{_HOOK}{family}").get_hookimpls():
                for plugin in _offered(implementation.function()):
                    _register_class(registry, family, contract, plugin, provider)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # as above
            registry.failures.append(Failure(provider, f"{_HOOK}{family}: {error_summary(error)}"))


def _offered(returned: Any) -> Iterable[object]:
    if returned is None:
        raise TypeError("it returned None; expected a list of classes. Return one")
    if isinstance(returned, type):
        raise TypeError(
            f"it returned the class {returned.__name__}; expected a list of classes. Return [{returned.__name__}]"
        )
    return cast(Iterable[object], returned)


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
    offers = registry.families[family].setdefault(plugin.NAME, [])
    if all(offer.plugin is not plugin for offer in offers):
        offers.append(Registered(plugin, provider))


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
    if plugin.Params.model_config.get("extra") != "forbid":
        return f"{plugin.__name__}.Params must not accept unknown options: one that is misspelt would have no effect"
    return _attribute_fault(contract, plugin) or _options_fault(plugin)


def _attribute_fault(contract: type[Plugin], plugin: type[Plugin]) -> str | None:
    for name, adapter in _attributes(contract).items():
        try:
            adapter.validate_python(getattr(plugin, name, None), strict=True)
        except ValidationError as error:
            detail = error.errors(include_url=False)[0]
            where = "".join([f"{plugin.__name__}.{name}", *(f"[{index}]" for index in detail["loc"])])
            return f"{where} {_requirement(detail)}"
    return None


@functools.cache
def _attributes(contract: type[Plugin]) -> dict[str, TypeAdapter[Any]]:
    """The class attributes of a contract, by name."""
    hints = get_type_hints(contract)
    return {name: TypeAdapter(get_args(hint)[0]) for name, hint in hints.items() if get_origin(hint) is ClassVar}


def _options_fault(plugin: type[Plugin]) -> str | None:
    """Why a spec could not hold the options of a plugin, or their defaults; None if it can."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", PydanticJsonSchemaWarning)  # of a default that JSON cannot express
            json.dumps(plugin.Params.model_json_schema())
    except Exception as error:  # pydantic and the types of options raise a dozen unrelated ones
        return f"{plugin.__name__}.Params has no JSON schema ({error_summary(error)})"
    fields = plugin.Params.model_fields
    defaults = {
        name: field.default for name, field in fields.items() if not (field.is_required() or field.default_factory)
    }
    try:
        plugin.Params.model_validate(defaults)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            # All else may depend on what a spec gives; an option with an alias is unknown by its name.
            if detail["loc"] and detail["loc"][0] in defaults and detail["type"] != "extra_forbidden":
                where = ".".join(map(str, detail["loc"]))
                return f"the default of {plugin.__name__}.Params.{where} {_requirement(detail)}"
    return None


def _requirement(detail: ErrorDetails) -> str:
    """What a value must be, in the words of pydantic, and what it is."""
    return f"{detail['msg'].replace('Input should', 'must')} (got {detail['input']!r})"


def describe(plugin: object) -> str:
    """First line of the docstring of a class or object; empty if there is none."""
    lines: Iterable[str] = (plugin.__doc__ or "").strip().splitlines()
    return next(iter(lines), "")
