"""Model configurations: read from a pretrained model, or built from the fields of ``student.config``."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from transformers import AutoConfig, GenerationConfig, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils.hub import cached_file

from mta_framework.errors import Fault, InputError, error_message, nearest
from mta_framework.models.decoder import shape_of
from mta_framework.models.sources import ModelSource, loading_faults_at
from mta_framework.models.tokenizers import vocabulary_size
from mta_framework.models.turn_end import stored_end_ids
from mta_framework.spec.model_files import GENERATION_CONFIG, generation_fault

_WHERE = "student.config"
_LONGEST_REASON = 300
"""Characters: transformers lists all its architectures where it refuses one."""
MOST_LAYERS = 1_000
"""Most decoder blocks of a model; far more than any has."""

_DEPTH = re.compile(r"n(um)?_((hidden|decoder)_)?layers?")
_LOCAL_ATTENTION = (None, "eager", "sdpa", "flex_attention")
"""Implementations of attention that are part of transformers and torch; for others it may fetch and run a kernel."""
_ROTARY = {"rope_theta", "rope_scaling", "partial_rotary_factor"}


def read_config(source: ModelSource) -> PreTrainedConfig:
    """Read the configuration of a pretrained model, without its weights.

    Args:
        source: The model.

    Raises:
        InputError: The configuration could not be loaded, or asks for an attention kernel of its own.
    """
    with loading_faults_at(source):
        if source.gguf_file is None:
            _refuse_depth(PreTrainedConfig.get_config_dict(**source.arguments)[0], source.where)
        config = AutoConfig.from_pretrained(**source.arguments)
    _refuse_kernels(config, source.where)
    _require_blocks(config, source.where)
    if source.gguf_file is not None:
        _forget_quantization(config)
    return config


def read_end_ids(source: ModelSource, config: PreTrainedConfig) -> tuple[int, ...]:
    """Read the end tokens in the generation settings of a pretrained model, without its weights.

    Args:
        source: The model.
        config: Its configuration, which names the end tokens where the model comes without generation settings.

    Raises:
        InputError: The settings hold values that transformers cannot use.
    """
    if source.gguf_file is not None:
        return config_end_ids(config)
    with loading_faults_at(source):
        revision = source.revision or "main"
        try:
            file = cached_file(source.location, GENERATION_CONFIG, revision=revision)
        except OSError:  # most base models have none
            return config_end_ids(config)
        if fault := generation_fault(Path(str(file)), source.where):
            raise InputError([fault])
        return stored_end_ids(GenerationConfig.from_pretrained(source.location, revision=revision))


def config_end_ids(config: PreTrainedConfig) -> tuple[int, ...]:
    """Return the end tokens that a model of this configuration has without generation settings of its own.

    Args:
        config: Configuration of the model.
    """
    return stored_end_ids(GenerationConfig.from_model_config(config))


def fresh_config(given: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    """Build the configuration that ``student.config`` describes.

    Args:
        given: Fields of the configuration, ``model_type`` among them. Where they are absent, ``vocab_size`` is taken
            from the size of the tokenizer and the special tokens are the tokenizer's.
        tokenizer: Tokenizer of the student.

    Raises:
        InputError: ``model_type`` is no causal language model, fields are unknown (transformers itself would ignore
            them), or transformers refuses their values.
    """
    _refuse_depth(given, _WHERE)
    values = dict(given)
    model_type = values.pop("model_type")
    _check_model_type(model_type)
    _check_names(model_type, values)
    needed = vocabulary_size(tokenizer)
    given_size = values.setdefault("vocab_size", needed)
    if isinstance(given_size, int) and given_size < needed:
        hint = "Leave it out, to fit the tokenizer."
        problem = f"has fewer embeddings than the tokenizer has tokens (got {given_size})"
        raise InputError([Fault(f"{_WHERE}.vocab_size", problem, f"at least {needed}", hint)])
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        values.setdefault(name, getattr(tokenizer, name))
    with config_faults_at(_WHERE):
        config = AutoConfig.for_model(model_type, **values)
    _require_blocks(config, _WHERE)
    return config


@contextmanager
def config_faults_at(where: str) -> Iterator[None]:
    """Turn any exception that transformers raises about a configuration into an ``InputError`` about ``where``.

    Args:
        where: Field of the spec that describes the model.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = textwrap.shorten(error_message(error), _LONGEST_REASON, placeholder=" ...") or type(error).__name__
        expected = "values that transformers accepts for this model_type"
        hint = "Correct the field." if where == _WHERE else "Correct config.json, or give another model."
        raise InputError([Fault(where, f"is refused by transformers (got: {reason})", expected, hint)]) from error


def _require_blocks(config: PreTrainedConfig, where: str) -> None:
    with config_faults_at(where):
        layers = shape_of(config).num_layers
    if type(layers) is not int or layers < 1:  # True is an int, but no number of blocks
        problem, hint = f"has no decoder blocks (got {layers!r})", "Correct the number of hidden layers."
        raise InputError([Fault(where, problem, "a whole number of at least 1", hint)])


def _refuse_depth(fields: Mapping[str, Any], where: str) -> None:
    """Refuse a number of decoder blocks for which a configuration alone would fill the memory."""
    for name, value in fields.items():
        if isinstance(value, Mapping):
            _refuse_depth(value, where)
        elif _DEPTH.fullmatch(name) and isinstance(value, int) and value > MOST_LAYERS:
            problem = f"has too many decoder blocks (got {name} {value:,})"
            raise InputError([Fault(where, problem, f"at most {MOST_LAYERS:,}", "Correct its config.json.")])


def _refuse_kernels(config: PreTrainedConfig, where: str) -> None:
    parts = [config, *(getattr(config, name, None) for name in config.sub_configs)]
    for part in (part for part in parts if isinstance(part, PreTrainedConfig)):
        attention = part._attn_implementation
        if attention not in _LOCAL_ATTENTION:
            problem = f"asks for code that does not come with transformers (got attn_implementation {attention!r})"
            expected = f"none, {', '.join(map(str, _LOCAL_ATTENTION[1:]))}"
            raise InputError([Fault(where, problem, expected, "Remove attn_implementation from its config.json.")])


def _forget_quantization(config: PreTrainedConfig) -> None:
    if hasattr(config, "quantization_config"):
        del config.quantization_config


def _check_model_type(model_type: str) -> None:
    if model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return
    expected = "a causal language model of transformers, e.g. llama, gpt2, qwen2"
    hint = nearest(model_type, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) or "Choose one of these."
    raise InputError([Fault(f"{_WHERE}.model_type", f"is no known architecture (got {model_type!r})", expected, hint)])


def _check_names(model_type: str, values: Mapping[str, Any]) -> None:
    kind = type(AutoConfig.for_model(model_type))
    known = {entry.name for entry in fields(kind)} | set(kind.attribute_map)
    if "rope_parameters" in known:
        known |= _ROTARY
    expected = f"the fields of {kind.__name__}"
    hint = f"See the documentation of {kind.__name__}."
    faults = [
        Fault(f"{_WHERE}.{name}", f"is no field of {model_type} (got {name!r})", expected, nearest(name, known) or hint)
        for name in values
        if name not in known
    ]
    if faults:
        raise InputError(faults)
