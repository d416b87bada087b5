"""The benchmark of generation runs; what it measures is not judged here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "generation.py"


@pytest.fixture
def model_folder(tokenizer_folder, tmp_path):
    """A Llama of 2 layers with random weights."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2}
    LlamaForCausalLM(LlamaConfig(**shape, vocab_size=len(tokenizer))).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.slow
@pytest.mark.parametrize("made_up", [True, False])
def test_it_prints_the_speed_of_both_ways_and_their_ratio(model_folder, rows_file, made_up, warm_python):
    data = [] if made_up else ["--data", str(rows_file)]
    sizes = ["--prompts", "7", "--rows", "3", "--new-tokens", "9", "--parts", "2", "--threads", "1"]
    done = warm_python.run([BENCHMARK, *data, "--model", model_folder, *sizes], check=True)
    speeds = {
        name: float(re.search(rf"^{name} +([\d.]+) tokens/s", done.stdout, re.MULTILINE)[1])
        for name in ("plain loop", "ours")
    }
    [ratio] = re.findall(r"ours / plain +([\d.]+)  \(target: at least 3\.00\)", done.stdout)
    assert float(ratio) == pytest.approx(speeds["ours"] / speeds["plain loop"], abs=0.02)
