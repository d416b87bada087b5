"""One model's side of a key layer, by its states; everything is computed when it is first read."""

from __future__ import annotations

from functools import cached_property
from typing import Protocol

from torch import Tensor

from mta_framework.alignment.importance import span_vectors, span_weights, upcast
from mta_framework.alignment.pairwise_cosines import VectorGeometry, directions
from mta_framework.alignment.unchanged_inputs import lazy_tensor
from mta_framework.errors import RunError
from mta_framework.interfaces import SpanCosines
from mta_framework.types import FinalLayers, Head, LayerPair, SpanIndex, States


class Weights(Protocol):
    """Token weights of one micro-batch: computed (``TokenWeights``), or kept (``RecordedTokenWeights``)."""

    def at(self, layer: int, index: SpanIndex) -> Tensor:
        """Flat weights at a 1-based layer, (B * T,), that sum to 1 over the memberships of each text."""


class ModelLayer:
    """One model's side of a key layer; implements ``StudentLayer``.

    Args:
        states: States of the model.
        layer: 1-based layer of the model.
        index: Spans in the model's tokens.
        pooling: Token weights that pool the model's states to span vectors.
    """

    def __init__(self, states: States, layer: int, index: SpanIndex, pooling: Weights):
        self.index = index
        self._states = states
        self._layer = layer
        self._pooling = pooling

    @property
    def hidden_BTD(self) -> Tensor:
        """Hidden states of all tokens."""
        return self._states.layers[self._layer]

    @lazy_tensor
    def span_token_UD(self) -> Tensor:
        """States of the distinct tokens of spans."""
        return upcast(self.hidden_BTD.flatten(0, 1).index_select(0, self.index.token_U))

    @lazy_tensor
    def span_vector_SD(self) -> Tensor:
        """Span vectors, pooled by token weights."""
        return span_vectors(self.hidden_BTD, self._pooling.at(self._layer, self.index), self.index)

    @property
    def head(self) -> Head:
        """Head of the model."""
        return self._states.head

    @property
    def final_layers(self) -> FinalLayers:
        """Modules before the head."""
        assert self._states.final_layers is not None
        return self._states.final_layers


class LiveTeacherLayer(ModelLayer):
    """The teacher's side of a key layer, by the states of a teacher that was just run; implements ``TeacherLayer``.

    Args:
        states: States of the teacher; no gradient. They may be inference tensors.
        pair: The key layer.
        index: Spans in the teacher's tokens.
        pooling: Token weights that pool the teacher's states to span vectors.
        importance: Token weights by the teacher's states that weigh tokens and spans.
        previous: The side of the key layer of the same granularity below; None at the lowest.
    """

    def __init__(
        self,
        states: States,
        pair: LayerPair,
        index: SpanIndex,
        pooling: Weights,
        importance: Weights,
        previous: LiveTeacherLayer | None,
    ):
        super().__init__(states, pair.teacher, index, pooling)
        self.pair = pair
        self._importance = importance
        self._previous = previous

    @lazy_tensor
    def _token_weight(self) -> Tensor:
        """Flat token weights, (B * T,)."""
        return self._importance.at(self._layer, self.index)

    @property
    def normalised_weight_U(self) -> Tensor:
        """Weights of the distinct tokens of spans, each once."""
        return self._token_weight[self.index.token_U]

    @lazy_tensor
    def token_weight_U(self) -> Tensor:
        """Weights of the distinct tokens of spans, times the number of their spans."""
        return self.normalised_weight_U * self.index.multiplicity_U

    @lazy_tensor
    def span_weight_S(self) -> Tensor:
        """Weights of spans."""
        return span_weights(self._token_weight, self.index)

    @cached_property
    def geometry(self) -> SpanCosines:
        """Cosines between the span vectors of each text."""
        return VectorGeometry(self.span_vector_SD)

    @cached_property
    def change_geometry(self) -> SpanCosines:
        """Cosines between the changes of the directions of spans from the previous key layer to this one."""
        if self._previous is None:
            raise RunError("change_geometry does not exist at the lowest key layer of a granularity")
        return self._changes_since(self._previous)

    def _changes_since(self, previous: LiveTeacherLayer) -> SpanCosines:
        return VectorGeometry(directions(self.span_vector_SD) - directions(previous.span_vector_SD))
