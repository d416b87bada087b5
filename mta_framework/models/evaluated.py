"""The model of ``mta evaluate``: a pretrained model that is evaluated without a training run."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mta_framework.models.loading import frozen
from mta_framework.models.model_summary import ModelSummary, summarise_pretrained
from mta_framework.models.sources import ModelSource, local_tokenizer, model_source
from mta_framework.models.tokenizers import load_tokenizer
from mta_framework.models.turn_end import TurnEnd, settle_turn_end
from mta_framework.spec.evaluation_spec import ModelSection


class EvaluatedModel:
    """A pretrained causal language model that is evaluated as it is.

    Args:
        section: Section ``model`` of the evaluation spec.
        device: Device that the model is moved to.
    """

    def __init__(self, section: ModelSection, device: torch.device | str = "cpu"):
        self._section = section
        self._device = device

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer at ``model.tokenizer``; where that is null, the one saved with the model.

        Raises:
            InputError: The tokenizer cannot be loaded.
        """
        path = self._section.tokenizer
        return load_tokenizer(self._source if path is None else local_tokenizer(Path(path), "model.tokenizer"))

    @cached_property
    def summary(self) -> ModelSummary:
        """Size, depth and dtype of the model, read from its configuration alone.

        Raises:
            InputError: It is no causal language model, or has fewer embeddings than the tokenizer has tokens.
        """
        return summarise_pretrained(self._source, self.tokenizer, self._section.dtype)

    @cached_property
    def turn_end(self) -> TurnEnd:
        """What ends a response of the model.

        Raises:
            InputError: Tokenizer or configuration cannot be loaded.
        """
        return settle_turn_end(self.tokenizer, self.summary.end_ids)

    @property
    def folder(self) -> Path | None:
        """The transformers folder that holds model and tokenizer; None for hub models and GGUF files."""
        path, whole = self._section.path, self._section.tokenizer is None
        return Path(path) if path and whole and Path(path).is_dir() else None

    def load(self) -> PreTrainedModel:
        """Load the model in evaluation mode, without gradients, onto its device.

        Raises:
            InputError: The model cannot be loaded.
        """
        return frozen(self._source, self._section.dtype, self._device)

    @cached_property
    def _source(self) -> ModelSource:
        source = model_source(self._section, "model")
        assert source is not None, "the spec asks for hub or path"
        return source
