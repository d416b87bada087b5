"""The transformers engine: generates with the live models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mta_framework.generation.engine import Engine, OnFinished, SavedModel
from mta_framework.generation.generate import generate
from mta_framework.generation.sampling_settings import Generation, Sampling

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase


class TransformersEngine(Engine):
    """Runs ``generate`` on the live models: nothing is copied, and weights are always current.

    Adapters, gradient checkpointing, training mode and the hooks of a ``StateReader`` may all be active; a training
    step may follow immediately. Generation runs in the caller's autocast context.

    Args:
        models: Live models by name.
        tokenizer: Tokenizer of all models.
        stop_ids: Ids of the tokens that end a response.
        keep_log_probs: Whether to keep the log-probability of every generated token.
    """

    name = "transformers"

    def __init__(
        self,
        models: Mapping[str, nn.Module | SavedModel],
        tokenizer: PreTrainedTokenizerBase,
        stop_ids: Sequence[int],
        keep_log_probs: bool = False,
    ):
        self._models = models
        self._tokenizer = tokenizer
        self._stop_ids = stop_ids
        self._keep_log_probs = keep_log_probs

    def _generate(
        self,
        by: str,
        prompt_ids: Sequence[Sequence[int]],
        sampling: Sampling,
        seeds: Sequence[int],
        version: int,
        progress_label: str | None,
        on_finished: OnFinished | None,
    ) -> list[Generation]:
        model = self._models[by]
        assert not isinstance(model, SavedModel), "transformers generates with a loaded model"
        requests = prompt_ids, sampling, seeds, progress_label, on_finished
        return generate(model, self._tokenizer, self._stop_ids, *requests, keep_log_probs=self._keep_log_probs)
