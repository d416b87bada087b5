"""Builds what training works with from a bound spec, the models and the data: layers, alignment, batches, rollouts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mta_framework.alignment.layer_similarity import layer_similarity
from mta_framework.alignment.objective import Alignment, WeightedTerm
from mta_framework.alignment.term_fitting import fit_terms
from mta_framework.data.batches import Collator, GroupedSampler
from mta_framework.data.prepare import PreparedData
from mta_framework.data.response_encoding import ResponseEncoder
from mta_framework.distributed import processes, run_on_main
from mta_framework.errors import Fault, InputError, RunError
from mta_framework.generation.engine import Engine
from mta_framework.generation.engines import make_engine
from mta_framework.generation.sampling_settings import Sampling
from mta_framework.interfaces import LayerMapper, MeasuringLayerMapper
from mta_framework.models.run_models import RunModels
from mta_framework.models.state_reader import final_layers_of, shape_of
from mta_framework.models.teacher_states import Teacher
from mta_framework.runs.layer_checks import chosen_pairs, require_integer
from mta_framework.runs.plugin_binding import BoundRun
from mta_framework.runs.validation_answers import max_new_tokens, validation_answers
from mta_framework.spans.cache import SpanCache
from mta_framework.spec.effects import effect_of
from mta_framework.spec.run import RunSpec
from mta_framework.spec.training import DTYPE_OF_PRECISION, GenerationSection
from mta_framework.storage import MANIFEST, add_to_manifest, read_json, write_json
from mta_framework.training.checkpoints import require_intact
from mta_framework.training.rollouts import TrainingRollouts
from mta_framework.training.selection import AnswerScore
from mta_framework.training.train import total_steps
from mta_framework.training.training_data import TrainingData
from mta_framework.types import Batch, Example, LayerPair, LayerSimilarity

_BATCH_TEXTS = 8
"""Texts per batch when layers are compared: the states of all layers of both models are held in memory."""


def alignment(bound: BoundRun, run_models: RunModels, pairs: tuple[LayerPair, ...]) -> Alignment | None:
    """The terms of MTA; None where the spec has no alignment."""
    section, teacher = bound.spec.alignment, run_models.teacher_summary
    if section is None or bound.importance is None or teacher is None:
        return None
    weights = [entry.weight for entry in section.terms]
    terms = [WeightedTerm(term, weight) for term, weight in zip(bound.terms, weights, strict=True)]
    student, shared = run_models.student_summary.shape, None
    if run_models.shared_tokens is not None:
        student_ids, teacher_ids = torch.tensor(run_models.shared_tokens, dtype=torch.int64).reshape(-1, 2).unbind(1)
        shared = student_ids, teacher_ids
    return Alignment(pairs, bound.importance, terms, student, teacher.shape, bound.pooling, shared)


def require_final_norms(aligner: Alignment, teacher_depth: int, student: nn.Module, teacher: Teacher) -> None:
    """Check that the final norm of a model is detected where a term reads its head below its last layer.

    Raises:
        InputError: The terms that would need a norm that is not.
    """
    faults: list[Fault] = []
    for index, placed in enumerate(aligner.terms):
        if "head" not in placed.term.teacher_needs(True):
            continue
        depths = {"student": shape_of(student).num_layers, "teacher": teacher_depth}
        final_layers = {"student": lambda: final_layers_of(student), "teacher": lambda: teacher.final_layers}
        for name, read in final_layers.items():
            depth = depths[name]
            if any(getattr(pair, name) < depth for pair in placed.key_layers) and read().norm is None:
                problem = f"applies the {name}'s head below its last layer, and no final norm is detected in this model"
                expected = f"key layers of which those of this term are the last of the {name} (layer {depth})"
                hint = "Choose such layers in alignment.layers, or leave the term out."
                faults.append(Fault(f"alignment.terms.{index}", problem, expected, hint))
    if faults:
        raise InputError(faults)


def similarity(
    mapper: MeasuringLayerMapper,
    train: Sequence[Example],
    collator: Collator,
    seed: int,
    student: nn.Module,
    teacher: Teacher,
) -> LayerSimilarity:
    """Similarity of all student and teacher layers, on as many random training texts as the mapper asks for."""
    batches = _random_texts(train, collator, seed, mapper.num_texts)
    return layer_similarity(student, teacher.model, batches, mapper.granularities)


def fit_alignment(
    aligner: Alignment,
    train: Sequence[Example],
    collator: Collator,
    seed: int,
    student: nn.Module,
    teacher: Teacher,
    checkpoints: Path,
) -> None:
    """Fit the alignment terms that ask for it, on the main process; all processes get the same buffers.

    Nothing is done for a run that resumes: its checkpoint holds the buffers.
    """
    if not any(placed.term.num_texts for placed in aligner.terms) or require_intact(checkpoints):
        return

    def compute() -> dict[str, torch.Tensor]:
        fit_terms(aligner, student, teacher, partial(_random_texts, train, collator, seed), processes().device)
        return {name: value.cpu() for name, value in aligner.state_dict().items()}

    aligner.load_state_dict(run_on_main(compute))


def sampled_texts(texts: int, seed: int, num_texts: int) -> list[int]:
    """Indices of the texts of a training set that terms are fitted on, or layers compared by."""
    return np.random.default_rng(seed).permutation(texts)[:num_texts].tolist()


def _random_texts(train: Sequence[Example], collator: Collator, seed: int, num_texts: int) -> Iterator[Batch]:
    """Some texts of the training set, the same for each seed."""
    sample = sampled_texts(len(train), seed, num_texts)
    groups = [sample[first : first + _BATCH_TEXTS] for first in range(0, len(sample), _BATCH_TEXTS)]
    return (collator([train[index] for index in group]) for group in groups)


def training_data(
    bound: BoundRun,
    run_models: RunModels,
    data: PreparedData,
    sampler: GroupedSampler,
    student: nn.Module,
    teacher: Teacher | None,
) -> TrainingData:
    """The training data, with the batch policy and rollouts of the base loss where it has any.

    The live teacher is loaded here where it writes responses.
    """
    policy = bound.base_loss.batch_policy()
    section = bound.spec.training.generation
    models: dict[str, nn.Module] = {"student": student}
    if teacher is not None and policy is not None and "teacher" in policy.RESPONDERS:
        models["teacher"] = teacher.model
    engine = None if section is None else _engine(bound, section, run_models, models)
    return TrainingData(
        train=data.train.examples,
        validation=data.validation.examples if data.validation else [],
        sampler=sampler,
        collator=collator_of(bound, run_models),
        policy=policy,
        rollouts=None if policy is None else _rollouts(bound, engine, run_models, data, sampler, models),
        answers=_answers(bound, engine, run_models, student),
        engine=engine,
    )


def collator_of(bound: BoundRun, run_models: RunModels) -> Collator:
    """The collator of a run's texts."""
    granularities = bound.spans.granularities if bound.spans else ()
    teacher_padding = (run_models.teacher_tokenizer or run_models.tokenizer).pad_token_id
    return Collator(run_models.tokenizer.pad_token_id, granularities, teacher_padding)


def _engine(
    bound: BoundRun, section: GenerationSection, run_models: RunModels, models: Mapping[str, nn.Module]
) -> Engine:
    folder, max_length = bound.spec.folder / "engine", bound.spec.data.max_prompt_length + max_new_tokens(bound.spec)
    arguments = section.engine, models, run_models.tokenizer, run_models.turn_end.stop_ids, folder, max_length
    return make_engine(*arguments, keep_log_probs=bound.base_loss.NEEDS_LOG_PROBS)


def _answers(bound: BoundRun, engine: Engine | None, run_models: RunModels, student: nn.Module) -> AnswerScore | None:
    metric = bound.answer_metric
    if metric is None or engine is None:
        return None
    answers = validation_answers(bound.spec, metric, engine, student, run_models.tokenizer, run_models.turn_end)
    return AnswerScore(metric.NAME, metric.HIGHER_IS_BETTER, answers.mean_score)


def _rollouts(
    bound: BoundRun,
    engine: Engine | None,
    run_models: RunModels,
    data: PreparedData,
    sampler: GroupedSampler,
    models: Mapping[str, nn.Module],
) -> TrainingRollouts:
    spec, tokenizer = bound.spec, run_models.tokenizer
    section, dtype = spec.training.generation, DTYPE_OF_PRECISION[spec.training.precision]
    assert section is not None
    assert engine is not None
    longest = max_new_tokens(spec)
    return TrainingRollouts(
        engine,
        models,
        Sampling(temperature=1.0, top_p=1.0, max_new_tokens=longest, batch_tokens=section.batch_tokens),
        ResponseEncoder(tokenizer, data.train.end_id, bound.spans, spec.data.max_length, spec.data.leading_character),
        data.train.examples,
        sampler,
        seed=spec.seed,
        total_steps=total_steps(spec.training, sampler),
        folder=Path(spec.output_dir) / "response-cache",
        settings={
            **_what_responses_depend_on(section),
            "max_new_tokens": longest,
            "stop_ids": run_models.turn_end.stop_ids,
            "precision": spec.training.precision,
            **({"log_probs": True} if bound.base_loss.NEEDS_LOG_PROBS else {}),
        },
        span_cache=SpanCache(span_cache_folder(spec), bound.spans, spec.data.processes) if bound.spans else None,
        autocast=None if dtype == "float32" else getattr(torch, dtype),
    )


def _what_responses_depend_on(section: GenerationSection) -> dict[str, Any]:
    settings = section.model_dump(mode="json")
    return {name: settings[name] for name in settings if effect_of(RunSpec, f"training.generation.{name}") == "weights"}


def span_cache_folder(spec: RunSpec) -> Path:
    """Directory in which parsed spans are kept between runs."""
    return Path(spec.data.cache_dir or Path(spec.output_dir) / "span-cache")


def alignment_layers(mapper: LayerMapper | None, run_models: RunModels) -> tuple[LayerPair, ...]:
    """The key layers of the alignment; empty without alignment.

    Raises:
        InputError: The mapper finds no key layers for these models.
        RunError: The mapper breaks its contract.
    """
    if mapper is None:
        return ()
    student, teacher = run_models.student_summary, run_models.teacher_summary
    assert teacher is not None
    if isinstance(mapper, MeasuringLayerMapper):
        require_integer(mapper.num_texts, f"layer mapper {mapper.NAME!r}: num_texts", 1)
    return chosen_pairs(mapper, run_models, lambda: mapper.map(student.shape, teacher.shape))


def measured_layers(
    mapper: MeasuringLayerMapper, run_models: RunModels, compare: Callable[[], LayerSimilarity], file: Path
) -> tuple[LayerPair, ...]:
    """The key layers of a run whose mapper measures similarity: chosen once, and kept for when the run is resumed.

    Args:
        mapper: Chooses key layers by similarity.
        run_models: The models of the run.
        compare: Measures the similarity of all layers; called on the main process alone.
        file: File of the run folder that keeps measurement and choice.

    Raises:
        InputError: Nothing can be measured, or the mapper finds no key layers.
        RunError: The mapper breaks its contract.
    """

    def choose() -> tuple[LayerPair, ...]:
        if file.is_file():
            return recorded_layers(file)
        similarity = compare()
        pairs = _measured_pairs(mapper, run_models, similarity)
        (file.parent / MANIFEST).unlink(missing_ok=True)  # that of an earlier attempt
        entries = [asdict(pair) | {"cka": similarity.across[pair.student - 1][pair.teacher - 1]} for pair in pairs]
        write_json(file, {"pairs": entries, **asdict(similarity)})
        add_to_manifest(file.parent, file.name)
        listed = ", ".join(f"{pair} (CKA {entry['cka']:.2f})" for pair, entry in zip(pairs, entries, strict=True))
        print(f"Key layers, measured: {listed}")
        return pairs

    return run_on_main(choose)


def chosen_layers(
    mapper: MeasuringLayerMapper, run_models: RunModels, compare: Callable[[], LayerSimilarity]
) -> tuple[LayerPair, ...]:
    """The key layers by a similarity that is measured on the main process; nothing is written to a run folder.

    Raises:
        InputError: Nothing can be measured, or the mapper finds no key layers.
        RunError: The mapper breaks its contract.
    """
    return _measured_pairs(mapper, run_models, run_on_main(compare))


def _measured_pairs(
    mapper: MeasuringLayerMapper, run_models: RunModels, similarity: LayerSimilarity
) -> tuple[LayerPair, ...]:
    pairs = chosen_pairs(mapper, run_models, lambda: mapper.choose(similarity))
    counts = [Counter(pair.granularity for pair in each) for each in (pairs, alignment_layers(mapper, run_models))]
    if counts[0] != counts[1]:
        chosen, planned = (", ".join(f"{count} of {name}" for name, count in sorted(each.items())) for each in counts)
        raise RunError(f"layer mapper {mapper.NAME!r}: choose must return as many pairs as map ({chosen}; {planned})")
    return pairs


def recorded_layers(file: Path) -> tuple[LayerPair, ...]:
    """The key layers that ``measured_layers`` chose."""
    return tuple(LayerPair(pair["student"], pair["teacher"], pair["granularity"]) for pair in read_json(file)["pairs"])
