"""Steps of every loss and alignment plugin, on tiny models: what ``simulated_device.py`` runs."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from mta_framework import AlignmentTerm, BaseLoss, ImportanceEstimator, PluginParams
from mta_framework.alignment.objective import Alignment, WeightedTerm
from mta_framework.data.batches import collate
from mta_framework.models.lora import add_lora
from mta_framework.models.teacher_states import Teacher
from mta_framework.registry import Registry, discover
from mta_framework.spec.student import LoraSection
from mta_framework.testing import random_example
from mta_framework.testing.values import VOCABULARY
from mta_framework.training.distiller import Distiller
from mta_framework.types import Batch, Example, LayerPair, ModelShape

BASE_LOSSES, TERMS, ESTIMATORS = FAMILIES = ("base_losses", "alignment_terms", "importance_estimators")
SHAPE = ModelShape(3, 8)
"""Depth and width of both models."""

_PAIRS = (LayerPair(1, 1, "words"), LayerPair(2, 2, "words"), LayerPair(3, 3, "phrases"))
_DEFAULT_TERMS: dict[str, dict[str, Any]] = {"dsa": {}, "hid": {}}
_LATER_STATES = {"distillm2": {"teacher": [0.1] * 10, "student": [0.1] * 10}}
"""States of losses after some steps, from which on they compute more."""


@dataclass(frozen=True)
class Case:
    """A plugin with one choice of options, in a training step.

    Args:
        family: Family of the plugin.
        plugin: Name of the plugin.
        options: Options that are not the default.
        aligned: Whether alignment terms are added to the base loss.
        shared_tokenizer: Whether student and teacher have the same tokens.
    """

    family: str
    plugin: str
    options: Mapping[str, Any]
    aligned: bool
    shared_tokenizer: bool

    def __str__(self) -> str:
        options = [f"{name}={value}" for name, value in self.options.items()]
        parts = [*options, *(["MTA"] if self.aligned else []), *([] if self.shared_tokenizer else ["two tokenizers"])]
        return f"{self.plugin} ({', '.join(parts)})" if parts else self.plugin


@cache
def registry() -> Registry:
    """The installed plugins."""
    return discover()


def cases(family: str, plugin: str) -> Iterator[Case]:
    """All choices of one plugin's options, one option at a time, and of tokenizers; without and with alignment."""
    for options in _choices(registry().families[family][plugin][0].plugin.Params):
        made = registry().create(family, plugin, options)
        aligned, sides = (True,), (True, False)
        if isinstance(made, BaseLoss):
            aligned = (True,) if made.NEEDS_ALIGNMENT else (False,) if options else (False, True)
            sides = (True,) if made.NEEDS_SHARED_VOCABULARY else sides
        elif isinstance(made, AlignmentTerm) and made.needs_shared_tokenizer:
            sides = (True,)
        yield from (Case(family, plugin, options, on, shared) for on in aligned for shared in sides)


def _choices(params: type[PluginParams]) -> Iterator[dict[str, Any]]:
    """The defaults, and every other value of each option that chooses between a few."""
    yield {}
    for name, entry in params.model_fields.items():
        for value in _values(entry.annotation):
            if value != entry.default:
                yield {name: value}


def _values(annotation: Any) -> Sequence[Any]:
    if annotation is bool:
        return (False, True)
    if typing.get_origin(annotation) is typing.Literal:
        return typing.get_args(annotation)
    is_optional_count = typing.get_origin(annotation) is types.UnionType and int in typing.get_args(annotation)
    return (2,) if is_optional_count else ()


def model(adapters: bool = False) -> nn.Module:
    """A tiny GPT-2 of random weights, without dropout."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"n_embd": SHAPE.hidden_size, "n_layer": SHAPE.num_layers, "n_head": 2, "n_positions": 32}
    ends: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": 0}
    chances: dict[str, Any] = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    config = GPT2Config(vocab_size=VOCABULARY, activation_function="gelu", **sizes, **ends, **chances)
    whole = GPT2LMHeadModel(config)
    return add_lora(whole, LoraSection(rank=2)) if adapters else whole


def alignment_of(case: Case) -> Alignment | None:
    """The alignment of a case: its term or its estimator, and the default ones."""
    if not case.aligned:
        return None
    chosen = {case.plugin: case.options} if case.family == TERMS else _DEFAULT_TERMS
    terms = [WeightedTerm(registry().create(TERMS, name, options), 1.0) for name, options in chosen.items()]
    ids = torch.arange(VOCABULARY)
    shared = None if case.shared_tokenizer else (ids[1:], ids.flip(0)[1:])
    return Alignment(_PAIRS, importance_of(case), terms, SHAPE, SHAPE, shared_vocabulary=shared)


def importance_of(case: Case) -> ImportanceEstimator:
    """The estimator of a case, or the default one."""
    weigh = (case.plugin, case.options) if case.family == ESTIMATORS else ("attention", {})
    importance: ImportanceEstimator = registry().create(ESTIMATORS, *weigh)
    return importance


def distiller_of(case: Case, student: nn.Module, teacher: Teacher, alignment: Alignment | None) -> Distiller:
    """The module that a run of the case trains; the base loss is ``none`` where another plugin is the matter."""
    name, options = (case.plugin, case.options) if case.family == BASE_LOSSES else ("none", {})
    loss: BaseLoss = registry().create(BASE_LOSSES, name, options)
    if case.plugin in _LATER_STATES:
        loss.restore(_LATER_STATES[case.plugin])
    reads_teacher = teacher if case.aligned or loss.NEEDS_TEACHER else None
    pairs = _PAIRS if case.aligned else ()
    return Distiller(student, reads_teacher, loss, alignment, pairs, loss.key_layers(SHAPE, SHAPE))


def batch_of(case: Case) -> Batch:
    """The texts of a case as a micro-batch."""
    return collate(texts_of(case), 0, ("words", "phrases"))


def texts_of(case: Case) -> list[Example]:
    """Four texts with words and phrases; two are responses of the student, whose log-probabilities are known.

    One has no response, and one several answers. Two begin with the same tokens.
    """
    texts = [_text(length, seed) for seed, length in enumerate((24, 21, 17, 6))]
    ids = texts[1].input_ids.copy()
    ids[:5] = texts[0].input_ids[:5]
    texts[1] = replace(texts[1], input_ids=ids)
    if not case.shared_tokenizer:
        texts = [_retokenised(text) for text in texts]
    return texts


def _text(length: int, seed: int) -> Example:
    spans = {
        "words": [(start, start + 1) for start in range(1, length - 1, 2)],
        "phrases": [(start, start + 3) for start in range(2, length - 3, 4)],
    }
    written = np.linspace(-2, -1, length - 6).tolist() if seed % 2 else None
    gap = (10, 12) if seed == 0 else None
    return random_example(length, 6, seed=seed, spans=spans, by_student=seed % 2 == 1, gap=gap, log_probs=written)


def _retokenised(text: Example) -> Example:
    """The text with the teacher's tokens: one more at the beginning."""
    length = len(text.input_ids)
    spans = {name: (ranges_K2 + 1).tolist() for name, ranges_K2 in text.spans.items()}
    teacher = random_example(length + 1, text.prompt_length + 1, seed=length, spans=spans)
    supervised = np.arange(text.prompt_length, length)
    if text.supervised_T is not None:
        supervised = np.flatnonzero(text.supervised_T)
    matched_R2 = np.stack([supervised, supervised + 1], axis=1).astype(np.int32)
    return replace(text, teacher=teacher, matched_R2=matched_R2)
