"""A key-value cache for continuous batching: rows enter and leave, and memory is allocated once.

Live rows occupy slots 0 to ``live - 1``. All are aligned on the right: their latest tokens are in column ``width - 1``.
Columns to the left of a row's first token are unused and must be masked.

Shape suffixes: B slots, H heads, C columns (tokens), D width of a head; U prefilled prompts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer


class _Layer(CacheLayerMixin):
    """Cache of one decoder block. It keeps all tokens even for sliding windows, which the attention mask enforces."""

    is_sliding = False
    keys: Tensor
    values: Tensor

    def __init__(self, slots: int, columns: int):
        super().__init__()
        self._slots = slots
        self._columns = columns
        self.live = 0
        self.width = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.keys, self.values = self._allocate(key_states), self._allocate(value_states)
        self.is_initialized = True

    def _allocate(self, state_BHCD: Tensor) -> Tensor:
        # Zeros, not uninitialised memory: NaN would get through a mask.
        heads, width = state_BHCD.shape[1], state_BHCD.shape[3]
        return state_BHCD.new_zeros(self._slots, heads, self._columns, width)

    def update(
        self, key_states: Tensor, value_states: Tensor, *_args: object, **_named: object
    ) -> tuple[Tensor, Tensor]:
        """Append one column or more to all live rows; returns views of all their columns."""
        end = self.width + key_states.shape[2]
        self.keys[: self.live, :, self.width : end] = key_states
        self.values[: self.live, :, self.width : end] = value_states
        self.width = end
        return self.keys[: self.live, :, :end], self.values[: self.live, :, :end]

    def add(self, prefilled: DynamicLayer, sources: Sequence[int]) -> None:
        """Add rows after the live ones: copies of the prefilled rows that ``sources`` names."""
        key_UHCD, value_UHCD = prefilled.keys, prefilled.values
        assert key_UHCD is not None
        assert value_UHCD is not None
        source_B = torch.tensor(sources, device=key_UHCD.device)
        if not self.is_initialized:
            self.lazy_initialization(key_UHCD, value_UHCD)
        if not self.live:
            self.width = key_UHCD.shape[2]
        end, first = self.live + len(source_B), self.width - key_UHCD.shape[2]
        self.keys[self.live : end, :, first : self.width] = key_UHCD[source_B]
        self.values[self.live : end, :, first : self.width] = value_UHCD[source_B]
        self.live = end

    def remove(self, slot: int) -> None:
        """Remove a row; the last live one moves into its slot."""
        self.live -= 1
        for state_BHCD in (self.keys, self.values):
            state_BHCD[slot, :, : self.width] = state_BHCD[self.live, :, : self.width]

    def shrink_to(self, width: int) -> None:
        """Drop columns on the left."""
        for state_BHCD in (self.keys, self.values):
            kept = state_BHCD[: self.live, :, self.width - width : self.width].clone()
            state_BHCD[: self.live, :, :width] = kept
        self.width = width

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.width + query_length, 0

    def get_seq_length(self) -> int:
        return self.width

    def get_max_length(self) -> int:
        return self._columns


class RowCache(Cache):
    """A cache for ``slots`` rows of ``columns`` tokens, allocated as a whole when the first row is added.

    Args:
        slots: Maximum number of live rows.
        columns: Number of tokens of the longest prompt and response together.
    """

    def __init__(self, slots: int, columns: int):
        self._layers: list[_Layer] = []
        super().__init__(layers=self._layers)  # type: ignore[arg-type]
        self._slots = slots
        self._columns = columns

    @property
    def width(self) -> int:
        """Number of columns in use."""
        return self._layers[0].width if self._layers else 0

    def add(self, prefilled: DynamicCache, sources: Sequence[int]) -> None:
        """Add rows after the live ones.

        Args:
            prefilled: Cache of U prompts, no longer than any live row, padded on the left.
            sources: For each new row, the index of its prompt in ``prefilled``.
        """
        while len(self._layers) < len(prefilled.layers):
            self._layers.append(_Layer(self._slots, self._columns))
        for layer, prefilled_layer in zip(self._layers, prefilled.layers, strict=True):
            assert isinstance(prefilled_layer, DynamicLayer)
            layer.add(prefilled_layer, sources)

    def remove(self, slot: int) -> None:
        """Remove a row; the last live one moves into its slot."""
        for layer in self._layers:
            layer.remove(slot)

    def shrink(self, longest: int) -> None:
        """Drop columns that no live row uses any more, if the cache is full or an eighth of its columns is unused.

        This costs as much as reading the whole cache once, so it is not done for a few columns.

        Args:
            longest: Number of tokens of the longest live row.
        """
        if self.width == self._columns or self.width - longest > self.width // 8:
            for layer in self._layers:
                layer.shrink_to(longest)


def supports_continuous_batching(model: PreTrainedModel, parameters: Sequence[str]) -> bool:
    """Return whether rows of a model's cache can be added and removed: full or sliding-window attention in all layers.

    They cannot for recurrent states (Mamba, linear attention), attention in fixed chunks, and layers that share the
    states of other layers.

    Args:
        model: The model.
        parameters: Names of the parameters of its ``forward``.
    """
    config = model.config.get_text_config(decoder=True)
    if "past_key_values" not in parameters or not model._supports_default_dynamic_cache():  # type: ignore[operator]
        return False
    if "chunked_attention" in (getattr(config, "layer_types", None) or ()):
        return False
    return all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in DynamicCache(config=config).layers)
