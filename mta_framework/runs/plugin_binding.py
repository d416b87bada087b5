"""Binds the names and options of a spec to plugins, as ``mta check`` does. Loads no torch and opens no model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from mta_framework.errors import Fault, InputError, collect_faults, faults_of_teacher_run
from mta_framework.interfaces import (
    AlignmentTerm,
    BaseLoss,
    ImportanceEstimator,
    LayerMapper,
    Metric,
    Plugin,
    PluginChoice,
    SpanExtractor,
)
from mta_framework.registry import Registered, Registry, create_instance, missing_fault, parts_of
from mta_framework.runs.checks import (
    alignment_faults,
    gguf_faults,
    importance_faults,
    needed_packages,
    package_faults,
    policy_faults,
    server_faults,
    several_teachers_faults,
    span_faults,
    teacher_faults,
    term_faults,
    tracker_faults,
)
from mta_framework.runs.manifest import incomplete_export_faults
from mta_framework.spec.alignment import AlignmentSection
from mta_framework.spec.cache_locations import cache_location_faults
from mta_framework.spec.document import KeyPath
from mta_framework.spec.evaluation import ScoringSection
from mta_framework.spec.evaluation_spec import EvaluationSpec
from mta_framework.spec.locations import missing_evaluation_locations, missing_locations
from mta_framework.spec.reading import RawSpec, read_spec, teacher_readings
from mta_framework.spec.run import RunSpec
from mta_framework.spec.section import PACKAGES_OF_ENGINE, PluginSection
from mta_framework.spec.several_teachers import named_fault
from mta_framework.spec.training import VALIDATION_LOSSES, TrainingSection
from mta_framework.spec.validation_faults import faults_of
from mta_framework.types.log_entries import is_reserved

_BEST = "load_best_model_at_end"


@dataclass(frozen=True)
class BoundRun:
    """A run that can start: a sound spec with its plugins.

    Args:
        path: The spec file.
        spec: The spec, with absolute paths.
        base_loss: The base loss that the alignment is added to.
        spans: Span extractor; None, like ``importance`` and ``layers``, without alignment.
        importance: Importance estimator.
        pooling: Importance estimator that pools states to span vectors; None: ``importance`` does.
        layers: Layer mapper.
        terms: Alignment terms in the order of ``alignment.terms``; empty without alignment.
        metrics: Metrics in the order of ``evaluation.metrics``; empty without evaluation.
        teacher: The bound spec of ``teacher.run``, whose exported student is the teacher.
        other_losses: Names of the installed base losses that need no vocabulary shared by teacher and student.
        providers: Dotted name of each plugin section -> distribution and version, or file, that provides its plugin.
        answer_metric: Metric of generated answers that the best checkpoint is chosen by; None where there is none.
        packages: Distributions that its plugins (``Plugin.PACKAGES``) and settings depend on.
        plugin_files: SHA-256 digest of each file given by ``-p`` that one of its plugins comes from, by its path.
        teacher_name: Name of the teacher whose view of a run with several this is; empty: the run as a whole.
    """

    path: Path
    spec: RunSpec
    base_loss: BaseLoss
    spans: SpanExtractor | None = None
    importance: ImportanceEstimator | None = None
    pooling: ImportanceEstimator | None = None
    layers: LayerMapper | None = None
    terms: tuple[AlignmentTerm, ...] = ()
    metrics: tuple[Metric, ...] = ()
    teacher: BoundRun | None = None
    other_losses: tuple[str, ...] = ()
    providers: Mapping[str, str] = field(default_factory=dict)
    answer_metric: Metric | None = None
    packages: tuple[str, ...] = ()
    plugin_files: Mapping[str, str] = field(default_factory=dict)
    teacher_name: str = ""

    @property
    def reads_teacher(self) -> bool:
        """Whether base loss or alignment reads a teacher's states."""
        return self.base_loss.NEEDS_TEACHER or self.spec.alignment is not None

    @property
    def runs_teacher(self) -> bool:
        """Whether training needs a teacher: for its states, or for responses that it writes."""
        policy = self.base_loss.batch_policy()
        return self.reads_teacher or (policy is not None and "teacher" in policy.RESPONDERS)

    def views(self) -> dict[str, BoundRun]:
        """The run as each of several teachers sees it, by name; with one teacher, or none, the run under ''."""
        if not self.spec.teachers:
            return {"": self}
        return {
            name: replace(self, spec=self.spec.with_teacher(name), teacher_name=name) for name in self.spec.teachers
        }

    def chain(self) -> Iterator[BoundRun]:
        """This run, its teacher's run, the run of that one's teacher, and so on."""
        yield self
        if self.teacher is not None:
            yield from self.teacher.chain()


@dataclass(frozen=True)
class BoundEvaluation:
    """An evaluation that can start: a sound spec with its metrics.

    Args:
        spec: The spec, with absolute paths.
        metrics: Metrics in the order of ``evaluation.metrics``.
        packages: Distributions that its metrics (``Plugin.PACKAGES``) and its engine depend on.
        plugin_files: SHA-256 digest of each file given by ``-p`` that one of its metrics comes from, by its path.
    """

    spec: EvaluationSpec
    metrics: tuple[Metric, ...]
    packages: tuple[str, ...] = ()
    plugin_files: Mapping[str, str] = field(default_factory=dict)


def bind(path: Path, registry: Registry, overrides: Sequence[str] = ()) -> BoundRun:
    """Read a spec, create its plugins, and check that everything fits together and that local inputs exist.

    Args:
        path: Spec file.
        registry: Registered plugins.
        overrides: ``KEY=VALUE`` settings for this spec; a spec under ``teacher.run`` is taken as it is.

    Raises:
        InputError: Every fault of the spec, its plugins and its teacher's spec.
    """
    return _bind(path, registry, overrides, ())


def _bind(path: Path, registry: Registry, overrides: Sequence[str], above: tuple[Path, ...]) -> BoundRun:
    reading = read_spec(path, overrides)
    if reading.draft is None:
        raise InputError(reading.faults)
    plugins = _Plugins(registry, reading)
    draft, alignment = reading.draft, reading.draft.alignment
    base_loss: BaseLoss | None = plugins.create("base_losses", draft.base_loss, "base_loss")
    spans: SpanExtractor | None = None
    importance: ImportanceEstimator | None = None
    pooling: ImportanceEstimator | None = None
    layers: LayerMapper | None = None
    if alignment is not None:
        spans = plugins.create("span_extractors", alignment.spans, "alignment", "spans")
        importance = plugins.create("importance_estimators", alignment.importance, "alignment", "importance")
        if alignment.pooling is not None:
            pooling = plugins.create("importance_estimators", alignment.pooling, "alignment", "pooling")
        layers = plugins.create("layer_mappers", alignment.layers, "alignment", "layers")
    terms = plugins.terms(alignment)
    metrics = plugins.metrics(draft.evaluation)
    answer_metric = plugins.answer_metric(draft.training)
    faults = [*reading.faults, *plugins.faults]
    readings = teacher_readings(reading)
    faults += _of_each(readings, teacher_faults, base_loss)
    faults += _of_each(readings, server_faults, base_loss)
    faults += several_teachers_faults(reading, draft, base_loss, layers)
    faults += alignment_faults(reading, draft, base_loss)
    faults += policy_faults(reading, draft, base_loss)
    faults += span_faults(reading, spans, layers)
    faults += term_faults(reading, draft, terms)
    faults += importance_faults(reading, draft, terms)
    located = (_with_remedies(view, missing_locations(view)) for view in readings.values())
    faults += dict.fromkeys(fault for of_view in located for fault in of_view)
    faults += cache_location_faults(reading)
    faults += tracker_faults(reading, draft)
    faults += _of_each(readings, package_faults)
    faults += _of_each(readings, gguf_faults)
    teacher = _bind_teacher(reading, draft, registry, (*above, reading.path), faults)
    if faults:
        raise InputError(faults)
    assert reading.spec is not None
    assert base_loss is not None
    other_losses = tuple(name for name in registry.names("base_losses") if _needs_no_vocabulary(registry, name))
    return BoundRun(
        path=reading.path,
        spec=reading.spec,
        base_loss=base_loss,
        spans=spans,
        importance=importance,
        pooling=pooling,
        layers=layers,
        terms=terms,
        metrics=metrics,
        teacher=teacher,
        other_losses=other_losses,
        providers=plugins.providers,
        answer_metric=answer_metric,
        packages=_packages(plugins, reading.spec),
        plugin_files=plugins.files,
    )


def _packages(plugins: _Plugins, spec: RunSpec) -> tuple[str, ...]:
    """Distributions that the plugins, and the settings of each teacher and engine, depend on."""
    seen_by = map(spec.with_teacher, spec.teacher_names)
    of_settings = [package for seen in seen_by for _, _, package in needed_packages(seen)]
    sections = (spec.training.generation, spec.evaluation)
    of_engines = [package for part in sections if part is not None for package in PACKAGES_OF_ENGINE[part.engine]]
    return tuple(dict.fromkeys([*plugins.packages, *of_settings, *of_engines]))


def _of_each(
    readings: Mapping[str, RawSpec[RunSpec]], check: Callable[..., Iterator[Fault]], *plugins: BaseLoss | None
) -> dict[Fault, None]:
    """The faults of a spec as each teacher sees it, each once."""
    return dict.fromkeys(
        named_fault(fault, name) for name, view in readings.items() for fault in check(view, view.draft, *plugins)
    )


def bind_evaluation(reading: RawSpec[EvaluationSpec], registry: Registry) -> BoundEvaluation:
    """Create the metrics of an evaluation by itself, and check that local inputs exist.

    Args:
        reading: Its spec as read, sound or not.
        registry: Registered plugins.

    Raises:
        InputError: Every fault of the spec and its plugins.
    """
    plugins = _Plugins(registry, reading)
    metrics = plugins.metrics(reading.draft.evaluation if reading.draft else None)
    faults = [*reading.faults, *plugins.faults]
    faults += _with_remedies(reading, missing_evaluation_locations(reading))
    if faults:
        raise InputError(faults)
    assert reading.spec is not None
    packages = (*plugins.packages, *PACKAGES_OF_ENGINE[reading.spec.evaluation.engine])
    return BoundEvaluation(reading.spec, metrics, packages, plugins.files)


def _with_remedies(reading: RawSpec, missing: Iterator[Fault]) -> Iterator[Fault]:
    """The faults of local inputs; for the student of a run that lacks files, those that a resume of that run finds."""
    incomplete = {}
    for name in ("teacher", "student", "model"):
        if path := getattr(getattr(reading.draft, name, None), "path", None):
            incomplete[reading.where((name, "path"))] = incomplete_export_faults(Path(path))
    for fault in missing:
        yield from incomplete.get(fault.where) or [fault]


def _needs_no_vocabulary(registry: Registry, name: str) -> bool:
    offers = [offer.plugin for offer in registry.families["base_losses"][name]]
    return all(issubclass(plugin, BaseLoss) and not plugin.NEEDS_SHARED_VOCABULARY for plugin in offers)


class _Plugins:
    """Creates the plugins of one spec, and collects their faults."""

    def __init__(self, registry: Registry, reading: RawSpec):
        self.registry = registry
        self.reading = reading
        self.faults: list[Fault] = []
        self.providers: dict[str, str] = {}
        self.packages: tuple[str, ...] = ()
        self.files: dict[str, str] = {}

    def terms(self, section: AlignmentSection | None) -> tuple[AlignmentTerm, ...]:
        """The terms of ``alignment`` that have no fault."""
        sections = section.terms if section else []
        created = [self.create("alignment_terms", part, "alignment", "terms", i) for i, part in enumerate(sections)]
        return tuple(term for term in created if term is not None)

    def metrics(self, section: ScoringSection | None) -> tuple[Metric, ...]:
        """The metrics of ``evaluation`` that have no fault."""
        sections = section.metrics if section else []
        created = [self.create("metrics", part, "evaluation", "metrics", i) for i, part in enumerate(sections)]
        return tuple(metric for metric in created if metric is not None)

    def answer_metric(self, section: TrainingSection) -> Metric | None:
        """The metric that ``training.metric_for_best_model`` names, with its default options; None without one."""
        name, key_path = section.answer_metric, ("training", "metric_for_best_model")
        if name is None or not self.reading.sound(*key_path) or not self.reading.sound("training", _BEST):
            return None
        where = self.reading.where(key_path)
        try:
            registered = self.registry.find("metrics", name, where)
        except InputError as error:
            losses = " or ".join(VALIDATION_LOSSES)
            self.faults += [
                replace(fault, expected=f"{losses}, or a metric ({fault.expected})") for fault in error.faults
            ]
            return None
        if is_reserved(name):
            problem = f"is what another entry of the log is called (got {name!r})"
            self.faults.append(Fault(where, problem, "a metric of another name", "Rename the metric."))
            return None
        self._note_origin(registered)
        try:
            options = registered.plugin.Params()
        except ValidationError:
            problem, hint = f"{name} cannot be used without options (got {name!r})", "Take another metric, or loss."
            self.faults.append(Fault(where, problem, "a metric whose options all have defaults", hint))
            return None
        metric = None
        with collect_faults(self.faults):
            metric = cast(Metric, create_instance(registered, options, where))
            if missing := missing_fault(metric, where):
                self.faults.append(missing)
        return metric

    def _note_origin(self, registered: Registered) -> None:
        self.packages = tuple(dict.fromkeys([*self.packages, *registered.plugin.PACKAGES]))
        if digest := self.registry.files.get(registered.provider):
            self.files[registered.provider] = digest

    def create(self, family: str, section: PluginSection | PluginChoice, *key_path: str | int) -> Any:
        """The plugin that a section names; None where it has a fault. What it lacks on this machine is also a fault."""
        plugin = self._create(family, section, *key_path)
        if plugin is not None and (missing := missing_fault(plugin, self.reading.where(key_path))):
            self.faults.append(missing)
        return plugin

    def _create(self, family: str, section: PluginSection | PluginChoice, *key_path: str | int) -> Any:
        if not self.reading.sound(*key_path, "name"):
            return None
        try:
            registered = self.registry.find(family, section.name, self.reading.where((*key_path, "name")))
            self.providers[".".join(map(str, key_path))] = registered.provider
            self._note_origin(registered)
            return self._instance(family, registered, section, key_path)
        except InputError as error:
            self.faults += error.faults
            return None

    def _instance(
        self, family: str, registered: Registered, section: PluginSection | PluginChoice, key_path: KeyPath
    ) -> Plugin | None:
        plugin = registered.plugin

        def where(option: KeyPath) -> str:
            return self.reading.where((*key_path, "params", *option))

        try:
            # As JSON, in which strictness lets a list stand for a tuple.
            params = plugin.Params.model_validate_json(json.dumps(section.params), strict=True)
        except ValidationError as error:
            raise InputError(faults_of(error, registered.schema, where, f"option of {section.name}")) from None
        parts = {
            option: self.create(family, choice, *key_path, "params", option)
            for option, choice in parts_of(params).items()
        }
        if None in parts.values():
            return None
        return create_instance(registered, params, self.reading.where(key_path), **parts)


def _bind_teacher(
    reading: RawSpec, draft: RunSpec, registry: Registry, chain: tuple[Path, ...], faults: list[Fault]
) -> BoundRun | None:
    """Bind ``teacher.run``; its faults are added to ``faults``."""
    if draft.teacher is None or draft.teacher.run is None or not reading.sound("teacher", "run"):
        return None
    where, path = reading.where(("teacher", "run")), Path(draft.teacher.run)
    if path in chain:
        cycle = " -> ".join(str(link) for link in (*chain, path))
        faults.append(Fault(where, f"leads back to itself (got {cycle})", "a chain with an end", "Break the cycle."))
        return None
    teacher = None
    with collect_faults(faults), faults_of_teacher_run(path, where):
        teacher = _bind(path, registry, (), chain)
    if teacher is None:
        return None
    if teacher.spec.student.exports_adapters:
        problem, expected = f"exports adapters alone (got {path})", "a run that exports a whole model"
        faults.append(Fault(where, problem, expected, "Set student.lora.export to merged in that spec."))
    if reading.sound("name") and draft.folder in [run.spec.folder for run in teacher.chain()]:
        problem = f"trains its model in the same run folder (got {draft.folder})"
        faults.append(Fault(where, problem, "one folder for each run", "Change name or output_dir of one of the two."))
    return teacher
