"""Key layers on one micro-batch, as alignment terms see them; everything is computed when it is first read."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from mta_framework.alignment.importance import CheckedImportance, TokenWeights
from mta_framework.alignment.model_layer import LiveTeacherLayer, ModelLayer, Weights
from mta_framework.alignment.recorded_layer import RecordedTeacherLayer, RecordedTokenWeights
from mta_framework.errors import RunError
from mta_framework.interfaces import TeacherLayer, TeacherNeed
from mta_framework.types import Batch, LayerPair, States

SharedVocabulary = tuple[Tensor, Tensor]
"""Ids of the tokens that two vocabularies have, int64: the student's and, in the same order, the teacher's."""

_NEED_OF: dict[str, TeacherNeed | None] = {
    "index": None,
    "hidden_BTD": "states",
    "span_token_UD": "span_tokens",
    "span_vector_SD": "span_vectors",
    "token_weight_U": "token_weights",
    "span_weight_S": "span_weights",
    "geometry": "geometry",
    "change_geometry": "change_geometry",
    "head": "head",
    "final_layers": "head",
}
"""Attribute of ``TeacherLayer`` -> what a term has to declare before it reads it; None: nothing."""


class _DeclaredTeacherLayer:
    """A teacher's side that refuses what its term has not declared, and computes everything without gradient."""

    def __init__(self, layer: LiveTeacherLayer, needs: Collection[TeacherNeed], label: str):
        self._layer = layer
        self._needs = needs
        self._label = label

    def __getattr__(self, name: str) -> Any:
        if name not in _NEED_OF:
            raise AttributeError(f"{self._label} may read of the teacher what TeacherLayer has (got {name!r})")
        need = _NEED_OF[name]
        if need is not None and need not in self._needs:
            declared = ", ".join(map(repr, self._needs)) or "nothing"
            raise RunError(f"{self._label} must declare {need!r} to read {name} of the teacher (got {declared})")
        with torch.no_grad():
            return getattr(self._layer, name)


@dataclass(frozen=True)
class VisibleKeyLayer:
    """A key layer as one term sees it; implements ``KeyLayer``.

    Args:
        pair: Layers of student and teacher, and the granularity of their spans.
        student: The student's side.
        teacher: The teacher's side, restricted to what the term declared.
        batch: The micro-batch.
        previous: The key layer of the same granularity below; None at the lowest.
        token_ids: What ``shared_vocabulary`` is, but for the check that it is not empty.
    """

    pair: LayerPair
    student: ModelLayer
    teacher: TeacherLayer
    batch: Batch
    previous: VisibleKeyLayer | None
    token_ids: SharedVocabulary | None

    @property
    def shared_vocabulary(self) -> SharedVocabulary | None:
        """Ids of the tokens that both vocabularies have."""
        if self.token_ids is not None and not len(self.token_ids[0]):
            raise RunError("the vocabularies of student and teacher share no token, so that no token can be compared")
        return self.token_ids

    @property
    def has_shared_tokenizer(self) -> bool:
        """Whether both models read the same tokens."""
        return self.batch.teacher is None

    @property
    def spans_per_text(self) -> tuple[int, ...]:
        """Number of spans of each text."""
        return self.teacher.index.spans_per_text


@dataclass(frozen=True)
class LayerSides:
    """Both sides of a key layer on one micro-batch, shared by all terms.

    Args:
        pair: Layers of student and teacher, and the granularity of their spans.
        student: The student's side.
        teacher: The teacher's side.
        batch: The micro-batch.
        previous: Both sides of the key layer of the same granularity below; None at the lowest.
    """

    pair: LayerPair
    student: ModelLayer
    teacher: LiveTeacherLayer
    batch: Batch
    previous: LayerSides | None

    def visible_to(
        self,
        needs: Collection[TeacherNeed],
        key_layers: Collection[LayerPair],
        label: str,
        token_ids: SharedVocabulary | None,
    ) -> VisibleKeyLayer:
        """Restrict the teacher's side to what a term declared.

        Args:
            needs: What it declared.
            key_layers: The key layers at which it is computed; at others it reads nothing of the teacher.
            label: Name of the term in messages.
            token_ids: Ids of the tokens that both vocabularies have; None where they agree.
        """
        declared = needs if self.pair in key_layers else ()
        teacher = cast(TeacherLayer, _DeclaredTeacherLayer(self.teacher, declared, label))
        below = self.previous
        previous = None if below is None else below.visible_to(needs, key_layers, label, token_ids)
        return VisibleKeyLayer(self.pair, self.student, teacher, self.batch, previous, token_ids)


def layer_sides(
    pairs: tuple[LayerPair, ...],
    student: States,
    teacher: States,
    batch: Batch,
    pooling: CheckedImportance,
    importance: CheckedImportance,
) -> list[LayerSides]:
    """Both sides of each key layer, in the order of ``pairs``; nothing is computed yet.

    Args:
        pairs: Key layers.
        student: The student's states.
        teacher: The teacher's states, or what was kept of it (``States.records``); no gradient.
        batch: Micro-batch with the spans of every granularity of the pairs.
        pooling: Estimator of the token weights that pool states to span vectors.
        importance: Estimator of the teacher's token weights that weigh tokens and spans.
    """
    student_pooling, teacher_pooling = token_weights(pooling, student, teacher, batch)
    weights = teacher_pooling if importance is pooling else token_weights(importance, student, teacher, batch)[1]
    sides: dict[LayerPair, LayerSides] = {}
    below: dict[str, LayerSides] = {}
    for pair in sorted(pairs):
        previous = below.get(pair.granularity)
        index, teacher_index = batch.spans[pair.granularity], (batch.teacher or batch).spans[pair.granularity]
        make = LiveTeacherLayer if teacher.records is None else RecordedTeacherLayer
        lower = None if previous is None else previous.teacher
        of_teacher = make(teacher, pair, teacher_index, teacher_pooling, weights, lower)
        of_student = ModelLayer(student, pair.student, index, student_pooling)
        sides[pair] = below[pair.granularity] = LayerSides(pair, of_student, of_teacher, batch, previous)
    return [sides[pair] for pair in pairs]


def token_weights(
    importance: CheckedImportance, student: States, teacher: States, batch: Batch
) -> tuple[Weights, Weights]:
    """Make the token weights of student and teacher, to be computed when they are first needed.

    They are the same object where the estimator is ``BY_TEACHER`` and both models have the same tokens.

    Args:
        importance: Estimator of the weights.
        student: The student's states.
        teacher: The teacher's states, or what was kept of it.
        batch: Micro-batch that both sets of states are of.
    """
    teacher_batch = batch.teacher or batch
    of_teacher: Weights
    if teacher.records is None:
        of_teacher = TokenWeights(importance, teacher, teacher_batch, "teacher", batch.index_B)
    else:
        of_teacher = RecordedTokenWeights(importance, teacher.records, teacher_batch)
    if importance.by_teacher and batch.teacher is None:
        return of_teacher, of_teacher
    return TokenWeights(importance, student, batch, "student", batch.index_B), of_teacher
