"""A stand-in for vLLM's server, on this machine: ``prompt_logprobs`` of a tiny model, computed here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from mta_framework.testing.chat_server import ChatServer, Mishap, Received, send_response

Change = Callable[[dict[str, Any]], Any]


def write_teacher(
    folder: Path, tokenizer_folder: Path, seed: int = 7, vocabulary: int | None = None, hidden_size: int = 32
) -> Path:
    """Write a tiny Llama of random weights with a tokenizer; its distributions are far from uniform."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = PreTrainedTokenizerFast.from_pretrained(tokenizer_folder)
    torch.manual_seed(seed)
    sizes = {"hidden_size": hidden_size, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(
        vocab_size=vocabulary or len(tokenizer),
        max_position_embeddings=512,
        initializer_range=0.3,
        eos_token_id=tokenizer.eos_token_id,
        **sizes,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


class TeacherServer(ChatServer):
    """Answers ``/v1/completions`` and ``/tokenize`` as vLLM does.

    Args:
        folder: Folder of the model.
        mishaps: Functions that answer the first requests for completions, one each.
        change: Changes the answer to a completion.
        tokenizes: Whether there is a ``/tokenize``.
        tokenizer: Folder of another tokenizer that the server uses.
        seconds: Duration of each answer.
    """

    def __init__(
        self,
        folder: Path,
        mishaps: Iterable[Mishap] = (),
        change: Change = lambda answer: answer,
        tokenizes: bool = True,
        tokenizer: Path | None = None,
        seconds: float = 0.0,
    ):
        super().__init__(lambda question: None, (), seconds)
        self.model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(tokenizer or folder)
        self._change, self._tokenizes, self.mishaps = change, tokenizes, list(mishaps)

    @property
    def asked(self) -> list[tuple[int, ...]]:
        """The texts that completions were asked of, in order of arrival."""
        return [tuple(request.body["prompt"]) for request in self.received if request.path == "/v1/completions"]

    def reply(self, handler: BaseHTTPRequestHandler, request: Received) -> None:
        if request.path == "/tokenize" and self._tokenizes:
            ids = self.tokenizer(request.body["prompt"], add_special_tokens=False)["input_ids"]
            send_response(handler, 200, json.dumps({"tokens": ids, "count": len(ids)}).encode())
        elif request.path != "/v1/completions":
            send_response(handler, 404, b'{"detail": "Not Found"}')
        elif self.mishaps:
            self.mishaps.pop(0)(handler)
        else:
            answer = self._change(self.completion(request.body["prompt"], request.body["prompt_logprobs"]))
            send_response(handler, 200, json.dumps(answer).encode())

    @torch.no_grad()
    def completion(self, ids: list[int], k: int) -> dict[str, Any]:
        log_probs = self.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        entries: list[dict[str, Any] | None] = [None]
        for row, actual in zip(log_probs[:-1], ids[1:], strict=True):
            chosen = dict.fromkeys([actual, *row.topk(k).indices.tolist()])
            entries.append({str(index): self._token(index, row) for index in chosen})
        return {"choices": [{"index": 0, "text": "", "prompt_logprobs": entries}]}

    def _token(self, index: int, row: torch.Tensor) -> dict[str, Any]:
        rank = int((row > row[index]).sum()) + 1
        return {"logprob": float(row[index]), "rank": rank, "decoded_token": self.tokenizer.decode([index])}
