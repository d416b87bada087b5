"""Generates with copies of the models, by vLLM."""

from __future__ import annotations

import gc
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mta_framework.generation.engine import Engine
from mta_framework.generation.limits import end_ids, first_id, padding_ids
from mta_framework.generation.sampling import Generation
from mta_framework.models.decoder import base_of
from mta_framework.models.export import save_student
from mta_framework.types import Responder

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

_RULED_OUT = -100.0  # The least that vLLM takes.


class VllmEngine(Engine):
    """Exports a model, has vLLM load it, generates, and gives the GPU back.

    vLLM is started for every call, on the share of the GPU's memory that is free then, and stopped before training
    goes on: nothing of it is in the way of a step, and no weights can be out of date. A start takes tens of seconds,
    so this engine is for policies that generate in bulk (``pairs``), and it wants all prompts at once.

    Token ids go in and come out; vLLM sees no tokenizer, none of the model's stored generation settings, and stops at
    the same tokens as the transformers engine. It draws by its own random numbers: the same seed gives the same
    response again, but not the response of another engine.

    Not run so far: vLLM itself. The tests put a small stand-in into its place, which checks what it is asked and gives
    what it is documented to give. What that cannot show: whether an installed vLLM works with an installed
    transformers, what it makes of the exported folder, memory beside a trainer, and speed.

    Args:
        models: Student, teacher.
        tokenizer: Of both.
        max_new_tokens: Longest response, its end token included.
        batch_tokens: Tokens of prompts and responses that are held at once.
        folder: Where the exported models go; those of an earlier run are replaced.
    """

    name = "vllm"
    chunk_size = sys.maxsize

    def __init__(
        self,
        models: Mapping[Responder, nn.Module],
        tokenizer: PreTrainedTokenizerBase,
        max_new_tokens: int,
        batch_tokens: int,
        folder: Path,
    ):
        self._models = models
        self._tokenizer = tokenizer
        self._max_new_tokens = max_new_tokens
        self._batch_tokens = batch_tokens
        self._folder = folder
        self._exported: dict[Responder, int] = {}

    def _respond(
        self,
        by: Responder,
        prompt_ids: Sequence[Sequence[int]],
        seeds: Sequence[int],
        temperature: float,
        version: int,
    ) -> list[Generation]:
        base = base_of(self._models[by])
        ends = end_ids(base, self._tokenizer)
        prompts = [{"prompt_token_ids": list(ids) or [first_id(self._tokenizer)]} for ids in prompt_ids]
        padding = padding_ids(base, self._tokenizer)
        asked = [self._asked(seed, temperature, ends, padding) for seed in seeds]
        longest = max(len(prompt["prompt_token_ids"]) for prompt in prompts) + self._max_new_tokens
        server = self._started(self._export(by, version), longest, _dtype(base))
        try:
            outputs = [output.outputs[0] for output in server.generate(prompts, asked, use_tqdm=False)]
        finally:
            _stop(server)
        del server
        gc.collect()
        return [self._generation(list(output.token_ids), output.finish_reason, ends) for output in outputs]

    def _asked(self, seed: int, temperature: float, ends: list[int], padding: range) -> Any:
        import vllm

        return vllm.SamplingParams(
            temperature=temperature,
            seed=seed,
            max_tokens=self._max_new_tokens,
            stop_token_ids=ends,
            logit_bias=dict.fromkeys(padding, _RULED_OUT) or None,
            ignore_eos=True,
            detokenize=False,
        )

    def _generation(self, ids: list[int], reason: str | None, ends: list[int]) -> Generation:
        found = Generation.cut(ids, ends, self._tokenizer)
        # Whether the token that ended it is among those given back has changed between versions.
        return replace(found, finished=found.finished or reason == "stop")

    def _export(self, by: Responder, version: int) -> Path:
        folder = self._folder / by
        if by not in self._exported or (by == "student" and self._exported[by] != version):  # no teacher changes
            self._folder.mkdir(parents=True, exist_ok=True)
            save_student(self._models[by], self._tokenizer, folder)
            self._exported[by] = version
        return folder

    def _started(self, folder: Path, max_length: int, dtype: torch.dtype) -> Any:
        import vllm

        return vllm.LLM(
            model=str(folder),
            skip_tokenizer_init=True,
            generation_config="vllm",
            dtype=str(dtype).removeprefix("torch."),
            max_model_len=max_length,
            max_num_seqs=max(1, self._batch_tokens // max_length),
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
