"""Models sharded over two gloo ranks: shares, gathering and plain copies."""

from __future__ import annotations

import json

import pytest

PROGRAM = """
import json, os, sys
import torch
from pathlib import Path
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import LlamaConfig, LlamaForCausalLM
from mta_framework.distributed import mesh, processes, shutdown
from mta_framework.models.export import load_weights, save_weights
from mta_framework.models.sharding import gathered, is_sharded, plain_copy, reshard, shard_module

class Root(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model
    def forward(self, ids_BT):
        return self.model(ids_BT).logits
    def again(self, ids_BT):
        return self.forward(ids_BT)

shape = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=2)
ids_BT = torch.arange(12).reshape(2, 6)
folder, main, answers = Path(sys.argv[1]), processes().is_main_process, {}
for kind in ("untied", "tied", "adapted"):
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=50, tie_word_embeddings=kind == "tied", **shape))
    if kind == "adapted":
        model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    with torch.no_grad():
        expected = model(ids_BT).logits
    before = {name: value.clone() for name, value in model.state_dict().items()}
    plain, root = plain_copy(model), Root(model)
    answer = {"sharded before": is_sharded(root)}
    shard_module(root, model, mesh(), ("again",))
    answer["sharded"] = is_sharded(root) and all(isinstance(it, DTensor) for it in root.parameters())
    held = sum(it.to_local().numel() for it in root.parameters())
    answer["share"] = held / sum(it.numel() for it in root.parameters())
    with torch.no_grad():
        answer["logits"] = [torch.equal(root.again(ids_BT), expected) for _ in range(2)]
    answer["resharded"] = all(isinstance(it, DTensor) for it in root.parameters())
    with gathered(plain), torch.no_grad():
        answer["copy"] = torch.equal(plain(ids_BT).logits, expected)
        state = plain.state_dict()
        answer["state"] = [*state] == [*before] and all(torch.equal(state[name], it) for name, it in before.items())
        head, embeddings = plain.get_output_embeddings().weight, plain.get_input_embeddings().weight
        answer["tied"] = head is embeddings
    answer["empty"] = all(it.is_meta for it in plain.parameters())
    save_weights(model, folder / kind, write=main)
    processes().wait_for_everyone()
    with torch.no_grad():
        for it in root.parameters():
            it.add_(1.0) if it.requires_grad else None
    with gathered(plain), torch.no_grad():
        answer["changed"] = not torch.equal(plain(ids_BT).logits, expected)
    load_weights(model, folder / kind)
    root(ids_BT)  # with gradient: what is outside of the blocks stays gathered
    reshard(root)
    with torch.no_grad():
        answer["loaded"] = torch.equal(root.again(ids_BT), expected)
    answers[kind] = answer
print(json.dumps(answers))
shutdown()
"""


@pytest.mark.slow
def test_shares_are_halves_and_gather_to_the_same_bits(tmp_path, warm_python):
    for process in warm_python.start_ranks([["-c", PROGRAM, tmp_path]] * 2):
        out, error = process.communicate(timeout=300)
        assert process.returncode == 0, error[-3000:]
        for kind, answer in json.loads(out.splitlines()[-1]).items():
            assert answer.pop("share") == pytest.approx(0.5, abs=0.01)
            assert answer.pop("tied") == (kind == "tied")
            assert answer.pop("logits") == [True, True]
            assert answer.pop("sharded before") is False
            assert all(answer.values()), (kind, answer)
