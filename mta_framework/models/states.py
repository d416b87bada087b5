"""Reads the hidden states of the key layers, and no others."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from torch import Tensor, nn

from mta_framework.models.decoder import blocks_of, decoder_of, shape_of
from mta_framework.models.heads import head_of
from mta_framework.types import States

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
        self._depth = shape_of(model).num_layers
        self._kept: dict[int, Tensor] | None = None
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
            error.
        """
        kept: dict[int, Tensor] = {}
        self._kept = kept
        try:
            output = self._decoder(input_ids=input_ids_BT, attention_mask=attention_mask_BT, use_cache=False)
        finally:
            self._kept = None
        final_BTD = output.last_hidden_state
        if self._depth in self._layers:
            kept.setdefault(self._depth, final_BTD)
        layers = {layer: kept[layer] for layer in self._layers}
        return States(final_BTD=final_BTD, layers=layers, head=head_of(self._model))

    def close(self) -> None:
        """Take the hooks off the model; ``read`` must not be called any more."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _hooked(self) -> list[Any]:
        _, blocks = blocks_of(self._model)
        handles = [
            blocks[layer - 1].register_forward_hook(self._keeper(layer))
            for layer in self._layers
            if layer < self._depth
        ]
        projection = getattr(self._decoder, "project_out", None)
        if self._depth in self._layers and projection is not None:
            keep = self._keeper(self._depth)
            handles.append(projection.register_forward_pre_hook(lambda module, inputs: keep(module, (), inputs)))
        return handles

    def _keeper(self, layer: int) -> Callable[[nn.Module, Any, Any], None]:
        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            if self._kept is not None:
                self._kept[layer] = output[0] if isinstance(output, tuple) else output

        return keep
