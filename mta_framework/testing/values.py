"""Random texts, batches and hidden states to call a plugin with, without a model."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mta_framework.alignment import Alignment, WeightedTerm
from mta_framework.data.batches import collate
from mta_framework.interfaces import AlignmentTerm, ImportanceEstimator
from mta_framework.types import Batch, Example, FinalLayers, Head, LayerPair, ModelShape, Span, States

VOCABULARY = 11
"""Size of the vocabulary."""


def random_example(
    length: int,
    prompt_length: int,
    *,
    seed: int = 0,
    spans: Mapping[str, Sequence[Span]] | None = None,
    by_student: bool = False,
    gap: Span | None = None,
    log_probs: Sequence[float] | None = None,
) -> Example:
    """Make a text of random tokens.

    Args:
        length: Number of tokens, prompt included.
        prompt_length: Number of tokens of the prompt; the others are supervised.
        seed: Seed of the tokens.
        spans: Half-open token ranges by granularity.
        by_student: Whether the student wrote the response.
        gap: Half-open range of tokens after the prompt that are not supervised, as those of a later question.
        log_probs: Log-probabilities with which the student wrote the first tokens of the response; None: not kept.
    """
    input_ids = np.random.default_rng(seed).integers(0, VOCABULARY, length).astype(np.int32)
    offset_T2 = np.array([[token, token + 1] for token in range(prompt_length)], dtype=np.int32).reshape(-1, 2)
    ranges = {name: np.array(pairs, dtype=np.int32).reshape(-1, 2) for name, pairs in (spans or {}).items()}
    written = None if log_probs is None else np.array(log_probs, dtype=np.float32)
    example = Example(input_ids, prompt_length, ranges, by_student, "p" * prompt_length, offset_T2, log_probs=written)
    if gap is None:
        return example
    token_T = np.arange(length)
    return replace(example, supervised_T=(token_T >= prompt_length) & ~((token_T >= gap[0]) & (token_T < gap[1])))


def batch_of(*examples: Example) -> Batch:
    """Make a micro-batch of texts as a run does: padded on the right, with counts and span indices."""
    return collate(examples, 0, tuple(examples[0].spans))


def random_states(
    batch: Batch, shape: ModelShape, *, vocabulary: int = VOCABULARY, seed: int = 0, gradient: bool = False
) -> States:
    """Make random hidden states of all layers of a model, with head and final layers.

    Args:
        batch: Batch that the states are for.
        shape: Depth and width of the model.
        vocabulary: Size of the head's vocabulary.
        seed: Seed of states and head.
        gradient: Whether each layer and the head's weight are leaves that require a gradient.
    """
    generator = torch.Generator().manual_seed(seed)

    def leaf(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=generator).requires_grad_(gradient)

    layers = {layer: leaf(*batch.input_ids_BT.shape, shape.hidden_size) for layer in range(1, shape.num_layers + 1)}
    head = Head(leaf(vocabulary, shape.hidden_size))
    final_layers = FinalLayers(shape, norm=lambda hidden: functional.layer_norm(hidden, (shape.hidden_size,)))
    return States(layers[shape.num_layers], layers, head, final_layers, batch.input_ids_BT, batch.attended_A)


class _Uniform(ImportanceEstimator):
    NAME = "equal"

    def weigh(self, states: States, layer: int, mask_BT: Tensor) -> Tensor:
        return mask_BT.float()


def term_sums(
    term: AlignmentTerm,
    pairs: Sequence[LayerPair],
    student: States,
    teacher: States,
    batch: Batch,
    shared_vocabulary: tuple[Tensor, Tensor] | None = None,
    modules: Sequence[nn.Module] | None = None,
) -> tuple[Tensor, ...]:
    """Compute an alignment term on a micro-batch, with the same weight for all tokens of a text.

    A term that is fitted before the first step is fitted on this micro-batch.

    Args:
        term: The term.
        pairs: Key layers of the alignment.
        student: States of the student, with those of its key layers.
        teacher: States of the teacher, likewise.
        batch: Micro-batch with the spans of every granularity of the pairs.
        shared_vocabulary: What ``KeyLayer.shared_vocabulary`` is.
        modules: Module of each key layer at which the term is computed; None: what ``make_module`` makes anew.

    Returns:
        The sum at each key layer at which the term is computed.
    """
    one, two = (ModelShape(max(states.layers), states.final_BTD.shape[-1]) for states in (student, teacher))
    terms = [WeightedTerm(term, 1.0)]
    alignment = Alignment(pairs, _Uniform(_Uniform.Params()), terms, one, two, shared_vocabulary=shared_vocabulary)
    if modules is not None:
        alignment.term_modules[term.NAME] = nn.ModuleList(modules)
    if term.num_texts:
        alignment.fit(alignment.terms[0], [(student, teacher, batch)])
    return tuple(entry.sum for entry in alignment(student, teacher, batch))


def leaves(states: States) -> tuple[Tensor, ...]:
    """List the tensors that can require a gradient: final states, head's weight, then the other layers."""
    others = [hidden for layer, hidden in states.layers.items() if hidden is not states.final_BTD]
    return states.final_BTD, states.head.weight_VD, *others


def some_texts(states: States, texts: slice, length: int) -> States:
    """Select the states of some texts, padded to ``length``."""
    layers = {layer: hidden[texts, :length] for layer, hidden in states.layers.items()}
    ids_BT = None if states.input_ids_BT is None else states.input_ids_BT[texts, :length]
    return replace(states, final_BTD=layers[max(layers)], layers=layers, input_ids_BT=ids_BT, attended_A=None)


def with_garbage(states: States, mask_BT: Tensor) -> States:
    """Replace the states of padding by large values."""
    layers = {
        layer: torch.where(mask_BT[..., None].bool(), hidden, 1e3 + layer) for layer, hidden in states.layers.items()
    }
    return replace(states, final_BTD=layers[max(layers)], layers=layers)


def as_kept(states: States, tokens: Batch, layers: Collection[int]) -> States:
    """Reduce a teacher's states to what a teacher cache gives of them: NaN stands for all that it does not keep.

    Args:
        states: States of the teacher.
        tokens: The batch, in the teacher's tokens.
        layers: 1-based layers that the base loss reads.
    """
    supervised_BT = torch.zeros_like(tokens.attention_mask_BT).flatten().index_fill(0, tokens.position_N, 1)
    supervised_BT = supervised_BT.view_as(tokens.attention_mask_BT)

    def masked(hidden_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        return torch.where(mask_BT[..., None].bool(), hidden_BTD, torch.nan)

    kept = {layer: masked(states.layers[layer], tokens.attention_mask_BT) for layer in layers}
    return replace(states, final_BTD=masked(states.final_BTD, supervised_BT), layers=kept)
