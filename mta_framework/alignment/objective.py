"""The alignment loss that MTA adds to a base loss: the sum of its terms over the key layers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mta_framework.alignment.importance import CheckedImportance
from mta_framework.alignment.key_layer import LayerSides, SharedVocabulary, VisibleKeyLayer, layer_sides
from mta_framework.alignment.unchanged_inputs import unchanged_inputs
from mta_framework.errors import RunError, as_plugin_error, faults_at
from mta_framework.interfaces import AlignmentTerm, ImportanceEstimator
from mta_framework.types import Batch, LayerPair, LossTerm, LossTerms, ModelShape, States


@dataclass(frozen=True)
class WeightedTerm:
    """An alignment term with its weight in the loss.

    Args:
        term: The term.
        weight: Factor of its mean (or sum, see ``AlignmentTerm.divisor``) over key layers.
    """

    term: AlignmentTerm
    weight: float


class Alignment(nn.Module):
    """MTA's alignment loss: the weighted sum of alignment terms; its only parameters are theirs.

    Args:
        pairs: Key layers.
        importance: Estimator of token weights, called with each model's own states unless it is ``BY_TEACHER``.
        terms: Terms of the loss, of different names.
        student: Depth and width of the student.
        teacher: Depth and width of the teacher.
        pooling: Estimator of the token weights that pool states to span vectors; None: ``importance``.
        shared_vocabulary: Ids of the tokens that both vocabularies have: the student's and the teacher's, int64; None
            where an id means the same token to both models.

    Raises:
        ValueError: A term cannot be computed with these key layers or models.

    Source: MTA (arXiv 2605.01374v2), Eq. 14.
    """

    def __init__(
        self,
        pairs: Sequence[LayerPair],
        importance: ImportanceEstimator,
        terms: Sequence[WeightedTerm],
        student: ModelShape,
        teacher: ModelShape,
        pooling: ImportanceEstimator | None = None,
        shared_vocabulary: SharedVocabulary | None = None,
    ):
        super().__init__()
        self.pairs = tuple(pairs)
        self._importance = CheckedImportance(importance)
        self._pooling = self._importance if pooling is None else CheckedImportance(pooling)
        self.terms = tuple(PlacedTerm(entry, self.pairs) for entry in terms)
        self.term_modules = nn.ModuleDict()
        """Name of a term -> its modules, one for each of its key layers; without terms that have none."""
        for placed in self.terms:
            made = [placed.term.make_module(student, teacher) for _ in placed.key_layers]
            if modules := [module for module in made if module is not None]:
                if len(set(modules)) < len(made):
                    raise RunError(f"{placed.label} must make a new module for each key layer, or none at all")
                self.term_modules[placed.term.NAME] = nn.ModuleList(modules)
        student_ids, teacher_ids = shared_vocabulary or (None, None)
        self._student_ids: Tensor | None
        self._teacher_ids: Tensor | None
        self.register_buffer("_student_ids", student_ids, persistent=False)
        self.register_buffer("_teacher_ids", teacher_ids, persistent=False)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the terms, under which they are logged."""
        return tuple(placed.term.NAME for placed in self.terms)

    def forward(self, student: States, teacher: States, batch: Batch) -> LossTerms:
        """Compute all terms on one micro-batch.

        Args:
            student: The student's states, its key layers included; they get gradients.
            teacher: The teacher's states, its key layers included; no gradient. They may be inference tensors.
            batch: Micro-batch with the spans of every granularity of the pairs.

        Returns:
            For each key layer one loss term of every alignment term that is computed there, as a sum over texts. A text
            without spans adds nothing; every parameter gets a gradient in any case, if only zeros.

        Raises:
            RunError: A term or an importance estimator failed or broke its contract.
        """
        return tuple(
            self._loss_term(placed, layer)
            for layer in self._layers(student, teacher, batch)
            for placed in self.terms
            if layer.pair in placed.key_layers
        )

    def _layers(self, student: States, teacher: States, batch: Batch) -> list[LayerSides]:
        return layer_sides(self.pairs, student, teacher, batch, self._pooling, self._importance)

    def _loss_term(self, placed: PlacedTerm, layer: LayerSides) -> LossTerm:
        term, shared = placed.term, {"student": vars(layer.student), "teacher": vars(layer.teacher)}
        with as_plugin_error(placed.label), unchanged_inputs(placed.label, batch=layer.batch, **shared):
            total = term.compute(self._visible(placed, layer), self._module(placed, layer.pair))
            return LossTerm(term.NAME, total, term.unit(layer.pair.granularity), placed.weight)

    @torch.no_grad()
    def fit(self, placed: PlacedTerm, texts: Iterable[tuple[States, States, Batch]]) -> None:
        """Fit a term: see ``AlignmentTerm.collect``.

        Args:
            placed: One of ``terms``.
            texts: Micro-batches, each after the student's and the teacher's states on it.

        Raises:
            InputError: It cannot be fitted on these texts.
            RunError: The term or the importance estimator failed.
        """
        for states in texts:
            for layer in self._layers(*states):
                if layer.pair in placed.key_layers:
                    with as_plugin_error(placed.label):
                        placed.term.collect(self._visible(placed, layer), self._module(placed, layer.pair))
        for pair in placed.key_layers:
            with as_plugin_error(placed.label), faults_at(f"alignment.terms.{self.terms.index(placed)}"):
                placed.term.fit(self._module(placed, pair))

    def _visible(self, placed: PlacedTerm, layer: LayerSides) -> VisibleKeyLayer:
        needs = placed.term.teacher_needs(layer.batch.teacher is None)
        token_ids = self._student_ids, self._teacher_ids
        shared = None if token_ids[0] is None or token_ids[1] is None else (token_ids[0], token_ids[1])
        return layer.visible_to(needs, placed.key_layers, placed.label, shared)

    def _module(self, placed: PlacedTerm, pair: LayerPair) -> nn.Module | None:
        if placed.term.NAME not in self.term_modules:
            return None
        return list(self.term_modules[placed.term.NAME].children())[placed.key_layers.index(pair)]

    def require_gradients(self) -> None:
        """Check after a backward pass that the parameters of all terms have gradients, be they zeros.

        Raises:
            RunError: Some have none: they would stay as they were initialised.
        """
        for placed in self.terms:
            for pair in placed.key_layers:
                if names := _without_gradient(self._module(placed, pair)):
                    problem = f"gives {', '.join(map(repr, names))} of its module at key layer {pair} no gradient"
                    raise RunError(f"{placed.label} {problem}; expected one for every parameter, be it 0")

    @torch.no_grad()
    def span_vectors(self, student: States, teacher: States, batch: Batch) -> list[tuple[Tensor, Tensor]]:
        """Compute the span vectors of both models, without gradient, for each key layer.

        Args:
            student: The student's states, as for ``forward``.
            teacher: The teacher's states, as for ``forward``.
            batch: Micro-batch with spans; unsound weights on it are not recorded for ``fault``.

        Returns:
            The student's and the teacher's vector_SD of each key layer.
        """
        pooling = CheckedImportance(self._pooling.estimator)
        layers = layer_sides(self.pairs, student, teacher, batch, pooling, pooling)
        return [(layer.student.span_vector_SD, layer.teacher.span_vector_SD) for layer in layers]

    def fault(self) -> str | None:
        """Describe the first unsound weight of an importance estimator in a sentence; None if there was none."""
        return self._pooling.fault() or self._importance.fault()


class PlacedTerm:
    """A term, the key layers at which it is computed, its factor there, and its name in messages.

    Args:
        entry: The term with its weight.
        pairs: Key layers of the alignment.
    """

    def __init__(self, entry: WeightedTerm, pairs: tuple[LayerPair, ...]):
        self.term = entry.term
        self.key_layers = tuple(entry.term.key_layers(pairs))
        self.weight = entry.weight / entry.term.divisor(len(self.key_layers))
        self.label = f"alignment term {entry.term.NAME!r}"


def _without_gradient(module: nn.Module | None) -> list[str]:
    parameters = () if module is None else module.named_parameters()
    return [name for name, value in parameters if value.requires_grad and value.grad is None]
