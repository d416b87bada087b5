"""Generates with copies of the models, by vLLM."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoConfig, GenerationConfig

from mta_framework.generation.engine import Done, Engine, SavedModel
from mta_framework.generation.limits import end_ids, first_id, output_size, padding_ids
from mta_framework.generation.sampling import Generation, Sampling
from mta_framework.models.decoder import base_of
from mta_framework.models.export import save_student

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

_RULED_OUT = -100.0  # The least that vLLM takes.


@dataclass(frozen=True)
class _Model:
    """What vLLM loads, and what it is told of it: tokens that end a response, ids that are no tokens, dtype."""

    folder: Path
    ends: list[int]
    padding: range
    dtype: str


class VllmEngine(Engine):
    """Has vLLM load a model's folder, or an export of the live model, generates, and gives the GPU back.

    vLLM is started for every call, on the share of the GPU's memory that is free then, and stopped before training
    goes on: nothing of it is in the way of a step, and no weights can be out of date. A start takes tens of seconds,
    so this engine is for responses in bulk (evaluation, ``pairs``), and it wants all prompts at once. All responses
    come together at the end.

    Token ids go in and come out; vLLM sees no tokenizer, none of the model's stored generation settings, and stops at
    the same tokens as the transformers engine. It draws by its own random numbers: the same seed gives the same
    response again, but not the response of another engine.

    Not run so far: vLLM itself. The tests put a small stand-in into its place, which checks what it is asked and gives
    what it is documented to give. What that cannot show: whether an installed vLLM works with an installed
    transformers, what it makes of the exported folder, memory beside a trainer, and speed.

    Args:
        models: Live ones, or stored ones.
        tokenizer: Of all of them.
        folder: Where the exported models go; those of an earlier run are replaced.
    """

    name = "vllm"

    def __init__(self, models: Mapping[str, nn.Module | SavedModel], tokenizer: PreTrainedTokenizerBase, folder: Path):
        self._models = models
        self._tokenizer = tokenizer
        self._folder = folder
        self._exported: dict[str, int] = {}

    def _respond(
        self,
        by: str,
        prompt_ids: Sequence[Sequence[int]],
        sampling: Sampling,
        seeds: Sequence[int],
        version: int,
        progress_label: str | None,
        done: Done | None,
    ) -> list[Generation]:
        model = self._model(by, version)
        prompts = [{"prompt_token_ids": list(ids) or [first_id(self._tokenizer)]} for ids in prompt_ids]
        asked = [_asked(seed, sampling, model) for seed in seeds]
        server = _started(model, max(len(prompt["prompt_token_ids"]) for prompt in prompts), sampling)
        try:
            outputs = server.generate(prompts, asked, use_tqdm=progress_label is not None)
        finally:
            _stop(server)
        del server
        gc.collect()
        generations = [self._generation(output.outputs[0], model.ends) for output in outputs]
        if done is not None:
            for number, generation in enumerate(generations):
                done(number, generation)
        return generations

    def _model(self, by: str, version: int) -> _Model:
        model = self._models[by]
        if isinstance(model, SavedModel):
            return self._stored(model)
        base = base_of(model)
        ends, padding = (
            end_ids(base.generation_config, self._tokenizer),
            padding_ids(output_size(base), self._tokenizer),
        )
        return _Model(self._export(by, model, version), ends, padding, str(_dtype(base)).removeprefix("torch."))

    def _stored(self, model: SavedModel) -> _Model:
        settings = None
        if (model.folder / "generation_config.json").is_file():
            settings = GenerationConfig.from_pretrained(model.folder)
        size = AutoConfig.from_pretrained(model.folder).get_text_config(decoder=True).vocab_size
        ends, padding = end_ids(settings, self._tokenizer), padding_ids(size, self._tokenizer)
        return _Model(model.folder, ends, padding, model.dtype)

    def _export(self, by: str, model: nn.Module, version: int) -> Path:
        folder = self._folder / by
        if by not in self._exported or (by == "student" and self._exported[by] != version):  # no teacher changes
            self._folder.mkdir(parents=True, exist_ok=True)
            save_student(model, self._tokenizer, folder)
            self._exported[by] = version
        return folder

    def _generation(self, output: Any, ends: list[int]) -> Generation:
        found = Generation.cut(list(output.token_ids), ends, self._tokenizer)
        # Whether the token that ended it is among those given back has changed between versions.
        return replace(found, finished=found.finished or output.finish_reason == "stop")


def _asked(seed: int, sampling: Sampling, model: _Model) -> Any:
    import vllm

    return vllm.SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        seed=seed,
        max_tokens=sampling.max_new_tokens,
        stop_token_ids=model.ends,
        logit_bias=dict.fromkeys(model.padding, _RULED_OUT) or None,
        ignore_eos=True,
        detokenize=False,
    )


def _started(model: _Model, longest_prompt: int, sampling: Sampling) -> Any:
    import vllm

    return vllm.LLM(
        model=str(model.folder),
        skip_tokenizer_init=True,
        generation_config="vllm",
        dtype=model.dtype,
        max_model_len=longest_prompt + sampling.max_new_tokens,
        max_num_seqs=sampling.rows(longest_prompt),
        gpu_memory_utilization=_free_share(),
    )


def _dtype(model: nn.Module) -> torch.dtype:
    """What the live model computes in, autocast included."""
    weight = next(model.parameters())
    kind = weight.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype


def _free_share() -> float:
    """Most of the GPU memory that is free, as a share of all."""
    if not torch.cuda.is_available():
        return 0.9
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    return 0.9 * free / total


def _stop(server: Any) -> None:
    # It runs in a process of its own, which would otherwise end some time after the last reference is gone.
    core = getattr(server.llm_engine, "engine_core", None)
    if core is not None:
        core.shutdown()
