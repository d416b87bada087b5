"""Compares the layers of two models by their span vectors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from mta_framework.alignment.importance import span_vectors
from mta_framework.alignment.linear_cka import Rows, linear_cka
from mta_framework.models.state_reader import StateReader, shape_of
from mta_framework.types import Batch, LayerSimilarity

_MOST_SPANS = 256
"""Most spans of a batch that are compared: their square is held in memory for each layer of both models."""


@torch.no_grad()
def layer_similarity(
    student: nn.Module, teacher: nn.Module, batches: Iterable[Batch], granularities: Sequence[str]
) -> LayerSimilarity:
    """Compute the linear CKA of all layers of two models on the span vectors of some texts.

    A span vector is the plain mean over the tokens of a span, normalised: DSA compares directions too, and a few tokens
    of most models have states so long that nothing else would count.

    Args:
        student: Student model. It is moved to the teacher's device, runs in evaluation mode and in its own dtype, and
            is left in the mode that it was in.
        teacher: Frozen teacher model.
        batches: Batches on any device, each a minibatch of the estimator, with the spans of ``granularities`` (for both
            models where tokenizers differ). Of a batch with more than 256 spans, 256 spread over it are compared.
        granularities: Granularities of the compared spans.

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
        both = batch, batch.teacher or batch
        student, teacher = (_rows(reader, tokens, granularities) for reader, tokens in zip(readers, both, strict=True))
        yield student, teacher


def _rows(reader: StateReader, batch: Batch, granularities: Sequence[str]) -> list[Tensor]:
    layers = reader.read(batch.input_ids_BT, batch.attention_mask_BT).layers
    weight = batch.attention_mask_BT.flatten().float()
    indices = [batch.spans[name] for name in granularities]
    total = sum(len(index.text_S) for index in indices)
    kept = torch.linspace(0, total - 1, min(total, _MOST_SPANS), dtype=torch.float64).round().long()
    rows = []
    for layer in sorted(layers):
        vector_SD = torch.cat([span_vectors(layers[layer], weight, index) for index in indices]).cpu()[kept]
        rows.append(functional.normalize(vector_SD, dim=-1))
    return rows
