"""The examples' specs: `mta check` takes them, they are as their tables say, and the tables as the paper says."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner

from mta_framework import ModelShape
from mta_framework.cli import main
from mta_framework.registry import discover
from mta_framework.runs.plugin_binding import bind

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SWEEPS = [path for path in sorted(EXAMPLES.glob("*/*.json")) if "axes" in json.loads(path.read_text(encoding="utf-8"))]
PATHS = [path for path in sorted(EXAMPLES.glob("*/*.json")) if path not in SWEEPS]
PAIRS = ("gpt2", "qwen", "opt")
BASES = ("fdd", "distillm", "distillm2")
STUDENTS = [f"{pair}-{base}" for pair in PAIRS for base in BASES]
Spec = dict[str, Any]


def generator(example: str) -> ModuleType:
    """``generate.py`` of an example as a module of its own name."""
    name = f"{example}_generate"
    description = importlib.util.spec_from_file_location(name, EXAMPLES / example / "generate.py")
    assert description is not None
    assert description.loader is not None
    module = importlib.util.module_from_spec(description)
    sys.modules[name] = module
    description.loader.exec_module(module)
    return module


def read(example: str, name: str) -> Spec:
    spec: Spec = json.loads((EXAMPLES / example / f"{name}.json").read_text(encoding="utf-8"))
    return spec


def specs_of(example: str) -> list[Path]:
    """The files of an example that are specs."""
    return [path for path in PATHS if path.parent.name == example]


def local_paths(value: Any) -> list[str]:
    """Every path in a spec."""
    if isinstance(value, list):
        return [path for entry in value for path in local_paths(entry)]
    if not isinstance(value, dict):
        return []
    named = [value[key] for key in ("path", "tokenizer") if isinstance(value.get(key), str)]
    return named + [path for entry in value.values() for path in local_paths(entry)]


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples with stand-ins for the data and weights that they read."""
    folder = tmp_path_factory.mktemp("place") / "repository" / "examples"
    for path in PATHS:
        copy = folder / path.relative_to(EXAMPLES)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
        for name in local_paths(json.loads(path.read_text(encoding="utf-8"))):
            stand_in = copy.parent / name
            if stand_in.suffix:
                stand_in.parent.mkdir(parents=True, exist_ok=True)
                row = '{"instruction": "a", "input": "", "output": "b"}\n'
                stand_in.write_text("GGUF" if stand_in.suffix == ".gguf" else row, encoding="utf-8")
            else:
                stand_in.mkdir(parents=True, exist_ok=True)
                (stand_in / "tokenizer.json").write_text("{}", encoding="utf-8")
    return folder


@pytest.mark.parametrize("path", PATHS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_check_takes_the_spec(path: Path, copies: Path) -> None:
    result = CliRunner().invoke(main, ["check", str(copies / path.relative_to(EXAMPLES))])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("path", PATHS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_students_are_distilled_from_the_teacher_beside_them_or_from_what_that_starts_from(path: Path) -> None:
    teacher = json.loads(path.read_text(encoding="utf-8")).get("teacher")
    if path.stem.endswith("teacher"):
        assert teacher is None
    elif path.parent.name == "evidence":
        assert teacher["path"] == json.loads((path.parent / "teacher.json").read_text("utf-8"))["student"]["path"]
    else:
        pair = f"{path.stem.split('-')[0]}-" if path.parent.name == "paper" else ""
        assert teacher == {"run": f"{pair}teacher.json"}


@pytest.mark.parametrize("example", ["paper", "smollm2"])
def test_specs_are_what_the_table_gives(example: str, tmp_path: Path) -> None:
    generator(example).main(tmp_path)
    written = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    texts = {path.name: path.read_text(encoding="utf-8") for path in specs_of(example)}
    if example == "smollm2":
        del texts["teacher.json"]
    assert texts == written, f"run: python examples/{example}/generate.py"


def test_paper_has_three_teachers_and_nine_runs_without_and_with_mta() -> None:
    teachers = {f"{pair}-teacher" for pair in PAIRS}
    assert {path.stem for path in specs_of("paper")} == {
        *teachers,
        *STUDENTS,
        *(f"{name}-mta" for name in STUDENTS),
    }


def test_every_run_is_named_after_its_file() -> None:
    for path in specs_of("paper"):
        assert json.loads(path.read_text(encoding="utf-8"))["name"] == path.stem


@pytest.mark.parametrize("name", STUDENTS)
def test_paper_counterparts_differ_in_alignment_with_its_spans_and_in_the_temperature_of_fdd(name: str) -> None:
    plain, whole = read("paper", name), read("paper", f"{name}-mta")
    assert plain.pop("alignment") is None
    assert whole.pop("alignment") is not None
    assert plain.pop("name") != whole.pop("name")
    assert whole["data"].pop("leading_character") == "any"
    if name.endswith("fdd"):
        assert plain["base_loss"]["params"].pop("temperature") == 5.0
        assert whole["base_loss"]["params"].pop("temperature") == 2.0
    assert plain == whole


OPT_LAYERS = {16: 20, 18: 23, 20: 26, 22: 29, 24: 32}
LAYERS = {
    "gpt2": {6: 24, 9: 36, 12: 48},
    "qwen": {14: 14, 16: 16, 18: 18, 20: 20, 22: 22, 24: 24},
    "opt": OPT_LAYERS,
}
LAYERS_WITH_FDD = {"gpt2": {4: 16, 6: 24, 8: 32}, "qwen": {4: 4, 8: 8, 16: 16}, "opt": OPT_LAYERS}


@pytest.mark.parametrize("name", STUDENTS)
def test_paper_key_layers_are_the_published_ones_with_words_at_the_lowest(name: str) -> None:
    pair, base = name.split("-")
    layers = (LAYERS_WITH_FDD if base == "fdd" else LAYERS)[pair]
    listed = read("paper", f"{name}-mta")["alignment"]["layers"]["params"]["pairs"]
    assert {entry["student"]: entry["teacher"] for entry in listed} == layers
    words = [entry["student"] for entry in listed if entry["granularity"] == "words"]
    assert words == [min(layers)]
    assert {entry["granularity"] for entry in listed if entry["student"] > min(layers)} == {"phrases"}
    if base == "fdd":
        for variant in (name, f"{name}-mta"):
            listed_by_loss = read("paper", variant)["base_loss"]["params"]["layers"]
            assert {entry["student"]: entry["teacher"] for entry in listed_by_loss} == layers


SHAPES = {
    "gpt2": (ModelShape(12, 768), ModelShape(48, 1600)),
    "qwen": (ModelShape(24, 1024), ModelShape(24, 2048)),
    "opt": (ModelShape(24, 2048), ModelShape(32, 4096)),
}


@pytest.mark.parametrize("name", STUDENTS)
def test_paper_key_layers_lie_within_the_models(name: str, copies: Path) -> None:
    pair, base = name.split("-")
    bound = bind(copies / "paper" / f"{name}-mta.json", discover())
    assert bound.layers is not None
    layers = LAYERS_WITH_FDD if base == "fdd" else LAYERS
    assert [(key.student, key.teacher) for key in bound.layers.map(*SHAPES[pair])] == sorted(layers[pair].items())
    expected = LAYERS_WITH_FDD[pair].items() if base == "fdd" else ()
    assert sorted(bound.base_loss.key_layers(*SHAPES[pair])) == sorted(expected)


@pytest.mark.parametrize("name", STUDENTS)
def test_paper_settings_are_the_published_ones(name: str) -> None:
    pair, base = name.split("-")
    spec = read("paper", f"{name}-mta")
    weights = {"gpt2": (2.0, 0.2), "qwen": (2.0, 0.2), "opt": (3.0, 0.3)}[pair]
    dsa, hid = spec["alignment"]["terms"]
    assert (dsa["name"], hid["name"], dsa["weight"], hid["weight"]) == ("dsa", "hid", *weights)
    assert spec["alignment"]["projection_learning_rate"] == 5e-4
    assert spec["alignment"]["spans"]["params"]["words"] == "within_each_phrase"
    rates = {"gpt2": 1e-4, "qwen": 5e-5 if base == "distillm2" else 1e-4, "opt": 5e-4}
    training = spec["training"]
    assert training["learning_rate"] == rates[pair]
    assert (training["batch_size"], training["warmup_ratio"]) == ((8, 0.1) if base == "distillm2" else (16, 0.0))
    assert (training["epochs"], training["weight_decay"], training["max_grad_norm"]) == (5, 0.01, 1.0)
    assert (training["schedule"], spec["seed"]) == ("cosine", 42)
    assert (spec["data"]["max_length"], spec["data"]["max_prompt_length"]) == (256, 128)
    assert spec["data"]["long_prompts"] == "first_tokens"
    assert spec["alignment"]["importance"] == {"name": "attention", "params": {"padding_rows": True}}
    assert base != "distillm2" or spec["base_loss"]["params"]["curriculum"] is False
    assert ("lora" in spec["student"]) == (pair == "opt")


@pytest.mark.parametrize("name", STUDENTS)
def test_paper_evaluation_is_the_published_one(name: str) -> None:
    evaluation = read("paper", name)["evaluation"]
    assert list(evaluation["sets"]) == ["dolly", "self_inst", "vicuna", "sni"]
    assert evaluation["seeds"] == [10, 20, 30, 40, 50]
    assert (evaluation["temperature"], evaluation["top_p"]) == (0.7, 1.0)
    assert (evaluation["max_prompt_length"], evaluation["max_new_tokens"]) == (256, 512)
    assert evaluation["metrics"] == [{"name": "rouge_l", "params": {"references": "first"}}]


def test_smollm2_has_four_bases_whose_students_differ_in_alignment_alone() -> None:
    for base in ("kl", *BASES):
        plain, whole = read("smollm2", f"student-{base}"), read("smollm2", f"student-{base}-mta")
        assert plain["base_loss"]["name"] == whole["base_loss"]["name"] == base
        assert plain.pop("alignment") is None
        assert whole.pop("alignment") is not None
        assert whole.pop("name") == f"{plain.pop('name')}-mta" == f"smollm2-{base}-mta"
        assert plain == whole


def test_smollm2_student_keeps_first_and_last_block_and_is_spread_evenly() -> None:
    layers = read("smollm2", "student-kl-mta")["student"]["teacher_layers"]
    assert (layers[0], layers[-1], len(layers)) == (1, 30, 12)
    assert all(abs(layer - (1 + index * 29 / 11)) <= 0.5 for index, layer in enumerate(layers))
