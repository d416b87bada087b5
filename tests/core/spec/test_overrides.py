from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mta_framework.spec.reading import read_spec
from mta_framework.spec.run import RunSpec

Write = Callable[..., Path]


def sound(path: Path, *overrides: str) -> RunSpec:
    reading = read_spec(path, overrides)
    assert reading.spec is not None, [str(fault) for fault in reading.faults]
    return reading.spec


def faults(path: Path, *overrides: str) -> list[str]:
    return [str(fault) for fault in read_spec(path, overrides).faults]


@pytest.mark.parametrize(
    ("override", "field", "value"),
    [
        ("training.epochs=3", "epochs", 3),
        ("training.learning_rate=1e-3", "learning_rate", 1e-3),
        ("training.precision=bf16", "precision", "bf16"),
        ('training.precision="bf16"', "precision", "bf16"),
        ("training.trackers=[]", "trackers", []),
        ("training.gradient_checkpointing=true", "gradient_checkpointing", True),
    ],
)
def test_a_value_is_json_or_else_a_string(write_spec: Write, override: str, field: str, value: Any) -> None:
    assert getattr(sound(write_spec(), override).training, field) == value


def test_a_whole_section_can_be_set(write_spec: Write) -> None:
    spec = sound(
        write_spec(), 'evaluation={"sets": {"test": {"hub": "rows", "split": "test"}}}', "evaluation.seeds=[1]"
    )
    assert spec.evaluation is not None
    assert (list(spec.evaluation.sets), spec.evaluation.seeds) == (["test"], [1])


def test_null_unsets_a_field_in_favour_of_another(write_spec: Write) -> None:
    training = sound(write_spec(), "training.epochs=null", "training.max_steps=30").training
    assert (training.epochs, training.max_steps) == (None, 30)


def test_the_last_of_two_settings_counts(write_spec: Write) -> None:
    assert sound(write_spec(), "seed=1", "seed=2").seed == 2


def test_list_entries_are_addressed_by_number(write_spec: Write) -> None:
    evaluation = {"sets": {"test": {"hub": "rows", "split": "test"}}, "metrics": [{"name": "a"}, {"name": "b"}]}
    spec = sound(write_spec(evaluation=evaluation), "evaluation.metrics.1.params.depth=2")
    assert spec.evaluation is not None
    assert [metric.params for metric in spec.evaluation.metrics] == [{}, {"depth": 2}]


def test_a_default_section_is_spelt_out_before_it_is_changed(write_spec: Write) -> None:
    spec = sound(write_spec(alignment={"spans": {"name": "words"}}), "alignment.layers.params.words=3")
    assert spec.alignment is not None
    assert spec.alignment.layers.model_dump() == {"name": "proportional", "params": {"words": 3}}


def test_defaults_are_not_changed_for_the_next_spec(write_spec: Write) -> None:
    path = write_spec(alignment={"spans": {"name": "words"}})
    sound(path, "alignment.layers.params.words=3")
    unchanged = sound(path).alignment
    assert unchanged is not None
    assert unchanged.layers.params == {}


def test_paths_are_relative_to_the_spec(write_spec: Write, tmp_path: Path) -> None:
    assert sound(write_spec(), "output_dir=elsewhere").output_dir == str(tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("override", "where", "words"),
    [
        ("nonsense", "--set nonsense", "KEY=VALUE"),
        ("=3", "--set =3", "KEY=VALUE"),
        ("training..epochs=3", "--set training..epochs=3", "KEY=VALUE"),
        ("student.lora.rank=4", "--set student.lora.rank=4", "student.lora, which is null"),
        ("evaluation.seeds=[1]", "--set evaluation.seeds=[1]", "evaluation, which is null"),
        ("training.epochs.x=1", "--set training.epochs.x=1", "training.epochs, which is 1"),
        ("training.batchsize=8", "--set training.batchsize", "Did you mean 'batch_size'?"),
        ("trainin.batch_size=8", "--set trainin", "Did you mean 'training'?"),
        ("training.batch_size=0", "--set training.batch_size", "an integer >= 1"),
        ("training.batch_size='8'", "--set training.batch_size", "wrong type"),
        ("training.learning_rate=NaN", "--set training.learning_rate", "got 'NaN'"),
        ('training={"epochs": 1, "epochs": 2}', "training.epochs", "2 times"),
    ],
)
def test_a_wrong_setting_is_blamed_itself(write_spec: Write, override: str, where: str, words: str) -> None:
    (message,) = faults(write_spec(), override)
    assert message.startswith(f"{where}: ")
    assert words in message


@pytest.mark.parametrize("entry", ["2", "-1", "x"])
def test_an_entry_that_a_list_does_not_have_is_a_fault(write_spec: Write, entry: str) -> None:
    (message,) = faults(write_spec(training={"epochs": 1, "trackers": ["wandb"]}), f"training.trackers.{entry}=mlflow")
    assert "expected the index of an entry of training.trackers, up to 0" in message


def test_a_value_that_was_wrong_in_the_file_can_be_mended(write_spec: Write) -> None:
    assert sound(write_spec(seed="x"), "seed=5").seed == 5
