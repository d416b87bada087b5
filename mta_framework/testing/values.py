"""Texts, batches and hidden states made by hand: what a plugin is called with, without a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mta_framework.data.batches import collate
from mta_framework.types import Batch, Example, FinalLayers, Head, ModelShape, Span, States

VOCABULARY = 11
"""Entries of the vocabulary, small enough to compute all by hand."""


def random_example(
    length: int,
    prompt_length: int,
    *,
    seed: int = 0,
    spans: Mapping[str, Sequence[Span]] | None = None,
    by_student: bool = False,
) -> Example:
    """A text of random tokens.

    Args:
        length: Tokens, prompt included.
        prompt_length: Those that are not supervised.
        seed: Another one gives another text.
        spans: Granularity -> half-open token ranges.
        by_student: Whether the student wrote the response.
    """
    input_ids = np.random.default_rng(seed).integers(0, VOCABULARY, length).astype(np.int32)
    offset_T2 = np.array([[place, place + 1] for place in range(prompt_length)], dtype=np.int32).reshape(-1, 2)
    ranges = {name: np.array(found, dtype=np.int32).reshape(-1, 2) for name, found in (spans or {}).items()}
    return Example(input_ids, prompt_length, ranges, by_student, "p" * prompt_length, offset_T2)


def batch_of(*examples: Example) -> Batch:
    """A micro-batch, as a run makes it: right-padded, with counts and the spans that the texts have."""
    return collate(examples, 0, tuple(examples[0].spans))


def random_states(
    batch: Batch, shape: ModelShape, *, vocabulary: int = VOCABULARY, seed: int = 0, gradient: bool = False
) -> States:
    """Hidden states of all layers of a model that there isn't, with head and tail.

    Args:
        batch: Its token ids give the number of texts and their length.
        shape: Layers and width.
        vocabulary: Rows of the head.
        seed: Another one gives another model.
        gradient: Whether each layer and the head's weight are leaves that gradients are wanted of.
    """
    generator = torch.Generator().manual_seed(seed)

    def leaf(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=generator).requires_grad_(gradient)

    layers = {layer: leaf(*batch.input_ids_BT.shape, shape.hidden_size) for layer in range(1, shape.num_layers + 1)}
    head = Head(leaf(vocabulary, shape.hidden_size))
    tail = FinalLayers(shape, norm=lambda hidden: functional.layer_norm(hidden, (shape.hidden_size,)))
    return States(layers[shape.num_layers], layers, head, tail, batch.input_ids_BT)


def leaves(states: States) -> tuple[Tensor, ...]:
    """All that gradients can be wanted of: what every loss reads first."""
    others = [hidden for layer, hidden in states.layers.items() if hidden is not states.final_BTD]
    return states.final_BTD, states.head.weight_VD, *others


def some_texts(states: States, texts: slice, length: int) -> States:
    """The states of some texts of a batch, which is no longer padded than they need."""
    layers = {layer: hidden[texts, :length] for layer, hidden in states.layers.items()}
    ids_BT = None if states.input_ids_BT is None else states.input_ids_BT[texts, :length]
    return replace(states, final_BTD=layers[max(layers)], layers=layers, input_ids_BT=ids_BT)


def with_garbage(states: States, mask_BT: Tensor) -> States:
    """The same states, with other values on padding."""
    layers = {
        layer: torch.where(mask_BT[..., None].bool(), hidden, 1e3 + layer) for layer, hidden in states.layers.items()
    }
    return replace(states, final_BTD=layers[max(layers)], layers=layers)
