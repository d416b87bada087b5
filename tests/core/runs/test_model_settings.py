"""Settings of models and optimisers that a package, a file or another setting does not allow, by ``mta check``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mta_framework import InputError
from mta_framework.registry import Registry, discover
from mta_framework.runs.plugin_binding import bind

Write = Callable[..., Path]


@pytest.fixture(scope="module")
def registry() -> Registry:
    return discover()


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(**fields: Any) -> Path:
        spec: dict[str, Any] = {
            "name": "spec",
            "student": {"hub": "student"},
            "data": {"train": {"hub": "rows", "split": "train"}},
            "base_loss": {"name": "sft"},
            "training": {"epochs": 1, "trackers": []},
        }
        path = tmp_path / "spec.json"
        path.write_text(json.dumps(spec | fields))
        return path

    return write


def faults(path: Path, registry: Registry) -> list[str]:
    with pytest.raises(InputError) as refusal:
        bind(path, registry)
    return [str(fault) for fault in refusal.value.faults]


def test_a_setting_whose_package_is_not_installed_is_refused_with_the_way_to_get_it(
    write: Write, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed: set[str] = set()
    monkeypatch.setattr("mta_framework.runs.checks.find_spec", lambda name: object() if name in installed else None)
    monkeypatch.setattr("mta_framework.runs.checks.version", lambda name: "0.50.2")
    changes = {
        "training": {"epochs": 1, "trackers": [], "precision": "bf16", "optimizer": "adamw_8bit"},
        "student": {"hub": "gpt2", "attention": "flash_attention_2"},
    }
    assert faults(write(**changes), registry) == [
        "training.optimizer: needs the package bitsandbytes, which is not installed (got 'adamw_8bit'); "
        "expected a setting that the installed packages offer. Choose another, or: pip install 'bitsandbytes>=0.50'.",
        "student.attention: needs the package flash_attn, which is not installed (got 'flash_attention_2'); "
        "expected a setting that the installed packages offer. Choose another, or: pip install flash-attn.",
    ]
    installed |= {"bitsandbytes", "flash_attn"}
    assert {"bitsandbytes", "flash_attn"} <= set(bind(write(**changes), registry).packages)


@pytest.mark.parametrize(
    ("precision", "dtype", "refused"),
    [
        ("fp32", "auto", "student teacher"),
        ("fp32", "float16", "student"),
        ("bf16", "float32", "teacher"),
        ("bf16", "auto", ""),
    ],
)
def test_flash_attention_is_refused_where_weights_have_32_bit(
    precision: str, dtype: str, refused: str, write: Write, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mta_framework.runs.checks.find_spec", lambda name: object())
    flash = {"hub": "gpt2", "attention": "flash_attention_2"}
    training = {"epochs": 1, "trackers": [], "precision": precision}
    path = write(teacher={**flash, "dtype": dtype}, student=flash, base_loss={"name": "kl"}, training=training)
    expected = [
        f"{name}.attention: computes in 16 bit only, and the {name} in 32 (got 'flash_attention_2'); "
        "expected sdpa or eager, or 16 bit. Choose one of these, or set training.precision to bf16."
        for name in refused.split()
    ]
    assert (faults(path, registry) if expected else bind(path, registry) and []) == expected


QUANTISED = {"quantization": {"bits": 4}}


@pytest.mark.parametrize(
    ("student", "message"),
    [
        (
            {"hub": "gpt2", **QUANTISED},
            "student.quantization: makes weights that cannot be trained, and lora is null; expected null, or low-rank "
            'adapters to train. Add "lora": {}, or set it to null.',
        ),
        (
            {"teacher_layers": [1, 2], "lora": {}, **QUANTISED},
            "student.quantization: quantises weights while they are read from files, and teacher_layers makes them anew"
            "; expected null, or a student by hub or path. Set it to null, or give the student by hub or path.",
        ),
        (
            {"teacher_layers": [1, 2], "lora": {"export": "adapters"}},
            "student.lora.export: leaves out the weights that teacher_layers makes, which nothing else has "
            "(got 'adapters'); expected 'merged', or a student by hub or path. Set it to merged.",
        ),
        (
            {"hub": "gpt2", "lora": {}, "quantization": {"bits": 8, "use_double_quant": True}},
            "student.quantization.use_double_quant: has no effect where bits is 8 (got true); expected its default, "
            "false. Remove it.",
        ),
        (
            {"path": "{gguf}", "lora": {}, **QUANTISED},
            "student.quantization: cannot be had of a GGUF file, whose weights are expanded (got {gguf}); expected "
            "null, or a model by hub or as a folder of safetensors. Set it to null, or give the model as a folder.",
        ),
        (
            {"path": "{gguf}", "lora": {"export": "adapters"}},
            "student.lora.export: makes a folder for which peft finds no model, since the student is a GGUF file "
            "(got 'adapters'); expected 'merged', or a student by hub or as a folder. Set it to merged.",
        ),
    ],
)
def test_weights_that_cannot_be_quantised_or_left_out_are_refused(
    student: dict[str, Any],
    message: str,
    write: Write,
    registry: Registry,
    tiny_gguf: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mta_framework.runs.checks.find_spec", lambda name: object())
    monkeypatch.setattr("mta_framework.runs.checks.version", lambda name: "0.50.2")
    student = {name: str(tiny_gguf) if value == "{gguf}" else value for name, value in student.items()}
    path = write(student=student, teacher={"hub": "gpt2-medium"}, base_loss={"name": "kl"})
    assert faults(path, registry) == [message.replace("{gguf}", str(tiny_gguf))]


@pytest.mark.parametrize(
    ("installed", "refused"), [(None, True), ("0.49.2", True), ("0.50.0", False), ("1.2.3", False)]
)
def test_quantization_needs_a_bitsandbytes_that_runs_on_cpus_too(
    installed: str | None, refused: bool, write: Write, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mta_framework.runs.checks.find_spec", lambda name: installed and object())
    monkeypatch.setattr("mta_framework.runs.checks.version", lambda name: installed)
    path = write(student={"hub": "gpt2", "lora": {}, **QUANTISED}, training={"epochs": 1, "trackers": []})
    if not refused:
        assert "bitsandbytes" in bind(path, registry).packages
        return
    (message,) = faults(path, registry)
    state = "is not installed" if installed is None else f"has to be 0.50 or later, and {installed} is installed"
    assert message == (
        f"student.quantization: needs the package bitsandbytes, which {state} (got '4 bit'); expected a setting that "
        "the installed packages offer. Choose another, or: pip install 'bitsandbytes>=0.50'."
    )


def test_quantised_weights_are_not_sharded(write: Write, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mta_framework.runs.checks.find_spec", lambda name: object())
    monkeypatch.setattr("mta_framework.runs.checks.version", lambda name: "0.50.2")
    training = {"epochs": 1, "trackers": [], "sharding": "fsdp2"}
    path = write(student={"hub": "gpt2", "lora": {}, **QUANTISED}, training=training)
    assert faults(path, registry) == [
        "student.quantization: makes weights that cannot be divided among processes (got sharding 'fsdp2'); "
        "expected null with training.sharding. Set one of the two to null."
    ]


def test_a_teacher_run_that_exports_adapters_alone_is_refused(write: Write, registry: Registry, tmp_path: Path) -> None:
    teacher = write(student={"hub": "gpt2", "lora": {"export": "adapters"}})
    teacher = teacher.rename(tmp_path / "teacher.json")
    path = write(name="student", teacher={"run": str(teacher)}, base_loss={"name": "kl"})
    assert (
        f"teacher.run: exports adapters alone (got {teacher}); expected a run that exports a whole model. "
        "Set student.lora.export to merged in that spec."
    ) in faults(path, registry)
