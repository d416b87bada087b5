"""A model in vLLM, which runs in processes of its own: started once, then given new weights."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from mta_framework.errors import RunError
from mta_framework.generation.process_guard import ProcessGuard

_BLOCK = 128
"""Most tokens that vLLM allocates of its cache at a time."""

_ENVIRONMENT = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    "VLLM_NO_USAGE_STATS": "1",
}
"""Variables of vLLM that hold unless the user has set them: it prints errors alone, and reports its use to nobody."""

_STOP_SECONDS = 1.0


@dataclass(frozen=True)
class VllmOptions:
    """What vLLM is started with.

    Args:
        folder: Folder of the model, from which new weights are read, too.
        dtype: Dtype to compute in, e.g. ``bfloat16``.
        max_length: Maximum number of tokens of a prompt and its response together.
        batch_tokens: Number of prompt and response tokens that its cache has room for, at least one row.
    """

    folder: Path
    dtype: str
    max_length: int
    batch_tokens: int


class VllmProcess:
    """vLLM with one model, from the folder of ``options``. It takes tens of seconds to start.

    Args:
        label: Name of the model in messages.
        options: What vLLM is started with.

    Raises:
        RunError: vLLM cannot run the model, or there is too little memory.
    """

    def __init__(self, label: str, options: VllmOptions):
        self._label = label
        # Builds of vLLM for CPUs cannot give memory back.
        self._can_sleep = torch.cuda.is_available()
        self._sleeps = False
        with self._explained("could not be started"), _environment():
            # Without a guard, its processes would keep a GPU's memory when this one is killed.
            self._guard = ProcessGuard()
            try:
                self._llm = self._started(options)
            except BaseException:
                self._guard.end()
                raise

    def _started(self, options: VllmOptions) -> Any:
        import vllm

        with self._guard.new_children():
            return vllm.LLM(
                model=str(options.folder),
                skip_tokenizer_init=True,
                generation_config="vllm",
                dtype=options.dtype,
                max_model_len=options.max_length,
                kv_cache_memory_bytes=_cache_bytes(options),
                gpu_memory_utilization=_free_share(),
                enable_sleep_mode=self._can_sleep,
                use_tqdm_on_load=False,
            )

    def wake_up(self, new_weights: bool) -> None:
        """Take memory again after ``sleep``, and read the weights in the folder where they are new or were dropped.

        Args:
            new_weights: Whether the folder has other weights than before.
        """
        with self._explained("did not take its weights"):
            if self._sleeps:
                torch.cuda.empty_cache()
                self._llm.wake_up(tags=["weights"])
            if self._sleeps or new_weights:
                self._llm.collective_rpc("reload_weights")
            if self._sleeps:
                self._llm.wake_up(tags=["kv_cache"])
            self._sleeps = False

    def respond(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], settings: Mapping[str, Any]
    ) -> Iterator[tuple[int, Any]]:
        """Respond to prompts; what is computed depends on these arguments alone.

        Args:
            prompts: Token ids of each prompt, at least one.
            seeds: Seed of each prompt.
            settings: Fields of ``vllm.SamplingParams`` that all prompts share.

        Yields:
            The index of a prompt and its ``vllm.CompletionOutput``, as soon as it is finished.
        """
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        engine = self._llm.llm_engine
        with self._explained("stopped"):
            # All requests must have arrived before the first is computed, or batches would depend on time; and what
            # the cache knows of prompts from earlier calls would be missing in a run that is resumed here.
            self._llm.sleep(level=0)
            self._llm.reset_prefix_cache()
            for index, (ids, seed) in enumerate(zip(prompts, seeds, strict=True)):
                params = SamplingParams(**settings, seed=seed, output_kind=RequestOutputKind.FINAL_ONLY)
                engine.add_request(str(index), {"prompt_token_ids": list(ids)}, params)
            self._llm.wake_up(tags=["scheduling"])
        while engine.has_unfinished_requests():
            with self._explained("stopped"):
                outputs = engine.step()
            yield from ((int(output.request_id), output.outputs[0]) for output in outputs if output.finished)

    def sleep(self) -> None:
        """Give back the memory of weights and cache, on GPUs; the processes stay."""
        if self._can_sleep:
            with self._explained("did not give its memory back"):
                self._llm.sleep(level=2)
            self._sleeps = True

    def stop(self) -> None:
        """End the processes of vLLM."""
        try:
            # Otherwise they would begin to end when the last reference is dropped.
            self._llm.llm_engine.engine_core.shutdown(timeout=_STOP_SECONDS)
        finally:
            self._guard.end()

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            reason = " ".join(str(error).split()) or "without a message"
            raise RunError(
                f"generation: vLLM {what}, with the model {self._label} (got {type(error).__name__}: {reason}). Its "
                "processes write the cause to standard error. The same command goes on where this one stopped; where "
                "vLLM cannot run the model, set the engine to 'transformers'."
            ) from error


@contextmanager
def _environment() -> Iterator[None]:
    """Sets variables for a start of vLLM; afterwards removes those that vLLM set, or other child processes had them."""
    before = dict(os.environ)
    os.environ.update({name: value for name, value in _ENVIRONMENT.items() if name not in before})
    try:
        yield
    finally:
        for name in [name for name in os.environ if name not in before]:
            del os.environ[name]
        os.environ.update({name: value for name, value in before.items() if os.environ.get(name) != value})


def _cache_bytes(options: VllmOptions) -> int:
    """Size of a cache for as many of the longest rows as ``batch_tokens`` has room for, and a block for padding."""
    config = AutoConfig.from_pretrained(options.folder).get_text_config(decoder=True)
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    token_bytes = 2 * config.num_hidden_layers * heads * width * getattr(torch, options.dtype).itemsize
    rows = max(1, options.batch_tokens // options.max_length)
    blocks = rows * -(-options.max_length // _BLOCK) + 1
    return int(token_bytes * blocks * _BLOCK)


def _free_share() -> float:
    """Nine tenths of the free GPU memory, as a share of all; vLLM does not start where less than its share is free."""
    if not torch.cuda.is_available():
        return 0.9
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    return 0.9 * free / total
