"""The models that an evaluation compares: those of a run, or one by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from mta_framework.distributed import run_on_main
from mta_framework.evaluation.evaluate import Candidate, EvaluationSet
from mta_framework.generation.engine import SavedModel
from mta_framework.models.evaluated import EvaluatedModel
from mta_framework.models.fingerprint import Content, evaluated_fingerprint, fingerprints, model_content
from mta_framework.models.run_models import RunModels
from mta_framework.runs.folder import RunFolder
from mta_framework.runs.preparation import RunInputs
from mta_framework.spec.evaluation_spec import EvaluationSpec
from mta_framework.spec.run import RunSpec
from mta_framework.spec.several_teachers import teacher_field
from mta_framework.spec.training import DTYPE_OF_PRECISION


def models_of_run(
    spec: RunSpec, inputs: RunInputs, run_models: RunModels, known: Mapping[str, Content]
) -> list[Candidate]:
    """The models that ``evaluation.models`` names, in its order.

    Args:
        spec: Spec of a run whose student is trained.
        inputs: What was prepared for the run.
        run_models: Loads the models.
        known: Content of the inputs by dotted field, on the main process.
    """
    folder, tokenizer = RunFolder.of(spec).student, run_models.tokenizer
    prints = run_on_main(lambda: fingerprints(spec, known, model_content(folder)))
    loaders: dict[str, Callable[[], Any]] = {
        "student": partial(run_models.exported_student, folder),
        "initial_student": run_models.initial_student,
    }
    tokenizers, ends, sets = {}, {}, {}
    for name, view in inputs.views().items():
        models, field = run_models.views()[name], teacher_field(name)
        loaders[field] = partial(models.teacher, "evaluating the teacher")
        tokenizers[field] = models.teacher_tokenizer or tokenizer
        ends[field] = models.teacher_turn_end or run_models.turn_end
        sets[field] = view.teacher_sets
    saved = {}
    if not spec.student.exports_adapters:
        saved["student"] = SavedModel(folder, DTYPE_OF_PRECISION[spec.training.precision])
    return [
        Candidate(
            name,
            prints[name],
            tokenizers.get(name, tokenizer),
            ends.get(name, run_models.turn_end).stop_ids,
            loaders[name],
            sets.get(name, inputs.sets),
            saved.get(name),
        )
        for name in (spec.evaluation.models if spec.evaluation else [])
    ]


def evaluated_model(
    spec: EvaluationSpec, model: EvaluatedModel, sets: Sequence[EvaluationSet], known: Mapping[str, Content]
) -> Candidate:
    """The one model of an evaluation by itself; arguments as for ``models_of_run``."""
    fingerprint = run_on_main(lambda: evaluated_fingerprint(spec, known))
    saved = SavedModel(model.folder, spec.model.dtype) if model.folder else None
    stop_ids = model.turn_end.stop_ids
    return Candidate(spec.name, fingerprint, model.tokenizer, stop_ids, model.load, sets, saved)
