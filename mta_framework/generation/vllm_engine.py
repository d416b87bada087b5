"""The vLLM engine: generates with copies of the models in vLLM."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tqdm.auto import tqdm
from transformers import AutoConfig

from mta_framework.errors import InputError
from mta_framework.generation.engine import Engine, OnFinished, SavedModel
from mta_framework.generation.limits import first_id, max_positions, padding_ids, room_fault
from mta_framework.generation.sampling_settings import Generation, Sampling
from mta_framework.generation.vllm_process import VllmOptions, VllmProcess
from mta_framework.models.decoder import base_of
from mta_framework.models.export import save_student

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

_EXCLUDED = -100.0  # The smallest logit bias that vLLM accepts.

_ALWAYS_TIED = frozenset({"gemma2", "gemma3n", "gemma3n_text"})
"""Model types whose logits vLLM computes with the embeddings themselves; it refuses a separate head."""


class VllmEngine(Engine):
    """Generates with vLLM, which loads the folder of a saved model or an export of the live model.

    vLLM is started at the first call for a model, in processes of its own, and lives until ``close``. When the weights
    have changed, they are exported and read into the running vLLM. Between calls it gives the memory of weights and
    cache back to the trainer; on a CPU, where vLLM cannot do this, it keeps both.

    Prompts and responses are passed as token ids. vLLM gets neither the tokenizer nor the model's stored generation
    settings, and stops at the same tokens as the transformers engine. It has random generators of its own: the same
    seed repeats a response, but not that of another engine. The responses of a call depend on that call alone, not on
    earlier ones.

    Args:
        models: Live or saved models by name.
        tokenizer: Tokenizer of all models.
        stop_ids: Ids of the tokens that end a response.
        folder: Folder for exported models; exports of an earlier run are replaced.
        max_length: Maximum number of tokens of a prompt and its response together.
    """

    name = "vllm"

    def __init__(
        self,
        models: Mapping[str, nn.Module | SavedModel],
        tokenizer: PreTrainedTokenizerBase,
        stop_ids: Sequence[int],
        folder: Path,
        max_length: int,
    ):
        self._models = models
        self._tokenizer = tokenizer
        self._stop_ids = list(stop_ids)
        self._folder = folder
        self._max_length = max_length
        self._running: dict[str, VllmProcess] = {}
        self._exported: dict[str, int] = {}
        self._loaded: dict[str, int] = {}

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
        prompts = [list(ids) or [first_id(self._tokenizer)] for ids in prompt_ids]
        saved = self._saved(by, version)
        config = AutoConfig.from_pretrained(saved.folder).get_text_config(decoder=True)
        if fault := room_fault(config, max(map(len, prompts)), sampling.max_new_tokens):
            raise InputError([fault])
        max_length = min(self._max_length, max_positions(config) or self._max_length)
        process = self._awake(by, version, VllmOptions(saved.folder, saved.dtype, max_length, sampling.batch_tokens))
        settings = self._settings(config, sampling)
        generations: dict[int, Generation] = {}
        try:
            with tqdm(total=len(prompts), desc=progress_label, unit="prompt", disable=progress_label is None) as bar:
                for index, output in process.respond(prompts, seeds, settings):
                    generations[index] = self._generation(output)
                    if on_finished is not None:
                        on_finished(index, generations[index])
                    bar.update()
            process.sleep()
        except BaseException:
            self._give_up(by)  # it may be in the midst of other responses
            raise
        return [generations[index] for index in sorted(generations)]

    def close(self) -> None:
        """End every vLLM and remove the exported models; a later call makes them again.

        Where one of them fails to end, the others end all the same, and its error is raised.
        """
        try:
            self._stop_all()
        finally:
            for by in self._exported:
                shutil.rmtree(self._folder / by, ignore_errors=True)
            self._exported.clear()
            with suppress(OSError):  # absent, or a folder of others
                self._folder.rmdir()

    def _stop_all(self) -> None:
        if self._running:
            _, process = self._running.popitem()
            try:
                process.stop()
            finally:
                self._stop_all()

    def _give_up(self, by: str) -> None:
        """End the vLLM of a model after an error, which stays the one that is reported."""
        with suppress(Exception):
            self._running.pop(by).stop()

    def _saved(self, by: str, version: int) -> SavedModel:
        """The folder of a model; a live one is exported, unless these weights were."""
        model = self._models[by]
        if isinstance(model, SavedModel):
            return model
        if by not in self._exported or (by == "student" and self._exported[by] != version):  # a teacher never changes
            self._folder.mkdir(parents=True, exist_ok=True)
            # On a CPU, vLLM would keep a tied head as it was when new weights are read.
            untied = base_of(model).config.model_type not in _ALWAYS_TIED
            save_student(model, self._tokenizer, self._stop_ids, self._folder / by, untied=untied)
            self._exported[by] = version
        return SavedModel(self._folder / by, _dtype(base_of(model)))

    def _awake(self, by: str, version: int, options: VllmOptions) -> VllmProcess:
        """The vLLM of a model, with the weights in its folder."""
        written = self._exported.get(by, version)
        if by not in self._running:
            self._running[by] = VllmProcess(by, options)
        else:
            try:
                self._running[by].wake_up(self._loaded[by] != written)
            except BaseException:
                self._give_up(by)
                raise
        self._loaded[by] = written
        return self._running[by]

    def _generation(self, output: Any) -> Generation:
        generation = Generation.from_ids(list(output.token_ids), self._stop_ids, self._tokenizer)
        # Whether the returned ids include the end token has changed between versions of vLLM.
        return replace(generation, finished=generation.finished or output.finish_reason == "stop")

    def _settings(self, config: PretrainedConfig, sampling: Sampling) -> dict[str, Any]:
        """Fields of ``vllm.SamplingParams`` for all prompts of a call."""
        return {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_new_tokens,
            "stop_token_ids": self._stop_ids,
            "logit_bias": dict.fromkeys(padding_ids(config.vocab_size, self._tokenizer), _EXCLUDED) or None,
            "ignore_eos": True,
            "detokenize": False,
        }


def _dtype(model: nn.Module) -> str:
    """Name of the dtype that the live model computes in, autocast considered."""
    weight = next(model.parameters())
    kind = weight.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
    return str(dtype).removeprefix("torch.")
