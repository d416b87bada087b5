"""The vLLM engine: generates with copies of the models in vLLM."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoConfig

from mta_framework.generation.engine import Engine, OnFinished, SavedModel
from mta_framework.generation.limits import first_id, output_size, padding_ids
from mta_framework.generation.sampling_settings import Generation, Sampling
from mta_framework.models.decoder import base_of
from mta_framework.models.export import save_student

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

_EXCLUDED = -100.0  # The smallest logit bias that vLLM accepts.


@dataclass(frozen=True)
class _Model:
    """A model for vLLM: its folder, ids that are no tokens, dtype."""

    folder: Path
    padding: range
    dtype: str


class VllmEngine(Engine):
    """Generates with vLLM, which loads the folder of a saved model or an export of the live model.

    vLLM is started for every call, with the GPU memory that is free then, and stopped before training continues, so it
    never competes with a training step and its weights are always current. A start takes tens of seconds, so this
    engine suits responses in bulk (evaluation, ``pairs``), requested in one call. All responses arrive at the end.

    Prompts and responses are passed as token ids. vLLM gets neither the tokenizer nor the model's stored generation
    settings, and stops at the same tokens as the transformers engine. It has random generators of its own: the same
    seed repeats a response, but not that of another engine.

    Not run so far: vLLM itself. The tests replace it by a small stand-in, which checks its arguments and returns
    outputs in the documented form. They cannot show whether an installed vLLM works with an installed transformers and
    loads the exported folder, how much memory it takes beside a trainer, and how fast it is.

    Args:
        models: Live or saved models by name.
        tokenizer: Tokenizer of all models.
        stop_ids: Ids of the tokens that end a response.
        folder: Folder for exported models; exports of an earlier run are replaced.
    """

    name = "vllm"

    def __init__(
        self,
        models: Mapping[str, nn.Module | SavedModel],
        tokenizer: PreTrainedTokenizerBase,
        stop_ids: Sequence[int],
        folder: Path,
    ):
        self._models = models
        self._tokenizer = tokenizer
        self._stop_ids = list(stop_ids)
        self._folder = folder
        self._exported: dict[str, int] = {}

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
        model = self._model(by, version)
        prompts = [{"prompt_token_ids": list(ids) or [first_id(self._tokenizer)]} for ids in prompt_ids]
        params = [self._sampling_params(seed, sampling, model) for seed in seeds]
        server = _start_server(model, max(len(prompt["prompt_token_ids"]) for prompt in prompts), sampling)
        try:
            outputs = server.generate(prompts, params, use_tqdm=progress_label is not None)
        finally:
            _stop(server)
        del server
        gc.collect()
        generations = [self._generation(output.outputs[0]) for output in outputs]
        if on_finished is not None:
            for index, generation in enumerate(generations):
                on_finished(index, generation)
        return generations

    def _model(self, by: str, version: int) -> _Model:
        model = self._models[by]
        if isinstance(model, SavedModel):
            return self._saved_model(model)
        base = base_of(model)
        padding = padding_ids(output_size(base), self._tokenizer)
        return _Model(self._export(by, model, version), padding, str(_dtype(base)).removeprefix("torch."))

    def _saved_model(self, model: SavedModel) -> _Model:
        size = AutoConfig.from_pretrained(model.folder).get_text_config(decoder=True).vocab_size
        return _Model(model.folder, padding_ids(size, self._tokenizer), model.dtype)

    def _export(self, by: str, model: nn.Module, version: int) -> Path:
        folder = self._folder / by
        if by not in self._exported or (by == "student" and self._exported[by] != version):  # a teacher never changes
            self._folder.mkdir(parents=True, exist_ok=True)
            save_student(model, self._tokenizer, self._stop_ids, folder)
            self._exported[by] = version
        return folder

    def _generation(self, output: Any) -> Generation:
        generation = Generation.from_ids(list(output.token_ids), self._stop_ids, self._tokenizer)
        # Whether the returned ids include the end token has changed between versions of vLLM.
        return replace(generation, finished=generation.finished or output.finish_reason == "stop")

    def _sampling_params(self, seed: int, sampling: Sampling, model: _Model) -> Any:
        import vllm

        return vllm.SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=seed,
            max_tokens=sampling.max_new_tokens,
            stop_token_ids=self._stop_ids,
            logit_bias=dict.fromkeys(model.padding, _EXCLUDED) or None,
            ignore_eos=True,
            detokenize=False,
        )


def _start_server(model: _Model, longest_prompt: int, sampling: Sampling) -> Any:
    import vllm

    return vllm.LLM(
        model=str(model.folder),
        skip_tokenizer_init=True,
        generation_config="vllm",
        dtype=model.dtype,
        max_model_len=longest_prompt + sampling.max_new_tokens,
        max_num_seqs=sampling.batch_size(longest_prompt),
        gpu_memory_utilization=_free_share(),
    )


def _dtype(model: nn.Module) -> torch.dtype:
    """Dtype that the live model computes in, autocast considered."""
    weight = next(model.parameters())
    kind = weight.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype


def _free_share() -> float:
    """Nine tenths of the free GPU memory, as a share of all GPU memory."""
    if not torch.cuda.is_available():
        return 0.9
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    return 0.9 * free / total


def _stop(server: Any) -> None:
    # It runs in a separate process, which would otherwise end some time after the last reference is dropped.
    core = getattr(server.llm_engine, "engine_core", None)
    if core is not None:
        core.shutdown()
