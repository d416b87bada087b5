"""The benchmarks run; what they measure is not judged here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
def test_step_benchmark_prints_both_ways_and_their_ratios(tokenizer_folder, rows_file, tmp_path):
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 2}
    config = LlamaConfig(**shape, num_hidden_layers=8, vocab_size=len(tokenizer), tie_word_embeddings=True)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "teacher")
    tokenizer.save_pretrained(tmp_path / "teacher")
    command = [sys.executable, str(BENCHMARKS / "step.py"), "--data", str(rows_file)]
    command += ["--teacher", str(tmp_path / "teacher"), "--steps", "2", "--batch-size", "4"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    for expected in (
        "ours, MTA off",
        "ours, MTA on",
        "usual way, MTA on",
        "MTA on / MTA off",
        "peak, ours / usual way",
    ):
        assert expected in done.stdout


def test_usual_way_and_ours_compute_the_same_loss(tokenizer_folder, rows_file, tmp_path, monkeypatch):
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from setting import Setting

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 2}
    config = LlamaConfig(**shape, num_hidden_layers=8, vocab_size=len(tokenizer), initializer_range=0.3)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "teacher")
    tokenizer.save_pretrained(tmp_path / "teacher")
    setting = Setting(rows_file, tmp_path / "teacher", batches=1, batch_size=1, max_length=256, device="cpu")
    losses = {name: loss_of(setting.texts[0]).item() for name, loss_of in setting.ways().items()}
    assert losses["usual way, MTA on"] == pytest.approx(losses["ours, MTA on"], rel=1e-4)


def test_peak_is_the_most_that_is_held_at_once_and_not_what_was_freed(monkeypatch):
    import torch

    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from memory import peak_bytes

    def work():
        freed = torch.ones(5_000_000)
        del freed
        first = torch.ones(1_000_000)
        return first + 1

    assert peak_bytes(work, "cpu") == pytest.approx(4 * 5_000_000, rel=1e-4)
