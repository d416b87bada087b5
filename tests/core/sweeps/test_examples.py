"""The ready sweeps bind, and their cells are what the paper compares."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator

from mta_framework import ModelShape
from mta_framework.cli import main
from mta_framework.registry import discover
from mta_framework.sweeps.bound_sweep import bind_sweep
from mta_framework.sweeps.grid import rows_of

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
SWEEPS = [path for path in sorted(EXAMPLES.glob("*/*.json")) if "axes" in json.loads(path.read_text(encoding="utf-8"))]


def paths(value):
    """Every file that a spec names."""
    if isinstance(value, list):
        return [path for entry in value for path in paths(entry)]
    if not isinstance(value, dict):
        return []
    named = [value[key] for key in ("path", "tokenizer") if isinstance(value.get(key), str)]
    return named + [path for entry in value.values() for path in paths(entry)]


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    """The examples with stand-ins for data and weights."""
    folder = tmp_path_factory.mktemp("place") / "repository" / "examples"
    for path in EXAMPLES.glob("*/*.json"):
        copy = folder / path.relative_to(EXAMPLES)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
        for name in paths(json.loads(path.read_text(encoding="utf-8"))):
            stand_in = copy.parent / name
            stand_in.parent.mkdir(parents=True, exist_ok=True)
            if stand_in.suffix:
                stand_in.write_text("GGUF" if stand_in.suffix == ".gguf" else "{}\n", encoding="utf-8")
            else:
                stand_in.mkdir(exist_ok=True)
                (stand_in / "tokenizer.json").write_text("{}", encoding="utf-8")
    return folder


def bound(copies, name):
    return bind_sweep(copies / f"{name}.json", discover())


def by_name(bound_sweep):
    return {cell.cell.name: cell.run for cell in bound_sweep.cells}


def test_these_sweeps_are_ready():
    assert {f"{path.parent.name}/{path.stem}" for path in SWEEPS} == {
        "evidence/ablations",
        "evidence/base-losses",
        "evidence/equal-time",
        "evidence/learning-rate",
        "evidence/learning-rate-further",
        "evidence/longer",
        "evidence/projection-rates",
        "evidence/quick-start",
        "evidence/quick-start-ablations",
        "evidence/quick-start-follow-up",
        "evidence/quick-start-projection-rates",
        "evidence/real-model",
        "evidence/tuned-teacher",
        "quickstart/sweep",
        "quickstart/methods",
        "smollm2/main-table",
        "smollm2/ablations",
        "paper/main-table",
    }


def test_ready_sweeps_fit_the_schema():
    schema = json.loads(CliRunner().invoke(main, ["schema", "--sweep"]).stdout)
    for path in SWEEPS:
        Draft202012Validator(schema).validate(json.loads(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("example", ["smollm2", "paper"])
def test_main_table_has_every_student_once_beside_its_base(example, copies):
    sweep = bound(copies, f"{example}/main-table")
    files = {path.name for path in (EXAMPLES / example).glob("*.json")} - {"main-table.json", "ablations.json"}
    assert {Path(cell.cell.spec).name for cell in sweep.cells} == {name for name in files if "teacher" not in name}
    assert len(sweep.cells) == {"smollm2": 8, "paper": 18}[example]
    rows = rows_of(sweep.sweep)
    for cell in sweep.cells:
        whole = cell.run.spec.alignment is not None
        assert Path(cell.cell.spec).stem.endswith("-mta") == whole
        assert rows[cell.cell.row] == (cell.cell.row.removesuffix(" + MTA") if whole else None)
    assert {tuple(cell.run.spec.evaluation.models) for cell in sweep.cells} == {("student",)}


def test_quick_start_takes_the_terms_apart_from_three_seeds(copies):
    sweep = bound(copies, "quickstart/sweep")
    weights = {}
    for cell in sweep.cells:
        alignment = cell.run.spec.alignment
        weights.setdefault(cell.cell.row, []).append(alignment and {term.name: term.weight for term in alignment.terms})
    assert weights == {
        "KL": [None] * 3,
        "KL + DSA": [{"dsa": 2.0}] * 3,
        "KL + Hid": [{"hid": 0.2}] * 3,
        "KL + MTA": [{"dsa": 2.0, "hid": 0.2}] * 3,
    }
    assert [cell.run.spec.seed for cell in sweep.cells] == [1, 2, 3] * 4
    assert len(sweep.teachers) == 1


def test_quick_start_has_every_base_loss_alone_and_every_alignment_term_on_kl(copies):
    sweep, registry = bound(copies, "quickstart/methods"), discover()
    alone, aligned = set(), set()
    for spec in (cell.run.spec for cell in sweep.cells):
        terms = tuple(term.name for term in spec.alignment.terms) if spec.alignment else ()
        if terms == ("dsa", "hid"):
            assert spec.base_loss.name in {"kl", "none"}
        elif terms:
            assert spec.base_loss.name == "kl"
            aligned.add(terms)
        else:
            alone.add(spec.base_loss.name)
    assert alone == set(registry.names("base_losses")) - {"none"}
    assert aligned == {(name,) for name in registry.names("alignment_terms")}
    assert sweep.sweep.axes[-1].is_seeds
    assert len(sweep.cells) == 3 * len(rows_of(sweep.sweep))


def test_ablations_change_one_thing_each(copies):
    runs = by_name(bound(copies, "smollm2/ablations"))
    shape = ModelShape(12, 576), ModelShape(30, 576)
    layers = {
        name: [(pair.student, pair.granularity) for pair in run.layers.map(*shape)]
        for name, run in runs.items()
        if run.layers
    }
    words, phrases = "words", "phrases"
    full = [(6, words), (9, phrases), (12, phrases)]
    assert {name: pairs for name, pairs in layers.items() if pairs != full} == {
        "words-only": [(6, words), (9, words), (12, words)],
        "phrases-only": [(6, phrases), (9, phrases), (12, phrases)],
        "1-key-layer": [(12, phrases)],
        "2-key-layers": [(6, words), (12, phrases)],
        "4-key-layers": [(6, words), (8, phrases), (10, phrases), (12, phrases)],
        "5-key-layers": [(6, words), (8, phrases), (9, phrases), (10, phrases), (12, phrases)],
    }
    assert {name for name, run in runs.items() if run.spec.alignment is None} == {"DistiLLM"}
    alignments = {name: run.spec.alignment for name, run in runs.items() if run.spec.alignment}
    alone = {name: section.terms[0].name for name, section in alignments.items() if len(section.terms) == 1}
    assert alone == {"DSA-only": "dsa", "Hid-only": "hid"}
    weights = {name: [term.params.weights for term in run.terms] for name, run in runs.items() if run.terms}
    assert {name for name, each in weights.items() if set(each) == {"equal"}} == {"no-weights"}
    assert {name for name, each in weights.items() if "equal" in each} == {"no-weights"}
    assert {run.spec.base_loss.name for run in runs.values()} == {"distillm"}
    assert {run.spec.seed for run in runs.values()} == {42}


@pytest.mark.parametrize(
    ("name", "arms", "seeds"),
    [
        ("quick-start", 5, 20),
        ("quick-start-ablations", 7, 10),
        ("quick-start-follow-up", 6, 20),
        ("real-model", 10, 5),
        ("tuned-teacher", 2, 5),
        ("base-losses", 4, 3),
        ("ablations", 4, 3),
    ],
)
def test_evidence_has_the_arms_and_seeds_of_its_protocol(name, arms, seeds, copies):
    runs = by_name(bound(copies, f"evidence/{name}")).values()
    assert len(runs) == arms * seeds
    first = 21 if name == "quick-start-follow-up" else 1
    assert {run.spec.seed for run in runs} == set(range(first, first + seeds))
    assert len({run.spec.training.learning_rate for run in runs}) == 1


def test_learning_rate_is_chosen_for_kl_alone_on_a_seed_that_no_other_sweep_of_the_evidence_has(copies):
    specs = [cell.run.spec for cell in bound(copies, "evidence/learning-rate").cells]
    assert [spec.training.learning_rate for spec in specs] == [2e-4, 5e-4, 1e-3, 2e-3]
    for spec in specs:
        assert (spec.seed, spec.base_loss.name, spec.alignment, spec.evaluation) == (100, "kl", None, None)
