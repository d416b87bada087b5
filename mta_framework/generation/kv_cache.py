"""Keys and values of rows that enter and leave, in memory that is allocated once.

Rows stand in places 0 to ``live - 1``. All are aligned on the right: their latest tokens are in column ``width - 1``,
and what is left of a row's first token belongs to nobody and has to be masked.

Shape suffixes: B places, H heads, C columns (tokens), D width of a head; U prefilled prompts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer


class _Layer(CacheLayerMixin):
    """Of one decoder block. Keeps all tokens where a block attends to a window of them: the mask is what counts."""

    is_sliding = False
    keys: Tensor
    values: Tensor

    def __init__(self, places: int, columns: int):
        super().__init__()
        self._places = places
        self._columns = columns
        self.live = 0
        self.width = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.keys, self.values = self._room(key_states), self._room(value_states)
        self.is_initialized = True

    def _room(self, state_BHCD: Tensor) -> Tensor:
        # Zeros, not whatever lies there: NaN would get through a mask.
        heads, width = state_BHCD.shape[1], state_BHCD.shape[3]
        return state_BHCD.new_zeros(self._places, heads, self._columns, width)

    def update(
        self, key_states: Tensor, value_states: Tensor, *_args: object, **_named: object
    ) -> tuple[Tensor, Tensor]:
        """Append one column or more to all live rows; views of everything that they have."""
        end = self.width + key_states.shape[2]
        self.keys[: self.live, :, self.width : end] = key_states
        self.values[: self.live, :, self.width : end] = value_states
        self.width = end
        return self.keys[: self.live, :, :end], self.values[: self.live, :, :end]

    def enter(self, prefilled: DynamicLayer, origins: Sequence[int]) -> None:
        """Put rows behind the live ones: copies of those that ``origins`` names."""
        key_UHCD, value_UHCD = prefilled.keys, prefilled.values
        assert key_UHCD is not None
        assert value_UHCD is not None
        origin_B = torch.tensor(origins, device=key_UHCD.device)
        if not self.is_initialized:
            self.lazy_initialization(key_UHCD, value_UHCD)
        if not self.live:
            self.width = key_UHCD.shape[2]
        end, first = self.live + len(origin_B), self.width - key_UHCD.shape[2]
        self.keys[self.live : end, :, first : self.width] = key_UHCD[origin_B]
        self.values[self.live : end, :, first : self.width] = value_UHCD[origin_B]
        self.live = end

    def leave(self, place: int) -> None:
        """Fill a place with the last live row."""
        self.live -= 1
        for state_BHCD in (self.keys, self.values):
            state_BHCD[place, :, : self.width] = state_BHCD[self.live, :, : self.width]

    def narrow(self, width: int) -> None:
        """Give up the columns on the left."""
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
    """A cache for ``places`` rows of ``columns`` tokens, all of them in memory from the first row on.

    Args:
        places: Rows at once.
        columns: Tokens of the longest prompt and response.
    """

    def __init__(self, places: int, columns: int):
        self._rows: list[_Layer] = []
        super().__init__(layers=self._rows)  # type: ignore[arg-type]
        self._places = places
        self._columns = columns

    @property
    def width(self) -> int:
        """Columns in use."""
        return self._rows[0].width if self._rows else 0

    def enter(self, prefilled: DynamicCache, origins: Sequence[int]) -> None:
        """Put rows behind the live ones.

        Args:
            prefilled: Of U prompts, no longer than any live row, padded on the left.
            origins: For each new row, which of those it has.
        """
        while len(self._rows) < len(prefilled.layers):
            self._rows.append(_Layer(self._places, self._columns))
        for own, other in zip(self._rows, prefilled.layers, strict=True):
            assert isinstance(other, DynamicLayer)
            own.enter(other, origins)

    def leave(self, place: int) -> None:
        """Drop a row; the last live one takes its place."""
        for layer in self._rows:
            layer.leave(place)

    def make_room(self, longest: int) -> None:
        """Drop columns that no row has any more, where that is due.

        It costs as much as reading the whole cache once, so not for a few of them.

        Args:
            longest: Tokens of the longest live row.
        """
        if self.width == self._columns or self.width - longest > self.width // 8:
            for layer in self._rows:
                layer.narrow(longest)


def mergeable(model: PreTrainedModel, parameters: Sequence[str]) -> bool:
    """Whether rows of a model's cache can be cut out and put together: plain attention, full or in a sliding window.

    Not so for states that sum up what was read (Mamba, linear attention), attention in chunks of fixed places, and
    layers that share the states of others.

    Args:
        model: As loaded.
        parameters: Names that its ``forward`` takes.
    """
    config = model.config.get_text_config(decoder=True)
    if "past_key_values" not in parameters or not model._supports_default_dynamic_cache():  # type: ignore[operator]
        return False
    if "chunked_attention" in (getattr(config, "layer_types", None) or ()):
        return False
    return all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in DynamicCache(config=config).layers)
