"""What each loss term pulls at during a training: its value, and its gradient beside that of the base loss.

    python benchmarks/term_gradients.py examples/quickstart/student.json [--set seed=2] [--observe]

Trains as the spec says. At every validation, the gradient of each term with respect to the weights of the student is
computed on the first texts of the validation set, as one batch. Printed by step and term:

- the term's value without its weight,
- the norm of its gradient, weight included, divided by that of the base loss's gradient,
- the cosine between the two gradients: at 0 the term pulls at what the base loss does not determine, at 1 it adds
  nothing but length.

With ``--observe`` the terms are measured, and train nothing: their weights are divided by 1e9 in training. The
projections of ``hid`` stay as they were initialised then.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from mta_framework.errors import MTAError
from mta_framework.registry import discover
from mta_framework.runs import pipeline
from mta_framework.runs.build import span_cache_folder
from mta_framework.runs.plugin_binding import bind
from mta_framework.training.distiller import Distiller
from mta_framework.training.trainer import DistillationTrainer
from mta_framework.types import Batch, Progress

BASE = "base loss"
_UNTRAINED = 1e-9


@dataclass(frozen=True)
class Pull:
    """A term at one step.

    Args:
        value: Value of the term without its weight, of one per key layer the mean by weight; the base loss as it is.
        share: Norm of the weighted term's gradient, divided by that of the base loss.
        cosine: Cosine between the two gradients.
    """

    value: float
    share: float
    cosine: float


def pulls(distiller: Distiller, batch: Batch, progress: Progress, terms: Mapping[str, float]) -> dict[str, Pull]:
    """Compare the gradients of the alignment's terms with that of the base loss; ``.grad`` is left as it is.

    Args:
        distiller: Student, teacher and losses.
        batch: Texts on the device of the models.
        progress: Finished steps.
        terms: Factor for the gradient of each term of the alignment, by name.
    """
    weights = [parameter for parameter in distiller.student.parameters() if parameter.requires_grad]
    totals: dict[str, Tensor] = {}
    factors: dict[str, float] = defaultdict(float)
    for term in distiller(batch, progress):
        name = term.name if term.name in terms else BASE
        totals[name] = totals.get(name, 0.0) + term.weight * term.sum / max(batch.counts[term.unit], 1)
        factors[name] += term.weight
    gradients = {name: _gradient(total, weights) for name, total in totals.items()}
    base = gradients[BASE]
    return {
        name: Pull(
            float(totals[name].detach()) / (1.0 if name == BASE else factors[name]),
            float(gradient.norm() / base.norm()) * terms.get(name, 1.0),
            float(cosine_similarity(gradient, base, dim=0)),
        )
        for name, gradient in gradients.items()
    }


def _gradient(total: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """The gradient with respect to all weights, as one vector."""
    parts = torch.autograd.grad(total, weights, retain_graph=True, materialize_grads=True)
    return torch.cat([part.flatten() for part in parts])


def measure(
    path: Path, overrides: Sequence[str], texts: int, observe: bool, show: Callable[[int, dict[str, Pull]], None]
) -> None:
    """Train as the spec says, in a folder that is removed.

    Args:
        path: The spec.
        overrides: What is set in it, as ``FIELD=VALUE``.
        texts: Number of validation texts.
        observe: Whether the terms train nothing.
        show: Called at each validation with the step and the terms.
    """
    registry = discover()
    spec = bind(path, registry, overrides).spec
    section = spec.alignment
    lacks = {
        "alignment": section is None,
        "a base loss of its own": spec.base_loss.name == "none",
        "a validation set": spec.data.validation is None,
        "one teacher alone": bool(spec.teachers),
    }
    if section is None or any(lacks.values()):
        raise SystemExit(f"{path}: needs {', '.join(name for name, is_lacking in lacks.items() if is_lacking)}.")
    factors = {term.name: 1 / _UNTRAINED if observe else 1.0 for term in section.terms}
    terms = [{**term.model_dump(), "weight": term.weight / factors[term.name]} for term in section.terms]
    validate = DistillationTrainer.evaluate

    def evaluate(trainer: DistillationTrainer, *args: Any, **options: Any) -> Any:
        metrics = validate(trainer, *args, **options)
        trainer.distiller.eval()
        batch = trainer._data.collator(trainer._data.validation[:texts]).to(trainer.args.device)
        with trainer.accelerator.autocast():
            show(trainer.state.global_step, pulls(trainer.distiller, batch, trainer._progress(), factors))
        trainer.distiller.train()
        return metrics

    with tempfile.TemporaryDirectory() as folder, mock.patch.object(DistillationTrainer, "evaluate", evaluate):
        cache = str(span_cache_folder(spec))
        fixed = {"output_dir": folder, "data.cache_dir": cache, "evaluation": None, "alignment.terms": terms}
        overrides = [*overrides, *(f"{field}={json.dumps(value)}" for field, value in fixed.items())]
        pipeline.run(bind(path, registry, overrides))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spec", type=Path, help="spec of a run with alignment and validation")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--texts", type=int, default=32, help="validation texts of the batch")
    parser.add_argument("--observe", action="store_true", help="measure the terms without training on them")
    command = parser.parse_args()
    print("| step | term | value | gradient / base loss's | cosine |", "|---|---|---|---|---|", sep="\n")
    try:
        measure(command.spec, command.overrides, command.texts, command.observe, _print_rows)
    except MTAError as error:
        raise SystemExit(str(error)) from error


def _print_rows(step: int, terms: Mapping[str, Pull]) -> None:
    for name, pull in terms.items():
        print(f"| {step} | {name} | {pull.value:.4f} | {pull.share:.4f} | {pull.cosine:+.3f} |", flush=True)


if __name__ == "__main__":
    main()
