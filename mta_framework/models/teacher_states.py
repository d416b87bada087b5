"""A frozen teacher: answers from what was kept of it, and is loaded only for texts that were not."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import cached_property, partial

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh

from mta_framework.models.sharding import reshard, shard_module
from mta_framework.models.state_reader import StateReader, final_layers_of
from mta_framework.types import Batch, FinalLayers, Head, States


class _ForwardRoot(nn.Module):
    """The module around whose forward pass FSDP gathers what is outside of a model's decoder blocks."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, read: Callable[..., States], *inputs: torch.Tensor | None) -> States:
        return read(*inputs)


class Teacher:
    """Gives the states of a frozen teacher on a batch, by its records where the batch has them, else by running it.

    Args:
        load: Loads the frozen teacher, in evaluation mode and on its device; called once, when it is first needed.
        load_parts: Loads the head and the modules before it alone, likewise; None where nothing is kept.
    """

    def __init__(
        self, load: Callable[[], nn.Module | None], load_parts: Callable[[], tuple[Head, FinalLayers]] | None = None
    ):
        self._load = load
        self._load_parts = load_parts
        self._model: nn.Module | None = None
        self._readers: dict[frozenset[int], StateReader] = {}
        self._root: _ForwardRoot | None = None

    @classmethod
    def of(cls, model: nn.Module) -> Teacher:
        """Make the teacher of a model that is loaded already."""
        return cls(lambda: model)

    @property
    def model(self) -> nn.Module:
        """The live model, loaded when this is first read; random generators stay as they are."""
        if self._model is None:
            with torch.random.fork_rng():
                self._model = self._load()
            assert self._model is not None, "there is a teacher where it is asked for"
        return self._model

    def release(self) -> None:
        """Give the live model back; it is loaded again when it is needed."""
        for reader in self._readers.values():
            reader.close()
        self._readers, self._model = {}, None

    @property
    def final_layers(self) -> FinalLayers:
        """The modules before its head; without records the model is run on a few tokens."""
        return final_layers_of(self.model) if self._load_parts is None else self._parts[1]

    def shard(self, mesh: DeviceMesh) -> None:
        """Shard the live model over the processes and move it to their devices; all must ask for states together.

        Args:
            mesh: All processes.
        """
        self._root = _ForwardRoot(self.model)
        shard_module(self._root, self.model, mesh)

    def reshard(self) -> None:
        """Free what a sharded model has gathered for the last batch, its head among others."""
        if self._root is not None:
            reshard(self._root)

    @cached_property
    def _parts(self) -> tuple[Head, FinalLayers]:
        assert self._load_parts is not None
        return self._load_parts()

    def states(self, batch: Batch, layers: Collection[int]) -> States:
        """The teacher's states on a batch.

        Args:
            batch: Micro-batch on the teacher's device.
            layers: 1-based layers that are read besides the final states.

        Returns:
            States in the teacher's dtype, without gradient; they may be inference tensors. By records they are as
            ``States.records`` says.
        """
        tokens = batch.teacher or batch
        if batch.teacher_records is not None:
            return self._recorded(batch, tokens)
        read = frozenset(layers)
        if read not in self._readers:
            self._readers[read] = StateReader(self.model, read)
        # The index is kept in the batch, and the student's states need it outside of inference mode.
        inputs = tokens.input_ids_BT, tokens.attention_mask_BT, tokens.attended_A
        with torch.inference_mode(), torch.autocast(inputs[0].device.type, enabled=False):
            run = self._readers[read].read if self._root is None else partial(self._root, self._readers[read].read)
            return run(*inputs)

    @torch.no_grad()
    def _recorded(self, batch: Batch, tokens: Batch) -> States:
        records = batch.teacher_records
        assert records is not None
        head, final_layers = self._parts
        final_BTD, layers = head.weight_VD.new_full((), torch.nan).expand(*tokens.input_ids_BT.shape, 1), {}
        for slot, rows in records.items():
            if slot.quantity == "final_states":
                final_BTD = _placed(rows, tokens.position_N, tokens)
            elif slot.quantity == "attended_states":
                layers[slot.layer] = _placed(rows, tokens.attended_A, tokens)
        return States(final_BTD, layers, head, final_layers, tokens.input_ids_BT, tokens.attended_A, records)


def _placed(rows: torch.Tensor, positions: torch.Tensor, tokens: Batch) -> torch.Tensor:
    """Rows at their flat positions, in (B, T, D); NaN at all others."""
    texts, length = tokens.input_ids_BT.shape
    whole = rows.new_full((texts * length, rows.shape[-1]), torch.nan)
    return whole.index_copy_(0, positions, rows).view(texts, length, -1)
