"""A teacher cache through faults, and shared: kills, full disks, damage, copies, two runs at once, sweeps."""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest

from mta_framework import RunError
from mta_framework.models import run_models
from mta_framework.registry import discover
from mta_framework.runs import pipeline, teacher_setup
from mta_framework.runs.plugin_binding import bind
from mta_framework.teacher_cache.recording import Recorder

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("trained_teacher", "no_page")]

HERE = Path(__file__).parent
LAYERS = {"name": "proportional", "params": {"words": 2, "phrases": 0}}
GENERATES = {"max_new_tokens": 8, "batch_tokens": 400}


@pytest.fixture
def spec(spec_dict):
    """Two steps of KL with MTA by a teacher cache, without a parser and without an evaluation."""
    teacher = {**spec_dict["teacher"], "cache": {}}
    alignment = {"spans": {"name": "words"}, "layers": LAYERS}
    training = {**spec_dict["training"], "max_steps": 2}
    return {**spec_dict, "teacher": teacher, "alignment": alignment, "training": training, "evaluation": None}


@pytest.fixture
def counts(monkeypatch):
    """How often the teacher was loaded in this process, and on how many texts it was run to record them."""
    made, load, records = Counter(), run_models.load_teacher, Recorder.records

    def counted_load(*arguments):
        made["loads"] += 1
        return load(*arguments)

    def counted_records(recorder, states, batch, texts, kinds):
        made["texts"] += len(batch.input_ids_BT)
        return records(recorder, states, batch, texts, kinds)

    monkeypatch.setattr(run_models, "load_teacher", counted_load)
    monkeypatch.setattr(Recorder, "records", counted_records)
    return made


def run(path, *overrides, resume=False):
    return pipeline.run(bind(path, discover(), overrides), resume=resume)


def weights(tmp_path, name):
    return (tmp_path / "runs" / name / "student" / "model.safetensors").read_bytes()


def cache_of(tmp_path):
    """The folder of the one teacher in the cache."""
    (folder,) = (tmp_path / "runs" / "teacher-cache").glob("teacher-*")
    return folder


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def keys_per_kind(folder):
    """How often each record is on disk."""
    counted = Counter()
    for path in folder.rglob("*.arrow"):
        with pa.memory_map(str(path)) as source:
            counted.update((path.parent.name, key) for key in pa.ipc.open_file(source).read_all()["key"].to_pylist())
    return counted


def test_a_run_that_is_killed_while_making_or_training_ends_in_the_bits_of_a_straight_one(
    spec, write_spec, tmp_path, warm_python
):
    training = {**spec["training"], "max_steps": None, "epochs": 5, "save_steps": 4}
    path = write_spec({**spec, "training": training})
    command = ["-m", "mta_framework", "run", path]
    begin = time.monotonic()
    warm_python.run([*command, "--set", "name=straight", "--set", f"output_dir={tmp_path}/runs"], check=True)
    duration = time.monotonic() - begin
    shutil.move(cache_of(tmp_path), tmp_path / "straight-cache")

    draw = random.Random(0)
    for moment in [0.3, 0.5, 0.7 + 0.2 * draw.random()]:
        running = warm_python.start([*command, "--set", "name=killed", "--resume"])
        time.sleep(moment * duration)
        running.send_signal(signal.SIGKILL)
        running.wait()
    warm_python.run([*command, "--set", "name=killed", "--resume"], check=True)
    assert weights(tmp_path, "killed") == weights(tmp_path, "straight")


def test_a_full_disk_ends_the_making_with_a_sentence_and_with_room_it_goes_on(spec, write_spec, tmp_path, warm_python):
    path = write_spec(spec)
    run(path, "name=first", "training.max_steps=1")
    before = contents(cache_of(tmp_path) / "records")
    done = warm_python.run([HERE / "full_disk_worker.py", "teacher cache", "run", path])
    assert done.returncode == 1, done.stderr[-3000:]
    sentence = done.stderr.split("The run failed: ")[1]
    assert str(cache_of(tmp_path)) in sentence
    assert "make room" in sentence
    assert "Traceback" not in done.stderr
    assert contents(cache_of(tmp_path) / "records") == before

    run(path, resume=True)
    straight = write_spec({**spec, "teacher": {**spec["teacher"], "cache": {"path": str(tmp_path / "another")}}})
    run(straight, "name=once", "training.max_steps=1")
    run(straight, "name=straight")
    assert weights(tmp_path, "student") == weights(tmp_path, "straight")


@pytest.mark.parametrize(
    "pattern", ["records/final_states-*/*.arrow", "records/geometry-*/*.arrow", "head.safetensors", "tail.safetensors",
                "teacher.json", "config.json", "layers/*.json"],
)  # fmt: skip
def test_a_flipped_byte_is_found_named_and_never_trained_on(pattern, spec, write_spec, tmp_path, caplog):
    if pattern.startswith("layers"):
        spec["alignment"]["layers"] = {"name": "cka", "params": {"texts": 8, "words": 2, "phrases": 0}}
    path = write_spec(spec)
    run(path, "name=first")
    file = next(cache_of(tmp_path).glob(pattern))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)
    caplog.clear()
    run(path, "name=again")
    assert sum(file.name in record.getMessage() for record in caplog.records) == 1
    assert weights(tmp_path, "again") == weights(tmp_path, "first")
    caplog.clear()
    run(path, "name=healed")
    assert not [record for record in caplog.records if "teacher cache" in record.getMessage()]


def test_a_copy_without_the_teacher_trains_the_same_student_and_is_not_written_to(spec, write_spec, tmp_path, counts):
    path = write_spec(spec)
    run(path, "name=first")
    shared = tmp_path / "elsewhere" / "cache"
    shutil.copytree(cache_of(tmp_path).parent, shared)
    (folder,) = shared.glob("teacher-*")
    for directory in (shared, *(path for path in shared.rglob("*") if path.is_dir())):
        directory.chmod(0o555)
    before = contents(shared)
    counts.clear()
    teacher = {"path": str(folder), "cache": {"path": str(shared)}}
    without = write_spec({**spec, "teacher": teacher, "output_dir": "runs-elsewhere"}, "elsewhere.json")
    run(without, "name=copy")
    assert counts == {}
    assert contents(shared) == before
    weights_elsewhere = tmp_path / "runs-elsewhere" / "copy" / "student" / "model.safetensors"
    assert weights_elsewhere.read_bytes() == weights(tmp_path, "first")
    with pytest.raises(RunError, match=r"lacks \d+ texts? of this run, and .* holds no weights to make them"):
        run(without, "name=more", "training.max_steps=4")


BASES = {
    "on_policy": ({"name": "kl", "params": {"batches": {"policy": "on_policy", "fraction": 1.0}}}, 1),
    "adaptive": ({"name": "distillm", "params": {"batches": {"policy": "adaptive", "initial_threshold": 1.0}}}, 1),
    "pairs": ({"name": "distillm2", "params": {"anchor_steps": 1}}, 1),
    "data alone": ({"name": "jsd"}, 0),
}


@pytest.mark.parametrize("base", sorted(BASES))
def test_the_live_teacher_is_loaded_once_where_texts_are_written_and_never_otherwise(base, spec, write_spec, counts):
    base_loss, loads = BASES[base]
    generation = GENERATES if loads else None
    changes = {"base_loss": base_loss, "training": {**spec["training"], "generation": generation}}
    path = write_spec({**spec, **changes})
    run(path, "name=first")
    counts.clear()
    report = run(path, "name=again")
    assert (counts["loads"], counts["texts"]) == (loads, 0)
    live = run(path, "name=live", "teacher.cache=null")
    logged = [[entry["loss"] for entry in log if "loss" in entry] for log in (report.log, live.log)]
    assert logged[0][0] == pytest.approx(logged[1][0], rel=1e-5)


def test_two_runs_that_fill_a_cache_at_once_make_each_record_once(spec, write_spec, tmp_path, warm_python):
    path = write_spec(spec)
    command = ["-m", "mta_framework", "run", path, "--set"]
    running = [warm_python.start([*command, f"name={name}"]) for name in ("a", "b")]
    for process in running:
        _, errors = process.communicate()
        assert process.returncode == 0, errors[-2000:]
    assert set(keys_per_kind(cache_of(tmp_path)).values()) == {1}
    assert weights(tmp_path, "a") == weights(tmp_path, "b")


def test_cells_of_a_sweep_share_one_cache(spec, write_spec, tmp_path, warm_python):
    write_spec({**spec, "alignment": None, "training": {**spec["training"], "max_steps": 4}})
    losses = {"KL": {}, "JSD": {"base_loss": {"name": "jsd"}}}
    axes = [{"name": "loss", "cells": losses}, {"name": "seed", "field": "seed", "values": [1, 2]}]
    path = write_spec({"name": "tiny", "spec": "student.json", "axes": axes, "baseline": "KL"}, "sweep.json")
    done = warm_python.run([HERE / "warm_sweep_worker.py", "sweep", path, "--jobs", "2"])
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "sweeps" / "tiny"
    runs = [re.findall(r"Teacher: 100%\|.*?\| (\d+)/\1 ", log.read_text()) for log in folder.glob("*/run.log")]
    recorded = sum(int(bars[-1]) for bars in runs if bars)
    keys = keys_per_kind(folder / "teacher-cache")
    assert len(runs) == 4
    assert recorded == len(keys) > 32  # the texts of four steps, of two seeds
    assert set(keys.values()) == {1}


def test_a_cell_that_repeats_measures_the_similarity_of_layers_once(spec, write_spec, tmp_path, monkeypatch):
    spec["alignment"]["layers"] = {"name": "cka", "params": {"texts": 8, "words": 2, "phrases": 0}}
    path, measured, compare = write_spec(spec), [], teacher_setup.similarity

    def counted(*arguments):
        measured.append(arguments)
        return compare(*arguments)

    monkeypatch.setattr(teacher_setup, "similarity", counted)
    first = run(path, "name=first")
    again = run(path, "name=again", "training.learning_rate=1e-2")
    assert len(measured) == 1
    assert again.layer_pairs == first.layer_pairs
    run(path, "name=another", "seed=2")  # another student, and other texts
    assert len(measured) == 2
    saved = [json.loads((tmp_path / "runs" / name / "key-layers.json").read_text()) for name in ("first", "again")]
    assert saved[0] == saved[1]
