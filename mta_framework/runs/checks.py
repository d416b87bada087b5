"""Checks that need a spec and its plugins together, but no model: the last of ``mta check``."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

from mta_framework.endpoints.server import Server
from mta_framework.errors import Fault, InputError, RunError, as_plugin_error, faults_at
from mta_framework.interfaces import (
    AlignmentTerm,
    BaseLoss,
    BatchPolicy,
    LayerMapper,
    MeasuringLayerMapper,
    SpanExtractor,
    TeacherNeed,
)
from mta_framework.spec.alignment import AlignmentSection
from mta_framework.spec.document import shown
from mta_framework.spec.reading import RawSpec
from mta_framework.spec.run import RunSpec
from mta_framework.spec.section import EngineName, PluginSection, expected_temperature

POOLED_NEEDS = frozenset({"span_vectors", "geometry", "change_geometry"})
"""Needs of an alignment term that depend on the weights by which the states of a span's tokens are pooled."""

WEIGHT_NEEDS = frozenset({"token_weights", "span_weights"})
"""Needs of an alignment term that are weights."""

_OLDEST = {"bitsandbytes": "0.50"}
"""Optional package -> the oldest release that quantises, trains and exports on a CPU, too, as the tests ask."""


def teacher_faults(reading: RawSpec, draft: RunSpec, base_loss: BaseLoss | None) -> Iterator[Fault]:
    """Faults of a teacher that nothing uses, and of a missing one that the spec needs."""
    if not reading.sound("teacher"):
        return
    if draft.teacher is None:
        yield from _teacher_missing(reading, draft, base_loss)
        return
    student, evaluation = draft.student, draft.evaluation
    questions = ("alignment", "evaluation", "evaluation.models", "student.config", "student.teacher_layers")
    if base_loss is None or not all(reading.sound(*question.split(".")) for question in questions):
        return
    used = (
        base_loss.NEEDS_TEACHER
        or base_loss.NEEDS_ALIGNMENT
        or _teacher_writes(base_loss)
        or draft.alignment is not None
        or student.teacher_layers is not None
        or (student.config is not None and student.tokenizer is None)
        or (evaluation is not None and "teacher" in evaluation.models)
    )
    if not used:
        problem = f"has no effect, since nothing uses it (got {shown(reading.raw['teacher'])})"
        expected = "null, or a base loss, alignment or evaluation that uses it"
        yield Fault(reading.where(("teacher",)), problem, expected, "Set teacher to null.")


def _teacher_missing(reading: RawSpec, draft: RunSpec, base_loss: BaseLoss | None) -> Iterator[Fault]:
    if base_loss is not None and (base_loss.NEEDS_TEACHER or _teacher_writes(base_loss)):
        problem = f"must be given, since base loss {draft.base_loss.name!r} needs it (got null)"
        yield Fault(reading.where(("teacher",)), problem, "a teacher section", "Add a teacher, or change base_loss.")
    student = draft.student
    sound = reading.sound("student", "config") and reading.sound("student", "tokenizer")
    if sound and student.config is not None and student.tokenizer is None:
        problem = "must be given for a new student without teacher (got null)"
        hint = "Name a tokenizer, or add a teacher to take it from."
        yield Fault(reading.where(("student", "tokenizer")), problem, "a folder with tokenizer files", hint)


def server_faults(reading: RawSpec, draft: RunSpec, base_loss: BaseLoss | None) -> Iterator[Fault]:
    """Faults of a teacher behind a server: its URL, its key, and all that needs more than likeliest tokens."""
    section = draft.teacher.server if draft.teacher is not None else None
    if section is None or not reading.sound("teacher", "server"):
        return
    where = reading.where(("teacher", "server"))
    try:
        hint = Server(section.url, section.key_env).key_hint()
        if hint:
            yield Fault(where, "cannot send its key", "a key for this server", hint)
    except ValueError as error:
        url = reading.where(("teacher", "server", "url"))
        yield Fault(url, str(error), "a URL such as http://localhost:8000/v1", "Correct it.")
    for name, problem in _beyond_top_tokens(draft, base_loss):
        if reading.sound(*name.split(".")):
            expected = "a setting that needs no more than these tokens, since teacher.server is given"
            hint = "Change it, or keep what a live teacher computes: teacher.cache without teacher.server."
            yield Fault(reading.where(tuple(name.split("."))), problem, expected, hint)


def _beyond_top_tokens(draft: RunSpec, base_loss: BaseLoss | None) -> Iterator[tuple[str, str]]:
    """The fields that need more of a teacher than its likeliest tokens, and what they need."""
    alone = "and a server gives its likeliest tokens alone"
    if base_loss is not None:
        label = draft.base_loss.name
        if base_loss.NEEDS_TEACHER and not base_loss.TAKES_TOP_TOKENS:
            yield "base_loss", f"reads states or whole distributions of the teacher, {alone} (got {label!r})"
        if _teacher_writes(base_loss):
            yield "base_loss", f"trains on responses that the teacher writes, {alone} (got {label!r})"
    if draft.alignment is not None:
        yield "alignment", f"compares states of the teacher, {alone}"
    if draft.student.teacher_layers is not None:
        yield "student.teacher_layers", f"copies weights of the teacher, {alone}"
    if draft.evaluation is not None and "teacher" in draft.evaluation.models:
        yield "evaluation.models", f"needs the teacher itself, {alone} (got 'teacher')"


def several_teachers_faults(
    reading: RawSpec, draft: RunSpec, base_loss: BaseLoss | None, layers: LayerMapper | None
) -> Iterator[Fault]:
    """Faults of plugins that work with one teacher alone, where there are several."""
    if not draft.teachers or not reading.sound("teachers"):
        return
    if base_loss is not None and _teacher_writes(base_loss):
        problem = f"trains on responses of one teacher, and there are several (got {draft.base_loss.name!r})"
        hint = "Choose other batches in the options of the base loss."
        yield Fault(reading.where(("base_loss",)), problem, "a base loss without responses of a teacher", hint)
    if isinstance(layers, MeasuringLayerMapper):
        problem = f"measures the layers of one teacher, and there are several (got {layers.NAME!r})"
        hint = "Choose proportional, or name the layers."
        yield Fault(reading.where(("alignment", "layers")), problem, "a layer mapper that measures nothing", hint)


def alignment_faults(reading: RawSpec, draft: RunSpec, base_loss: BaseLoss | None) -> Iterator[Fault]:
    """The fault of a missing alignment where the base loss has no terms of its own."""
    if base_loss is None or not base_loss.NEEDS_ALIGNMENT or draft.alignment is not None:
        return
    if reading.sound("alignment"):
        problem = f"must be given, since base loss {draft.base_loss.name!r} has no terms of its own (got null)"
        hint = "Add an alignment, or change base_loss."
        yield Fault(reading.where(("alignment",)), problem, "an alignment section", hint)


def policy_faults(reading: RawSpec, draft: RunSpec, base_loss: BaseLoss | None) -> Iterator[Fault]:
    """Faults of a batch policy whose needs are not met, and of settings that have no effect without one."""
    if base_loss is None or not reading.sound("training", "generation"):
        return
    policy, generation = _policy(base_loss), draft.training.generation
    selection = ("load_best_model_at_end", "metric_for_best_model")
    scored = all(reading.sound("training", name) for name in selection) and draft.training.answer_metric
    label, where = f"base loss {draft.base_loss.name!r}", reading.where(("training", "generation"))
    if policy is None and generation is not None and not scored:
        got = shown(reading.raw["training"]["generation"])
        problem = f"has no effect, since {label} trains on the data, not on generated responses (got {got})"
        hint = "Set it to null, or choose other batches in the options of the base loss."
        yield Fault(where, problem, "null, or a base loss that trains on responses", hint)
    if policy is not None and generation is None:
        problem = f"must be given, since {label} trains on responses that are written during training (got null)"
        hint = 'Add it, e.g. {"engine": "transformers"}, or choose other batches in the options of the base loss.'
        yield Fault(where, problem, "a generation section", hint)
    elif scored and generation is None:
        problem = f"must be given, since {scored} scores answers that are written during training (got null)"
        hint = 'Add it, e.g. {"engine": "transformers"}, or set training.metric_for_best_model to loss.'
        yield Fault(where, problem, "a generation section", hint)
    if generation is not None:
        yield from _engine_faults(reading, generation.engine, base_loss, policy)
    if policy is not None and draft.data.supervise == "all" and reading.sound("data", "supervise"):
        problem = f"has no effect: {label} trains on responses to prompts (got 'all')"
        hint = "Set it to 'last', or choose other batches in the options of the base loss."
        expected = "'last', or a base loss that trains on the data"
        yield Fault(reading.where(("data", "supervise")), problem, expected, hint)
    if policy is not None and reading.sound("training", "batch_size"):
        try:
            with faults_at(reading.where(("base_loss",))):
                policy.check(draft.training.batch_size)
        except InputError as error:
            yield from error.faults
    lacking = draft.data.validation is None and reading.sound("data", "validation")
    if policy is not None and policy.NEEDS_VALIDATION and lacking:
        problem = f"must be given, since the batches of {label} follow the validation loss (got null)"
        hint = "Add it, or choose other batches in the options of the base loss."
        yield Fault(reading.where(("data", "validation")), problem, "a data set", hint)


def _teacher_writes(base_loss: BaseLoss) -> bool:
    """Whether the teacher writes responses that the batch policy trains on."""
    policy = _policy(base_loss)
    return policy is not None and "teacher" in policy.RESPONDERS


def _policy(base_loss: BaseLoss) -> BatchPolicy | None:
    """The batch policy of a base loss, which may be anyone's code."""
    label = f"base loss {base_loss.NAME!r}"
    with as_plugin_error(label):
        policy = base_loss.batch_policy()
    if not isinstance(policy, BatchPolicy | None):
        raise RunError(f"{label}: batch_policy must return a batch policy or None (got {type(policy).__name__})")
    return policy


def _engine_faults(
    reading: RawSpec, engine: EngineName, base_loss: BaseLoss, policy: BatchPolicy | None
) -> Iterator[Fault]:
    """Faults of responses that the engine cannot give as the base loss asks for them."""
    label = f"base loss {base_loss.NAME!r}"
    if base_loss.NEEDS_LOG_PROBS and engine == "vllm":
        problem = f"gives no log-probabilities of its tokens, which {label} needs (got 'vllm')"
        where = reading.where(("training", "generation", "engine"))
        yield Fault(where, problem, "'transformers'", "Choose it, or change base_loss.")
    with as_plugin_error(label):
        temperature = policy.temperature if policy is not None else None
    if not isinstance(temperature, float | int | None):
        got = type(temperature).__name__
        raise RunError(f"{label}: the temperature of its batch policy must be a number or None (got {got})")
    if temperature is not None and (expected := expected_temperature(engine, temperature)):
        problem = f"writes responses at a temperature that {engine} does not sample at (got {temperature})"
        hint = "Change it in the options of the base loss, or set training.generation.engine to 'transformers'."
        yield Fault(reading.where(("base_loss",)), problem, expected, hint)


def span_faults(reading: RawSpec, spans: SpanExtractor | None, layers: LayerMapper | None) -> Iterator[Fault]:
    """The fault of a layer mapper that asks for spans of a granularity that the extractor does not give."""
    if spans is None:
        return
    given = _granularities(spans, f"span extractor {spans.NAME!r}")
    lacking = sorted({*_granularities(layers, f"layer mapper {layers.NAME!r}")} - {*given}) if layers else []
    if layers and lacking:
        problem = f"{layers.NAME} maps layers to spans that {spans.NAME} does not give (got {', '.join(lacking)})"
        expected = f"granularities that {spans.NAME} gives: {', '.join(given)}"
        hint = "Change the options of the layer mapper, or take another span extractor."
        yield Fault(reading.where(("alignment", "layers")), problem, expected, hint)


def _granularities(plugin: SpanExtractor | LayerMapper, label: str) -> Sequence[str]:
    """The granularities of a plugin, which may be anyone's code."""
    with as_plugin_error(label):
        granularities = plugin.granularities
    is_list = isinstance(granularities, tuple | list) and bool(granularities)
    if not is_list or not all(isinstance(name, str) for name in granularities):
        raise RunError(f"{label}: granularities must be a tuple of at least one name (got {granularities!r})")
    return granularities


def term_faults(reading: RawSpec, draft: RunSpec, terms: Sequence[AlignmentTerm]) -> Iterator[Fault]:
    """The fault of a learning rate of parameters that no alignment term has."""
    name, sound = "projection_learning_rate", reading.sound("alignment", "terms")
    if draft.alignment is None or not sound or not reading.sound("alignment", name):
        return
    every = len(terms) == len(draft.alignment.terms)
    rate, default = draft.alignment.projection_learning_rate, AlignmentSection.model_fields[name].default
    if every and rate != default and not any(term.has_parameters for term in terms):
        problem = f"has no effect where no term has parameters (got {shown(rate)})"
        yield Fault(reading.where(("alignment", name)), problem, f"its default, {shown(default)}", "Remove it.")


def importance_faults(reading: RawSpec, draft: RunSpec, terms: Sequence[AlignmentTerm]) -> Iterator[Fault]:
    """Faults of importance estimators whose weights no alignment term reads.

    Raises:
        RunError: A term declares a need that does not exist.
    """
    section, needs = draft.alignment, frozenset[str]().union(*map(_needs, terms))
    names = [name for name in ("terms", "importance", "pooling") if not reading.sound("alignment", name)]
    if section is None or names or len(terms) < len(section.terms):
        return
    pools, weighs = bool(needs & POOLED_NEEDS), bool(needs & WEIGHT_NEEDS)
    if section.pooling is not None and not pools:
        problem = f"has no effect, since no term reads span vectors or their geometry (got {section.pooling.name!r})"
        expected = "null, or a term that reads them"
        yield Fault(reading.where(("alignment", "pooling")), problem, expected, "Remove it.")
    default: PluginSection = AlignmentSection.model_fields["importance"].default
    if section.importance != default and not weighs and (section.pooling is not None or not pools):
        unread = "token or span weights" if pools else "weights, span vectors or their geometry"
        problem = f"has no effect, since no term reads {unread} (got {section.importance.name!r})"
        expected = f"its default, {default.name!r}, or a term that reads them"
        yield Fault(reading.where(("alignment", "importance")), problem, expected, "Remove it.")


def _needs(term: AlignmentTerm) -> frozenset[str]:
    """What a term declares to read of the teacher, with every tokenizer that it takes."""
    label, known = f"alignment term {term.NAME!r}", get_args(TeacherNeed)
    with as_plugin_error(label):
        shared = (True,) if term.needs_shared_tokenizer else (True, False)
        declared = [term.teacher_needs(given) for given in shared]
    for each in declared:
        if isinstance(each, str) or not isinstance(each, Collection):
            raise RunError(f"{label}: teacher_needs must return a collection of needs (got {each!r})")
    needs = frozenset[str]().union(*declared)
    if unknown := sorted(needs - set(known)):
        raise RunError(f"{label} must declare needs of the teacher among {', '.join(known)} (got {unknown[0]!r})")
    return needs


def tracker_faults(reading: RawSpec, draft: RunSpec) -> Iterator[Fault]:
    """One fault for every tracker that is not installed."""
    if not reading.sound("training", "trackers"):
        return
    for i, name in enumerate(draft.training.trackers):
        # Every tracker is called as the package that it needs.
        if find_spec(name) is None:
            where, expected = reading.where(("training", "trackers", i)), "a tracker that is installed"
            yield Fault(where, f"is not installed (got {name!r})", expected, f"Leave it out, or: pip install {name}.")


def gguf_faults(reading: RawSpec, draft: RunSpec) -> Iterator[Fault]:
    """Yield a fault for every setting that a model in a GGUF file cannot have."""
    for name, section in (("student", draft.student), ("teacher", draft.teacher)):
        if section is None or section.path is None or not reading.sound(name, "path"):
            continue
        if section.quantization is not None and reading.sound(name, "quantization") and Path(section.path).is_file():
            problem = f"cannot be had of a GGUF file, whose weights are expanded (got {section.path})"
            where, hint = reading.where((name, "quantization")), "Set it to null, or give the model as a folder."
            yield Fault(where, problem, "null, or a model by hub or as a folder of safetensors", hint)
    path = draft.student.path
    if path is not None and draft.student.exports_adapters and reading.sound("student") and Path(path).is_file():
        problem = "makes a folder for which peft finds no model, since the student is a GGUF file (got 'adapters')"
        where = reading.where(("student", "lora", "export"))
        yield Fault(where, problem, "'merged', or a student by hub or as a folder", "Set it to merged.")


def needed_packages(spec: RunSpec) -> Iterator[tuple[str, str, str]]:
    """Yield the settings that need an optional package: dotted field, value, and name of the package."""
    if spec.training.optimizer in ("adamw_8bit", "paged_adamw_8bit"):
        yield "training.optimizer", spec.training.optimizer, "bitsandbytes"
    for name, section in (("student", spec.student), ("teacher", spec.teacher)):
        if section is not None and section.attention == "flash_attention_2":
            yield f"{name}.attention", section.attention, "flash_attn"
        if section is not None and section.quantization is not None:
            yield f"{name}.quantization", f"{section.quantization.bits} bit", "bitsandbytes"


def package_faults(reading: RawSpec, draft: RunSpec) -> Iterator[Fault]:
    """One fault for every setting whose package is not installed, or is too old."""
    for field, value, package in needed_packages(draft):
        key_path = tuple(field.split("."))
        # Without flash_attn, transformers would fetch a kernel from the hub and run it.
        if reading.sound(*key_path) and (state := _lack(package)):
            problem = f"needs the package {package}, which {state} (got {value!r})"
            required = f"'{package}>={_OLDEST[package]}'" if package in _OLDEST else package.replace("_", "-")
            hint = f"Choose another, or: pip install {required}."
            yield Fault(reading.where(key_path), problem, "a setting that the installed packages offer", hint)


def _lack(package: str) -> str | None:
    if find_spec(package) is None:
        return "is not installed"
    oldest = _OLDEST.get(package)
    if oldest is None or _release(installed := version(package)) >= _release(oldest):
        return None
    return f"has to be {oldest} or later, and {installed} is installed"


def _release(text: str) -> list[int]:
    return [int(part) for part in text.split(".")[:2]]
