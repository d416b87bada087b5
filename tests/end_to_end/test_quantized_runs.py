"""Whole runs with weights in 8 and 4 bit: they train, resume to the same bits, export, and evaluate the export."""

from __future__ import annotations

import json

import pytest
import torch
from broken_runs import finished, interrupted
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_page")]


@pytest.fixture
def write(spec_dict, write_spec, tokenizer_folder, tmp_path):
    """A spec whose teacher and student are folders, 64 wide as blocks of 4-bit weights are."""
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    shape = spec_dict["student"]["config"] | {"hidden_size": 64, "intermediate_size": 128}
    for name, layers in (("large", 4), ("small", 4)):
        torch.manual_seed(layers)
        config = AutoConfig.for_model(**shape | {"num_hidden_layers": layers, "vocab_size": len(tokenizer)})
        AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)

    def write(student, teacher=None, **training):
        changes = {
            "teacher": {"path": "large", **(teacher or {})},
            "student": {"path": "small", "lora": {"rank": 4}, **student},
            "training": {**spec_dict["training"], "save_steps": 2, **training},
        }
        return write_spec({**spec_dict, **changes})

    return write


def losses(report):
    return [entry["loss"] for entry in report.log if "loss" in entry]


@pytest.mark.parametrize(
    ("bits", "training"),
    [
        (4, {"precision": "bf16", "optimizer": "adamw_8bit", "gradient_checkpointing": True}),
        (8, {"optimizer": "adafactor"}),
    ],
)
def test_run_resumes_to_the_same_bits_and_evaluates_its_plain_export(write, tmp_path, bits, training):
    path = write({"quantization": {"bits": bits}}, {"quantization": {"bits": 8}}, **training)
    report = finished(path, "straight")
    interrupted(path, "stopped", step=3)
    resumed = finished(path, "stopped", resume=True)
    assert losses(report) == losses(resumed)
    exported = tmp_path / "runs" / "straight" / "student"
    stopped = tmp_path / "runs" / "stopped" / "student" / "model.safetensors"
    assert (exported / "model.safetensors").read_bytes() == stopped.read_bytes()
    weights = load_file(exported / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {
        torch.bfloat16 if training.get("precision") == "bf16" else torch.float32
    }
    assert weights.keys() == load_file(tmp_path / "small" / "model.safetensors").keys()
    assert {score.model for score in report.evaluation.scores} == {"student", "teacher", "initial_student"}
    assert "bitsandbytes" in report.versions


def test_run_exports_adapters_alone_and_evaluates_them(write, tmp_path):
    path = write({"quantization": {"bits": 4}, "lora": {"rank": 4, "export": "adapters"}})
    report = finished(path, "adapters")
    files = {file.name for file in (tmp_path / "runs" / "adapters" / "student").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors"} <= files
    assert "model.safetensors" not in files
    merged = finished(path, "merged", "student.lora.export=merged")
    assert losses(report) == losses(merged)
    for score in report.evaluation.scores:
        assert score.model != "student" or 0 <= score.mean <= 100


@pytest.mark.parametrize("term", ["dsa", "hid", "span_logits", "hidden_mse", "cka"])
def test_alignment_terms_take_states_of_a_frozen_base_in_16_bit(write, term, spec_dict, write_spec):
    path = write({}, precision="bf16", max_steps=2)
    spec = json.loads(path.read_text())
    spec["alignment"]["terms"] = [{"name": term, "weight": 1.0}]
    report = finished(write_spec({**spec, "evaluation": None}), term)
    assert all(torch.isfinite(torch.tensor(losses(report))))
    assert len(losses(report)) == 2
