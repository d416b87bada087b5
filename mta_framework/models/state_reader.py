"""Reads the final hidden states and those of the key layers of a model, and no others."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mta_framework.models.attention_masks import padded_on_the_right
from mta_framework.models.decoder import blocks_of, decoder_of, head_of, outer_modules_of, shape_of
from mta_framework.types import FinalLayers, States

__all__ = ["StateReader", "final_layers_of", "shape_of"]

_PROBE_LENGTH = 4


class StateReader:
    """Reads the final hidden states and those of the key layers of a model.

    Forward hooks capture the outputs of the key layers. Only the decoder is called, never the language-model head, and
    ``output_hidden_states`` stays off. The hooks are active during ``read`` only: they affect neither generation nor
    the recomputation of gradient checkpointing (which must be of the non-reentrant kind).

    Args:
        model: A causal language model of transformers, or a PeftModel around one.
        layers: 1-based indices of the key layers; may be empty.

    Raises:
        ValueError: A layer is beyond the model's depth.
    """

    def __init__(self, model: nn.Module, layers: Collection[int] = ()):
        self._model = model
        self._decoder = decoder_of(model)
        self._layers = sorted(set(layers))
        self._shape = shape_of(model)
        self._depth = self._shape.num_layers
        self._captured: dict[int, Tensor] | None = None
        self._outer_calls: list[tuple[nn.Module, Tensor, Tensor]] = []
        outside = [layer for layer in self._layers if not 1 <= layer <= self._depth]
        if outside:
            raise ValueError(f"the model has layers 1 to {self._depth} (got {', '.join(map(str, outside))})")
        self._handles = self._register_hooks() if self._layers else []

    def read(self, input_ids_BT: Tensor, attention_mask_BT: Tensor, attended_A: Tensor | None = None) -> States:
        """Run the decoder once and return its states.

        Args:
            input_ids_BT: Token ids, int64.
            attention_mask_BT: 1 on tokens, 0 on padding, which stands on the right.
            attended_A: Flat positions of tokens, int64, which the states are to name; None: they name none.

        Returns:
            States in the dtype that the model computes in, with gradient unless the caller switched it off. As in
            transformers, the last layer is read after the final norm. Where the decoder then projects it to the width
            of the embeddings (some OPT models), key states are taken before that projection and ``final_BTD`` after
            it, so that all layers have one width. Rows of padding alone give arbitrary states, never an error. The
            norm of ``final_layers`` is the module that turned the output of the last block into the final state; it is
            detected with key layers only, and None without any.
        """
        captured: dict[int, Tensor] = {}
        self._captured = captured
        try:
            with padded_on_the_right(input_ids_BT.device):
                output = self._decoder(input_ids=input_ids_BT, attention_mask=attention_mask_BT, use_cache=False)
        finally:
            self._captured = None
            outer_calls, self._outer_calls = self._outer_calls, []
        final_BTD = output.last_hidden_state
        projection = self._projection
        unprojected_BTD = next((before for module, before, _ in outer_calls if module is projection), final_BTD)
        layers = {layer: captured[layer] for layer in self._layers if layer < self._depth}
        if self._depth in self._layers:
            layers[self._depth] = unprojected_BTD
        norm = _norm_between(captured.get(self._depth), unprojected_BTD, outer_calls)
        tail = FinalLayers(self._shape, norm, projection)
        return States(final_BTD, layers, head_of(self._model), tail, input_ids_BT, attended_A)

    def close(self) -> None:
        """Remove the hooks from the model; ``read`` must not be called afterwards."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    @property
    def _projection(self) -> nn.Module | None:
        """The projection after the final norm, which some OPT decoders have."""
        return getattr(self._decoder, "project_out", None)

    def _register_hooks(self) -> list[Any]:
        _, blocks = blocks_of(self._model)
        # The output of the last block is always captured, to detect the norm that follows it.
        handles = [
            blocks[layer - 1].register_forward_hook(self._capture_hook(layer)) for layer in {*self._layers, self._depth}
        ]
        outer_modules = outer_modules_of(self._model)
        return [*handles, *(module.register_forward_hook(self._record_outer_call) for module in outer_modules)]

    def _record_outer_call(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if self._captured is not None and inputs and isinstance(inputs[0], Tensor) and isinstance(output, Tensor):
            self._outer_calls.append((module, inputs[0], output))

    def _capture_hook(self, layer: int) -> Callable[[nn.Module, Any, Any], None]:
        def capture(module: nn.Module, inputs: Any, output: Any) -> None:
            if self._captured is not None:
                self._captured[layer] = output[0] if isinstance(output, tuple) else output

        return capture


@torch.no_grad()
def final_layers_of(model: nn.Module) -> FinalLayers:
    """Run a model on a few tokens to see which modules stand between its last decoder block and its head.

    Args:
        model: As for ``StateReader``, with weights, on any device; its mode is left unchanged.

    Returns:
        The modules; the norm is None where the model has none or its blocks cannot be told apart.
    """
    was_training = model.training
    try:
        reader = StateReader(model.eval(), {shape_of(model).num_layers})
    except ValueError:  # its blocks cannot be told apart, so that only final states are read
        reader = StateReader(model)
    try:
        input_ids_BT = torch.arange(_PROBE_LENGTH, device=head_of(model).weight_VD.device)[None]
        final_layers = reader.read(input_ids_BT, torch.ones_like(input_ids_BT)).final_layers
    finally:
        reader.close()
        model.train(was_training)
    assert final_layers is not None
    return final_layers


def _norm_between(
    last_BTD: Tensor | None, final_BTD: Tensor, outer_calls: Sequence[tuple[nn.Module, Tensor, Tensor]]
) -> nn.Module | None:
    """The module that turned the output of the last block into the final state."""
    if last_BTD is None:
        return None
    norms = [module for module, before, after in outer_calls if _same(before, last_BTD) and _same(after, final_BTD)]
    return norms[0] if norms else None


def _same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors share their memory, in any shape: some decoders reshape their final state."""
    alike = a.storage_offset() == b.storage_offset() and a.numel() == b.numel()
    # A tensor without values has no address, but a storage.
    return alike and a.untyped_storage()._cdata == b.untyped_storage()._cdata
