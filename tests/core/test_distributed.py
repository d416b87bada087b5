"""Processes: what starts them, and evaluation on two."""

from __future__ import annotations

import json
import os

import pytest
from warm_python import CPU

from mta_framework import InputError
from mta_framework.distributed import processes

PROGRAM = """
import json, os, sys
import torch
from pathlib import Path
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from mta_framework import Metric, RunError, ScoreSet
from mta_framework.evaluation.evaluate import Candidate, EvaluationSet, evaluate_models
from mta_framework.generation.sampling_settings import Sampling
from mta_framework.distributed import processes, run_on_main, shutdown

class Length(Metric):
    NAME = "length"
    def score(self, answers):
        return ScoreSet(tuple(float(len(text)) for text in answers.predictions))

def fail():
    raise RunError("metric mine: failed")

assert processes().num_processes == int(os.environ.get("WORLD_SIZE", "1"))
vocabulary = {f"w{number}": number for number in range(30)}
tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="w0")))
torch.manual_seed(1)
shape = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2)
model = LlamaForCausalLM(LlamaConfig(vocab_size=30, eos_token_id=None, initializer_range=0.3, **shape))
prompts = [[number, number + 1][: 1 + number % 2] for number in range(5)]
entry = EvaluationSet("set", [str(ids) for ids in prompts], prompts, [["w1"]] * 5, [[[1], [1, 0]]] * 5, ["?"] * 5)
answer = {}
for temperature in (0, 1.0):
    candidate = Candidate("student", str(temperature), tokenizer, (), lambda: model, [entry])
    sampling = Sampling(temperature, 1.0, 5, 20)
    folder = Path(sys.argv[1]) / str(temperature)
    evaluation = evaluate_models([candidate], [Length(Length.Params())], sampling, [10], folder)
    answer[str(temperature)] = [[row.prompt, row.prediction, row.scores] for row in evaluation.results[0].predictions]
same = EvaluationSet("same", ["w3"] * 2, [[3]] * 2, [["w1"]] * 2, [[[1], [1, 0]]] * 2, ["?"] * 2)
candidate = Candidate("twins", "", tokenizer, (), lambda: model, [same])
twins = evaluate_models([candidate], [Length(Length.Params())], Sampling(1.0, 1.0, 20, 1), [10], Path(sys.argv[1]))
answer["twins"] = [row.prediction for row in twins.results[0].predictions]
try:
    run_on_main(fail)
except RunError as error:
    answer["error"] = str(error)
print(json.dumps(answer))
shutdown()
"""


def answer(process):
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    return json.loads(out.splitlines()[-1])


@pytest.mark.parametrize(
    ("variable", "name"),
    [
        ("ACCELERATE_USE_DEEPSPEED", "DeepSpeed"),
        ("ACCELERATE_USE_FSDP", "accelerate's FSDP plugin"),
        ("ACCELERATE_USE_MEGATRON_LM", "Megatron-LM"),
        ("ACCELERATE_USE_PARALLELISM_CONFIG", "accelerate's parallelism configuration"),
    ],
)
def test_a_launch_that_would_shard_the_student_alone_is_refused(variable, name, monkeypatch):
    monkeypatch.setenv(variable, "true")
    with pytest.raises(InputError) as refusal:
        processes()
    assert [str(fault) for fault in refusal.value.faults] == [
        f"accelerate launch: shards by {name}, which would shard the student alone; expected processes and nothing "
        "else. Leave that out of command and configuration of accelerate, and set training.sharding to fsdp2."
    ]


@pytest.mark.slow
def test_two_processes_share_the_prompts_and_agree_on_everything(tmp_path, warm_python):
    pair = warm_python.start_ranks([["-c", PROGRAM, tmp_path / "two"]] * 2)
    first, second = [answer(process) for process in pair]
    alone = answer(warm_python.start(["-c", PROGRAM, tmp_path / "one"], {**os.environ, **CPU}))
    assert first == second == alone
    assert first["twins"][0] != first["twins"][1]
    assert first["error"] == "metric mine: failed"
