"""Specs and command lines in the documentation are ones that the framework takes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from blocks import ROOT, blocks, mta_commands, plugin_files, specs
from click.testing import CliRunner

from mta_framework.cli import main
from mta_framework.cli.scores import score_lines
from mta_framework.evaluation.report import Report, ReportedEvaluation, Score
from mta_framework.registry import discover
from mta_framework.spec.effects import effect_of
from mta_framework.spec.reading import read_spec
from mta_framework.spec.run import RunSpec
from mta_framework.spec.schema_text import property_at
from mta_framework.spec.section import schema_of
from mta_framework.spec.sweep import SweepSpec

HELLO = ROOT / "docs" / "examples" / "mta-hello" / "src"
SPECS = specs()
COMMANDS = mta_commands()


@pytest.mark.parametrize("spec", [spec for _, spec in SPECS], ids=[str(block) for block, _ in SPECS])
def test_spec_is_valid_with_its_plugins_and_their_options(spec, workplace, monkeypatch):
    checked = RunSpec.model_validate(spec, strict=True)
    monkeypatch.syspath_prepend(str(HELLO))
    registry = discover([*(workplace / block.file_name for block in plugin_files()), HELLO / "mta_hello" / "hooks.py"])
    chosen = [("base_losses", checked.base_loss)]
    if checked.alignment:
        chosen += [("span_extractors", checked.alignment.spans), ("layer_mappers", checked.alignment.layers)]
        chosen += [("importance_estimators", checked.alignment.importance)]
        chosen += [("alignment_terms", term) for term in checked.alignment.terms]
    for family, section in chosen:
        plugin = registry.find(family, section.name, family).plugin
        plugin.Params.model_validate_json(json.dumps(section.params), strict=True)


def test_sweeps_are_valid():
    specs = [json.loads(block.text) for block in blocks("json")]
    sweeps = [value for value in specs if isinstance(value, dict) and "axes" in value]
    assert sweeps
    for value in sweeps:
        SweepSpec.model_validate(value, strict=True)


@pytest.fixture
def parsed(monkeypatch) -> dict[str, Any]:
    """What the last command was called with; no command does anything."""
    values: dict[str, Any] = {}
    # Groups call it too, before the command within them.
    monkeypatch.setattr(click.Command, "invoke", lambda command, context: values.update(context.params))
    return values


@pytest.mark.parametrize("arguments", [given for _, given in COMMANDS], ids=[where for where, _ in COMMANDS])
def test_command_line_exists_and_changes_only_fields_that_a_spec_has(arguments, parsed, tmp_path):
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    if not {"spec", "overrides"} <= parsed.keys():
        return
    path: Path = ROOT / parsed["spec"]
    if parsed["spec"].parts[0] != "examples":
        path = tmp_path / "spec.json"
        path.write_text(json.dumps(SPECS[0][1]), encoding="utf-8")
    assert read_spec(path, parsed["overrides"]).faults == ()


def test_the_page_for_users_of_other_tools_names_only_fields_and_plugins_that_exist():
    page = (ROOT / "docs" / "how-to" / "come-from-another-tool.md").read_text(encoding="utf-8")
    ours = [cell for row in re.findall(r"^\|.*\|$", page, re.MULTILINE) for cell in row.split("|")[2:]]
    fields = {name for cell in ours for name in re.findall(r"`([a-z_]+(?:\.\w+)+)`", cell)}
    assert {"training.batch_size", "teacher.server.top_logprobs", "student.lora"} <= fields
    for field in fields:
        assert property_at(schema_of(RunSpec), tuple(field.split("."))) is not None, field
    named = set(re.findall(r"`(\w+)`\]\(\.\./reference/plugins/", page))
    installed = discover()
    assert named <= {
        name for family in ("base_losses", "alignment_terms", "layer_mappers") for name in installed.names(family)
    }


def test_the_page_on_resuming_lists_every_field_that_may_differ():
    page = (ROOT / "docs" / "how-to" / "resume-and-change.md").read_text(encoding="utf-8")
    (section,) = re.findall(r"^## What may change$(.*?)^Any other difference", page, re.DOTALL | re.MULTILINE)
    assert set(re.findall(r"`([\w.]+)`", section)) == set(without_effect_on_weights(RunSpec.model_json_schema()))


def without_effect_on_weights(schema: dict[str, Any], name: str = "", prefix: str = "") -> Iterator[str]:
    """Dotted names of the fields that do not affect the weights; those within such a field are left out."""
    for field, node in (schema["$defs"][name] if name else schema)["properties"].items():
        if effect_of(RunSpec, f"{prefix}{field}") != "weights":
            yield f"{prefix}{field}"
            continue
        for branch in (node, *node.get("anyOf", ())):
            if "$ref" in branch:
                yield from without_effect_on_weights(schema, branch["$ref"].rsplit("/", 1)[-1], f"{prefix}{field}.")


def test_all_commands_are_documented_by_an_example():
    used = {word for _, arguments in COMMANDS for word in arguments if word in main.commands}
    assert used >= {"init", "check", "run", "plugins"}


def test_tutorial_shows_the_message_that_a_misspelt_option_gives():
    page = (ROOT / "docs" / "tutorial" / "first-distillation.md").read_text(encoding="utf-8")
    setting = "base_loss.params.temprature=2"
    result = CliRunner().invoke(main, ["check", str(ROOT / "examples/quickstart/student.json"), "--set", setting])
    assert result.exit_code == 2
    assert setting in page
    message = next(line for line in result.output.splitlines() if "temprature" in line)
    assert message in page.splitlines()


def test_readme_shows_scores_as_they_are_printed():
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^```text\n(rouge_l\n.*?)^Report: ", page, re.DOTALL | re.MULTILINE)
    figures = {
        "student": (61.82, 0.71, (59.12, 64.40)),
        "teacher": (90.48, 0.27, (87.01, 93.21)),
        "initial_student": (2.13, 0.60, (1.61, 2.78)),
    }
    scores = tuple(Score(model, "test", "rouge_l", (), *values) for model, values in figures.items())
    report = Report("student", {}, ReportedEvaluation((10, 20, 30), scores, (), ()))
    assert shown.splitlines() == list(score_lines(report))[1:]


def test_reference_shows_the_messages_that_faults_give(tmp_path):
    page = (ROOT / "docs" / "reference" / "errors.md").read_text(encoding="utf-8")
    spec = {**SPECS[0][1], "teacher": {"hub": "a"}, "alignment": None}
    spec["training"] = {"epochs": 1, "max_steps": 5, "learning_rate": "1e-4"}
    spec["evaluation"] = {"sets": {"test": {"hub": "a", "split": "test"}}, "metrics": [{"name": "rouge"}]}
    spec["data"] = {"train": {"hub": "a", "split": "train"}}
    (tmp_path / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
    result = CliRunner().invoke(main, ["check", str(tmp_path / "spec.json")])
    assert result.exit_code == 2
    assert result.output in page
