"""Collects what ``mta spans`` shows: texts of a spec with their spans, tokens and weights, and statistics of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from mta_framework.alignment.importance import CheckedImportance
from mta_framework.data.prompts import Sample, training_samples
from mta_framework.data.records import read_records
from mta_framework.data.tokens import SampleTokenizer
from mta_framework.errors import Fault, FaultList, InputError, RunError, as_plugin_error
from mta_framework.interfaces import ImportanceEstimator, MeasuringLayerMapper, SpanExtractor
from mta_framework.models.run_models import RunModels
from mta_framework.models.state_reader import StateReader
from mta_framework.reporting.annotated_text import AnnotatedText
from mta_framework.reporting.span_statistics import statistics_notes, statistics_table
from mta_framework.runs.build import alignment_layers, recorded_layers, span_cache_folder
from mta_framework.runs.folder import RunFolder
from mta_framework.runs.manifest import export_faults, input_faults
from mta_framework.runs.plugin_binding import BoundRun
from mta_framework.runs.preparation import summarised_models
from mta_framework.spans.cache import SpanCache
from mta_framework.spans.cross_tokenizer import TokenisedText
from mta_framework.spans.extraction import SpanArrays, extract
from mta_framework.spans.field_extraction import Extract, extract_by_field, part_ranges
from mta_framework.tables.table import Table
from mta_framework.types import LayerPair


@dataclass(frozen=True)
class Inspection:
    """The texts to show; a table of their spans or of all spans of the training set, and what it does not say."""

    texts: tuple[AnnotatedText, ...]
    table: Table
    notes: tuple[str, ...]


def inspect(
    bound: BoundRun,
    text: str | None = None,
    limit: int = 5,
    whole: bool = False,
    tokens: bool = False,
    importance: bool = False,
) -> Inspection:
    """Collect the texts of a spec with their spans, and what else is wanted of them.

    Args:
        bound: Spec with an alignment.
        text: Text to show instead of the training set; None: the training set.
        limit: Number of texts of the training set to show, from the first.
        whole: Whether the statistics are over the whole training set instead of the texts shown.
        tokens: Whether to show the token boundaries of the student's tokenizer.
        importance: Whether to show the weights of the tokens, for which the teacher is loaded.

    Raises:
        InputError: The texts cannot be read, or the teacher has not been trained yet.
        RunError: A plugin failed or broke its contract.
    """
    assert bound.spans is not None
    run_models = summarised_models(bound)
    if importance:
        _require_teacher(bound)
    samples = _samples(bound, run_models, None if whole else limit) if text is None else [Sample("", text, (text,))]
    spans, seconds = _parsed(samples[:limit], bound.spans)
    if whole:
        cache = SpanCache(span_cache_folder(bound.spec), bound.spans, bound.spec.data.processes)
        spans = _spans(samples, cache.spans)
        failures = _failures(samples, partial(_cached_failures, cache))
    else:
        with as_plugin_error(f"span extractor {bound.spans.NAME!r}"):
            failures = _failures(samples, bound.spans.failures)
    tokenised: Sequence[TokenisedText | None] = [None] * len(samples)
    if tokens:
        student = SampleTokenizer.of(bound.spec.data, run_models.tokenizer, run_models.turn_end)
        tokenised = student.tokenise(samples)
    weights = _weights(bound, run_models, samples[:limit]) if importance else []
    weights += [{}] * (len(samples) - len(weights))
    texts = [_marked(*parts) for parts in zip(samples, spans, tokenised, weights, strict=True)]
    notes = tuple(statistics_notes(failures, texts[:limit], seconds))
    return Inspection(tuple(texts[:limit]), statistics_table(texts), notes)


def _samples(bound: BoundRun, run_models: RunModels, limit: int | None) -> list[Sample]:
    section = bound.spec.data
    return training_samples(read_records(section.train, "data.train")[:limit], section, run_models.tokenizer)


def _parsed(samples: Sequence[Sample], extractor: SpanExtractor) -> tuple[list[SpanArrays], float]:
    extract(extractor, [""])  # loads its parser, which is left out of the time
    start = time.perf_counter()
    spans = _spans(samples, partial(extract, extractor))
    return spans, time.perf_counter() - start


def _spans(samples: Sequence[Sample], parse: Extract) -> list[SpanArrays]:
    return extract_by_field([sample.text for sample in samples], [sample.boundaries for sample in samples], parse)


def _cached_failures(cache: SpanCache, texts: Sequence[str]) -> list[int]:
    cache.spans(texts)  # cached by now: nothing is parsed again
    return cache.failures


def _failures(samples: Sequence[Sample], count: Callable[[Sequence[str]], list[int]]) -> list[int]:
    cut = [[sample.text[start:end] for start, end in part_ranges(sample.text, sample.boundaries)] for sample in samples]
    distinct = list(dict.fromkeys(piece for some in cut for piece in some))
    counts = dict(zip(distinct, count(distinct), strict=True))
    return [sum(counts[piece] for piece in some) for some in cut]


def _weights(bound: BoundRun, run_models: RunModels, samples: Sequence[Sample]) -> list[Mapping[str, list[float]]]:
    teacher = run_models.teacher("computing importance weights")
    assert teacher is not None
    assert bound.importance is not None
    parts = run_models.separate_teacher or (run_models.tokenizer, run_models.turn_end)
    side = SampleTokenizer.of(bound.spec.data, *parts)
    texts = zip([sample.text for sample in samples], side.tokenise(samples), strict=True)
    return list(character_weights(list(texts), teacher, bound.importance, _pairs(bound, run_models)))


def _pairs(bound: BoundRun, run_models: RunModels) -> tuple[LayerPair, ...]:
    file = RunFolder.of(bound.spec).key_layers
    if not isinstance(bound.layers, MeasuringLayerMapper):
        return alignment_layers(bound.layers, run_models)
    if not file.is_file():
        problem = f"are measured when training starts (got {bound.layers.NAME}, and no {file})"
        hint = "Leave out --importance until the run has begun, or name key layers."
        raise InputError([Fault("alignment.layers", problem, "known key layers with --importance", hint)])
    return recorded_layers(file)


def _require_teacher(bound: BoundRun) -> None:
    if bound.spec.teachers:
        problem = f"are several, of which each weighs tokens in its own way (got {', '.join(bound.spec.teachers)})"
        hint = "Leave out --importance, or name one as teacher by a spec of its own."
        raise InputError([Fault("teachers", problem, "one teacher with --importance", hint)])
    if bound.teacher is not None and not RunFolder.of(bound.teacher.spec).is_trained:
        problem = f"has not been trained yet (got {bound.teacher.path})"
        hint = f"Run it first: mta run {bound.teacher.path}, or leave out --importance."
        raise InputError([Fault("teacher.run", problem, "a trained teacher with --importance", hint)])
    faults = FaultList(input_faults(bound.spec))
    if bound.teacher is not None:
        faults.extend(export_faults(RunFolder.of(bound.teacher.spec)))
    faults.raise_any()


def _marked(
    sample: Sample, spans: SpanArrays, tokenised: TokenisedText | None, weights: Mapping[str, list[float]]
) -> AnnotatedText:
    ranges = {name: [(start, end) for start, end in array.tolist()] for name, array in spans.items()}
    if tokenised is None:
        return AnnotatedText(sample.text, ranges, weights=weights)
    offsets = [(start, end) for start, end in tokenised.offsets.tolist() if start < end]
    return AnnotatedText(sample.text, ranges, offsets, _tokens_in_spans(sample.text, tokenised, spans), weights)


def _tokens_in_spans(text: str, tokenised: TokenisedText, spans: SpanArrays) -> dict[str, int]:
    counts = {}
    for name, token_K2 in tokenised.token_ranges(text, spans).items():
        inside = np.zeros(len(tokenised.offsets), dtype=bool)
        for first, last in token_K2:
            inside[first:last] = True
        counts[name] = int((inside & (tokenised.offsets[:, 1] > tokenised.offsets[:, 0])).sum())
    return counts


@torch.inference_mode()
def character_weights(
    texts: Sequence[tuple[str, TokenisedText]],
    teacher: nn.Module,
    importance: ImportanceEstimator,
    pairs: Sequence[LayerPair],
) -> Iterator[Mapping[str, list[float]]]:
    """Weigh the tokens of each text, and give every character the weight of its token.

    Args:
        texts: Texts with their tokens by the teacher's tokenizer.
        teacher: Model that is run on each text by itself.
        importance: Estimator of the weights.
        pairs: Key layers.

    Yields:
        For each text, granularity -> a weight for each character, from 0 to 1: the mean of the normalised weights over
        the key layers of this granularity, relative to the largest one. Characters without a token have weight 0.

    Raises:
        RunError: The estimator fails or returns unsound weights.
    """
    guard = CheckedImportance(importance)
    reader = StateReader(teacher, {pair.teacher for pair in pairs})
    device = next(teacher.parameters()).device
    for text, tokenised in texts:
        ids_BT = torch.from_numpy(tokenised.ids.astype(np.int64))[None].to(device)
        mask_BT = torch.ones_like(ids_BT)
        states = reader.read(ids_BT, mask_BT)
        totals: dict[str, Tensor] = {}
        for pair in pairs:
            weight_BT = guard.weigh(states, pair.teacher, mask_BT, "teacher").float()
            share_T = weight_BT[0] / weight_BT.sum().clamp_min(1e-30)
            totals[pair.granularity] = totals.get(pair.granularity, 0) + share_T
        if fault := guard.fault():
            raise RunError(fault)
        yield {name: _by_character(text, tokenised, weight_T.cpu().tolist()) for name, weight_T in totals.items()}
    reader.close()


def _by_character(text: str, tokenised: TokenisedText, weights: Sequence[float]) -> list[float]:
    by_character = [0.0] * len(text)
    for (start, end), special, weight in zip(tokenised.offsets.tolist(), tokenised.special, weights, strict=False):
        if not special:
            by_character[start:end] = [weight] * (end - start)
    largest = max(by_character, default=0.0)
    return [weight / largest for weight in by_character] if largest > 0 else by_character
