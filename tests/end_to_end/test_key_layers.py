"""Key layers that are measured before the first step."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mta_framework.cli.plan import plan_lines
from mta_framework.registry import discover
from mta_framework.runs import pipeline, teacher_setup
from mta_framework.runs.plugin_binding import bind

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("trained_teacher", "no_page")]


@pytest.fixture
def spec(spec_dict, write_spec):
    layers = {"name": "cka", "params": {"texts": 12}}
    alignment = {"spans": {"name": "spacy_phrases"}, "importance": {"name": "surprisal"}, "layers": layers}
    terms = [{"name": "dsa", "weight": 2.0, "params": {"max_spans": 4}}, {"name": "hid", "weight": 0.2}]
    training = {**spec_dict["training"], "max_steps": 2}
    changes = {"alignment": {**alignment, "terms": terms}, "training": training, "evaluation": None}
    return write_spec({**spec_dict, **changes})


def bound(spec, *overrides):
    return bind(spec, discover(), overrides)


def test_choice_is_printed_saved_reported_and_the_same_in_another_run(spec, tmp_path, capsys):
    report = pipeline.run(bound(spec))
    printed = capsys.readouterr().out
    file = tmp_path / "runs" / "student" / "key-layers.json"
    saved = json.loads(file.read_text())
    pairs = [(pair["student"], pair["teacher"], pair["granularity"]) for pair in saved["pairs"]]
    assert [(pair.student, pair.teacher, pair.granularity) for pair in report.layer_pairs] == pairs
    assert pairs[-1] == (4, 4, "phrases")
    assert [len(saved["across"]), len(saved["across"][0]), len(saved["within"])] == [4, 4, 4]
    for pair in saved["pairs"]:
        assert pair["cka"] == saved["across"][pair["student"] - 1][pair["teacher"] - 1]
        assert f"{pair['student']}->{pair['teacher']} {pair['granularity']} (CKA {pair['cka']:.2f})" in printed
    pipeline.run(bound(spec, "name=again"))
    assert (tmp_path / "runs" / "again" / "key-layers.json").read_bytes() == file.read_bytes()
    names = [path / "student" / "model.safetensors" for path in (file.parent, file.parent.with_name("again"))]
    assert names[0].read_bytes() == names[1].read_bytes()


def test_a_resumed_run_keeps_the_choice_and_measures_nothing(spec, tmp_path, monkeypatch):
    first = pipeline.run(bound(spec))
    folder = tmp_path / "runs" / "student"
    for name in ("student", "checkpoints"):
        shutil.rmtree(folder / name)
    monkeypatch.setattr(teacher_setup, "similarity", lambda *arguments: pytest.fail("measured again"))
    assert pipeline.run(bound(spec), resume=True).layer_pairs == first.layer_pairs


def test_a_dry_run_says_that_layers_will_be_measured(spec, tmp_path):
    plan = pipeline.plan(bound(spec))
    assert [str(pair) for pair in plan.layer_pairs] == ["2->2 words", "3->3 phrases", "4->4 phrases"]
    assert "These key layers are placeholders; the actual ones are measured before the first step." in plan_lines(plan)
    assert not (tmp_path / "runs" / "student").exists()


def test_other_mappers_measure_nothing(spec, tmp_path):
    pipeline.run(
        bound(
            spec,
            "alignment.layers.name=proportional",
            "alignment.layers.params={}",
            "alignment.importance.name=entropy",
        )
    )
    assert not (tmp_path / "runs" / "student" / "key-layers.json").exists()


def test_two_processes_train_with_the_layers_that_one_measures(spec, tmp_path, warm_python):
    alone = pipeline.run(bound(spec, "name=alone"))
    worker = Path(__file__).with_name("key_layers_worker.py")
    printed = warm_python.run_on_two_ranks([worker, spec, tmp_path / "two"])
    assert printed.count("Key layers, measured:") == 1
    expected = [[pair.student, pair.teacher, pair.granularity] for pair in alone.layer_pairs]
    assert [json.loads((tmp_path / f"two-rank{rank}.json").read_text()) for rank in (0, 1)] == [expected] * 2
    saved = [json.loads((tmp_path / "runs" / name / "key-layers.json").read_text()) for name in ("alone", "two")]
    # Cosines of float32 states: 4 layers of about 8 products, of at most 32 terms each, are 1024 roundings of 2^-24.
    for measured in ("across", "within"):
        for row, same in zip(*(some[measured] for some in saved), strict=True):
            assert row == pytest.approx(same, rel=0, abs=1024 * 2**-24)
