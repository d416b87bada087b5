"""Reads the hidden states of the key layers, and no others."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from torch import Tensor, nn

from mta_framework.models.decoder import blocks_of, decoder_of, ends_of, head_of, shape_of
from mta_framework.types import FinalLayers, States

__all__ = ["StateReader", "shape_of"]


class StateReader:
    """Reads final hidden states and those of the key layers of a model.

    Forward hooks keep the key layers' outputs; the decoder alone is called, never the language-model head, and
    ``output_hidden_states`` is never asked for. The hooks act during ``read`` only: generation is left alone, and so
    is the recomputation of gradient checkpointing (which must be the non-reentrant kind).

    Args:
        model: A causal language model of transformers, or a PeftModel around one.
        layers: 1-based key layers; may be empty.

    Raises:
        ValueError: A layer lies outside the model's depth.
    """

    def __init__(self, model: nn.Module, layers: Collection[int] = ()):
        self._model = model
        self._decoder = decoder_of(model)
        self._layers = sorted(set(layers))
        self._shape = shape_of(model)
        self._depth = self._shape.num_layers
        self._kept: dict[int, Tensor] | None = None
        self._ends: list[tuple[nn.Module, Tensor, Tensor]] = []
        outside = [layer for layer in self._layers if not 1 <= layer <= self._depth]
        if outside:
            raise ValueError(f"the model has layers 1 to {self._depth} (got {', '.join(map(str, outside))})")
        self._handles = self._hooked() if self._layers else []

    def read(self, input_ids_BT: Tensor, attention_mask_BT: Tensor) -> States:
        """Run the decoder once.

        Args:
            input_ids_BT: int64.
            attention_mask_BT: 1 on tokens, 0 on padding.

        Returns:
            States in the dtype that the model computes in, with gradient unless the caller switched it off. As in
            transformers, the last layer is read after the final norm; where the decoder then projects it to the width
            of the embeddings (some OPT models), key states are taken before and ``final_BTD`` after that projection,
            so that all layers have one width. Rows that are all padding give finite or arbitrary states, never an
            error. The tail's norm is the module that was seen to turn the last block's output into the final state,
            whatever the family calls it; without key layers nobody looks.
        """
        kept: dict[int, Tensor] = {}
        self._kept = kept
        try:
            output = self._decoder(input_ids=input_ids_BT, attention_mask=attention_mask_BT, use_cache=False)
        finally:
            self._kept = None
            ends, self._ends = self._ends, []
        final_BTD = output.last_hidden_state
        projection = self._projection
        unprojected_BTD = next((before for module, before, _ in ends if module is projection), final_BTD)
        layers = {layer: kept[layer] for layer in self._layers if layer < self._depth}
        if self._depth in self._layers:
            layers[self._depth] = unprojected_BTD
        tail = FinalLayers(self._shape, _norm_between(kept.get(self._depth), unprojected_BTD, ends), projection)
        return States(final_BTD, layers, head_of(self._model), tail, input_ids_BT)

    def close(self) -> None:
        """Take the hooks off the model; ``read`` must not be called any more."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    @property
    def _projection(self) -> nn.Module | None:
        """What some OPT decoders end in."""
        return getattr(self._decoder, "project_out", None)

    def _hooked(self) -> list[Any]:
        _, blocks = blocks_of(self._model)
        # The last block is always watched, to see what comes after it.
        handles = [
            blocks[layer - 1].register_forward_hook(self._keeper(layer)) for layer in {*self._layers, self._depth}
        ]
        return [*handles, *(module.register_forward_hook(self._note_end) for module in ends_of(self._model))]

    def _note_end(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if self._kept is not None and inputs and isinstance(inputs[0], Tensor) and isinstance(output, Tensor):
            self._ends.append((module, inputs[0], output))

    def _keeper(self, layer: int) -> Callable[[nn.Module, Any, Any], None]:
        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            if self._kept is not None:
                self._kept[layer] = output[0] if isinstance(output, tuple) else output

        return keep


def _norm_between(
    last_BTD: Tensor | None, final_BTD: Tensor, ends: Sequence[tuple[nn.Module, Tensor, Tensor]]
) -> nn.Module | None:
    """The module that made the final state of the last block's output."""
    if last_BTD is None:
        return None
    found = [module for module, before, after in ends if _same(before, last_BTD) and _same(after, final_BTD)]
    return found[0] if found else None


def _same(one: Tensor, other: Tensor) -> bool:
    """The same numbers in the same memory: some decoders reshape their final state."""
    return one.data_ptr() == other.data_ptr() and one.numel() == other.numel()
