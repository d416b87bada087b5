"""Compares the layers of two models by what they make of spans."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from mta_framework.alignment.cka import Rows, linear_cka
from mta_framework.alignment.pooling import span_vectors
from mta_framework.models.states import StateReader, shape_of
from mta_framework.types import Batch, LayerSimilarity

_MOST = 256
"""Spans of a batch that are compared, at the most: as many squared are held for each layer of both models."""


@torch.no_grad()
def layer_similarity(
    student: nn.Module, teacher: nn.Module, batches: Iterable[Batch], granularities: Sequence[str]
) -> LayerSimilarity:
    """Linear CKA of all layers, each batch a minibatch of its estimator.

    Args:
        student: Is moved to the teacher's device; runs without dropout, in its own dtype, and is left in the mode that
            it was in.
        teacher: Frozen.
        batches: On any device, with the spans of ``granularities``, on both sides where tokenizers differ.
        granularities: What is compared: the directions of the plain means over the tokens of each span; where a batch
            has very many spans, some from all over it. Directions, since these are what DSA compares, and since a few
            tokens of most models have states so long that nothing else would count.

    Raises:
        InputError: No batch has enough spans.
    """
    device, training = next(teacher.parameters()).device, student.training
    student.to(device).eval()
    readers = [StateReader(model, range(1, shape_of(model).num_layers + 1)) for model in (student, teacher)]
    try:
        return linear_cka(_minibatches(readers, batches, granularities, device))
    finally:
        student.train(training)
        for reader in readers:
            reader.close()


def _minibatches(
    readers: Sequence[StateReader], batches: Iterable[Batch], granularities: Sequence[str], device: torch.device
) -> Iterator[tuple[Rows, Rows]]:
    for batch in (batch.to(device) for batch in batches):
        sides = batch, batch.teacher or batch
        student, teacher = (_rows(reader, side, granularities) for reader, side in zip(readers, sides, strict=True))
        yield student, teacher


def _rows(reader: StateReader, batch: Batch, granularities: Sequence[str]) -> list[Tensor]:
    layers = reader.read(batch.input_ids_BT, batch.attention_mask_BT).layers
    weight = batch.attention_mask_BT.flatten().float()
    indices = [batch.spans[name] for name in granularities]
    total = sum(len(index.text_S) for index in indices)
    kept = torch.linspace(0, total - 1, min(total, _MOST), dtype=torch.float64).round().long()
    found = []
    for layer in sorted(layers):
        vector_SD = torch.cat([span_vectors(layers[layer], weight, index) for index in indices]).cpu()[kept]
        found.append(functional.normalize(vector_SD, dim=-1))
    return found
