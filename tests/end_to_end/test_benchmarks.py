"""The benchmarks run; what they measure is not judged here."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def teacher_folder(tokenizer_folder, tmp_path):
    """A Llama of 8 layers with random weights."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 2}
    config = LlamaConfig(
        **shape, num_hidden_layers=8, vocab_size=len(tokenizer), tie_word_embeddings=True, initializer_range=0.3
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "teacher")
    tokenizer.save_pretrained(tmp_path / "teacher")
    return tmp_path / "teacher"


@pytest.fixture
def step_benchmark(warm_python):
    def run(*arguments):
        command = [BENCHMARKS / "step.py", *arguments, "--steps", "2", "--batch-size", "4"]
        return warm_python.run(command, check=True).stdout

    return run


@pytest.mark.slow
def test_step_benchmark_prints_every_base_the_usual_way_and_their_ratios(step_benchmark, teacher_folder, rows_file):
    printed = step_benchmark("--data", rows_file, "--teacher", teacher_folder)
    for base in ("kl", "jsd", "fdd", "distillm", "distillm2"):
        for expected in (f"{base}, MTA off", f"{base}, MTA on ", f"{base}: MTA on / MTA off"):
            assert expected in printed
    for expected in (
        "naive kl, MTA on",
        "kl: naive / ours",
        "kl: peak of the loss part, ours / naive",
        "fdd / kl ",
        "fdd / kl: peak of the loss part",
        "fdd / kl: peak of a step",
    ):
        assert expected in printed


@pytest.mark.slow
def test_step_benchmark_runs_on_made_up_texts_without_a_parser_in_bf16(step_benchmark, teacher_folder):
    printed = step_benchmark("--teacher", teacher_folder, "--bases", "fdd", "--spans", "words", "--dtype", "bfloat16")
    assert "fdd: MTA on / MTA off" in printed
    assert "kl" not in printed


@pytest.mark.slow
def test_floor_benchmark_divides_a_step_into_parts_that_add_up(warm_python, teacher_folder, rows_file):
    sizes = ["--steps", "2", "--batch-size", "4", "--spans", "words"]
    command = [BENCHMARKS / "floor.py", "--data", rows_file, "--teacher", teacher_folder, *sizes]
    summary, _, parts = warm_python.run(command, check=True).stdout.partition("in units of the floor:\n")
    (ratio,) = re.findall(r"kl \+ MTA\s+step / floor ([0-9.]+)", summary)
    assert sum(float(line.split()[-1]) for line in parts.splitlines()) == pytest.approx(float(ratio), abs=0.01)


@pytest.mark.slow
def test_cache_benchmark_rehearses_all_measures_on_small_models(rows_file, tmp_path):
    sizes = ["--steps", "1", "--batch-size", "4", "--xl-steps", "1"]
    command = [sys.executable, BENCHMARKS / "cache.py", "--tiny", "--data", rows_file, "--spans", "words", *sizes]
    # A new interpreter: it starts others.
    printed = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path).stdout
    for name in ("making / forward", "on disk", "step: live / cached", "reading / cached step"):
        assert sum(line.startswith(name) for line in printed.splitlines()) == 2, name
    for name in ("8-bit states: relative error of the loss", "8-bit states: relative error of the gradient", "peak: "):
        assert sum(line.startswith(name) for line in printed.splitlines()) == 1, name


def test_made_up_teacher_and_rows_can_be_loaded(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import synthetic
    from transformers import AutoModelForCausalLM, AutoTokenizer

    monkeypatch.setattr(synthetic, "SHAPE", {**synthetic.SHAPE, "vocab_size": 4100, "num_hidden_layers": 1})
    rows = synthetic.write_rows(tmp_path / "rows.jsonl", 40)
    folder = synthetic.write_teacher(tmp_path / "teacher", rows)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    row = json.loads(rows.read_text().splitlines()[0])
    assert tokenizer.decode(tokenizer(row["instruction"])["input_ids"]) == row["instruction"]
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.config.vocab_size >= len(tokenizer)


def test_naive_and_ours_compute_the_same_loss(teacher_folder, rows_file, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from workload import Options, Workload

    workload = Workload(rows_file, teacher_folder, Options(["kl"], steps=0, batch_size=1))
    losses = {name: loss_of(workload.texts[0]).item() for name, loss_of in workload.losses().items()}
    assert losses["naive kl, MTA on"] == pytest.approx(losses["kl, MTA on"], rel=1e-4)


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
