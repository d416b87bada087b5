"""Python in the documentation runs, and its plugins compute what they say."""

from __future__ import annotations

import math

import pytest
import torch
from blocks import blocks, plugin_files
from click.testing import CliRunner
from torch import Tensor

from mta_framework import TOKENS, Batch, Head, Progress, States
from mta_framework.cli import main
from mta_framework.registry import discover

SNIPPETS = [block for block in blocks("python") if not block.is_plugin_file]
POSITIONS = [0, 2, 5]


@pytest.mark.parametrize("block", SNIPPETS, ids=str)
def test_snippet_runs(block, workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    exec(compile(block.text, str(block), "exec", dont_inherit=True), {"__name__": "snippet"})


def create(workplace, family, name, **options):
    """A plugin of the documentation."""
    plugin = discover([workplace / f"{name}.py"]).find(family, name, "test").plugin
    return plugin(plugin.Params.model_validate(options))


def states(width: int, seed: int) -> States:
    """One text of seven tokens in a vocabulary of eleven."""
    generator = torch.Generator().manual_seed(seed)
    hidden_BTD, weight_VD = (torch.randn(*shape, generator=generator) for shape in ((1, 7, width), (11, width)))
    return States(hidden_BTD.requires_grad_(), {}, Head(weight_VD))


def batch(positions: list[int]) -> Batch:
    """Supervises the given positions of ``states``."""
    ids_BT = torch.zeros(1, 7, dtype=torch.int64)
    position_N = torch.tensor(positions, dtype=torch.int64)
    return Batch(ids_BT, torch.ones_like(ids_BT), position_N, position_N + 1, {}, {TOKENS: len(positions)})


def probabilities(given: States) -> Tensor:
    """Whole next-token distributions at the supervised positions, in float64."""
    return (given.final_BTD.detach()[0, POSITIONS].double() @ given.head.weight_VD.double().T).softmax(-1)


def total_variation(p_NV: Tensor, q_NV: Tensor) -> float:
    pairs = zip(p_NV.flatten().tolist(), q_NV.flatten().tolist(), strict=True)
    return sum(abs(p - q) for p, q in pairs) / 2


def sure_kl(p_NV: Tensor, q_NV: Tensor) -> float:
    total = 0.0
    for p_V, q_V in zip(p_NV.tolist(), q_NV.tolist(), strict=True):
        entropy = -sum(p * math.log(p) for p in p_V)
        divergence = sum(p * math.log(p / q) for p, q in zip(p_V, q_V, strict=True))
        total += (1 - entropy / math.log(11)) ** 2 * divergence
    return total


def alpha_divergence(p_NV: Tensor, q_NV: Tensor) -> float:
    pairs = zip(p_NV.tolist(), q_NV.tolist(), strict=True)
    return sum(1 - sum(p**0.25 * q**0.75 for p, q in zip(p_V, q_V, strict=True)) for p_V, q_V in pairs) / (0.25 * 0.75)


LOSSES = [
    ("total_variation", {}, total_variation),
    ("sure_kl", {"power": 2.0}, sure_kl),
    ("alpha_divergence", {"alpha": 0.25}, alpha_divergence),
]


@pytest.mark.parametrize(("name", "options", "expected"), LOSSES, ids=[name for name, _, _ in LOSSES])
def test_base_loss_computes_its_formula_and_gives_gradients(name, options, expected, workplace):
    student, teacher = states(8, seed=0), states(5, seed=1)
    loss = create(workplace, "base_losses", name, **options)
    (term,) = loss.compute(student, teacher, batch(POSITIONS), Progress(0, 1, 0.0))
    assert (term.name, term.unit) == (name, TOKENS)
    assert term.sum.item() == pytest.approx(expected(probabilities(teacher), probabilities(student)), rel=1e-5)
    term.sum.backward()
    supervised = student.final_BTD.grad.abs().sum(-1)[0] > 0
    assert supervised.nonzero().flatten().tolist() == POSITIONS


@pytest.mark.parametrize(("name", "options", "expected"), LOSSES, ids=[name for name, _, _ in LOSSES])
def test_base_loss_takes_a_batch_in_which_nothing_is_supervised(name, options, expected, workplace):
    student = states(8, seed=0)
    loss = create(workplace, "base_losses", name, **options)
    (term,) = loss.compute(student, states(5, seed=1), batch([]), Progress(0, 1, 0.0))
    term.sum.backward()
    assert term.sum.item() == 0
    assert not student.final_BTD.grad.any()


@pytest.mark.parametrize(("alpha", "direction"), [(0.99, "forward_kl"), (0.01, "reverse_kl")])
def test_alpha_divergence_tends_to_both_directions_of_kl(alpha, direction, workplace):
    from mta_framework import chunked_loss

    student, teacher = states(8, seed=0), states(5, seed=1)
    loss = create(workplace, "base_losses", "alpha_divergence", alpha=alpha)
    (term,) = loss.compute(student, teacher, batch(POSITIONS), Progress(0, 1, 0.0))
    logits = [probabilities(given).log() for given in (student, teacher)]
    assert term.sum.item() == pytest.approx(getattr(chunked_loss, direction)(*logits).sum().item(), rel=0.05)


def test_documented_base_loss_takes_at_most_forty_lines():
    (block,) = [block for block in plugin_files() if block.page.name == "write-a-base-loss.md"]
    assert len(block.text.splitlines()) <= 40


@pytest.mark.parametrize(("policy", "writes"), [("fixed", False), ("on_policy", True), ("adaptive", True)])
def test_documented_base_loss_brings_the_batch_policy_that_it_is_given(policy, writes, workplace):
    loss = create(workplace, "base_losses", "alpha_divergence", batches={"policy": policy})
    assert (loss.batch_policy() is not None) == writes
    assert create(workplace, "base_losses", "alpha_divergence").batch_policy() is None


@pytest.mark.parametrize(("policy", "section", "code"), [("fixed", None, 0), ("fixed", {}, 2), ("on_policy", {}, 0)])
def test_documented_base_loss_is_checked_together_with_generation(
    policy, section, code, workplace, spec_dict, write_spec
):
    spec_dict["base_loss"] = {"name": "alpha_divergence", "params": {"batches": {"policy": policy}}}
    spec_dict["training"] = {**spec_dict["training"], "generation": section}
    arguments = ["-p", str(workplace / "alpha_divergence.py"), "check", str(write_spec(spec_dict))]
    assert CliRunner().invoke(main, arguments).exit_code == code


def test_all_documented_plugin_files_load_at_once(workplace):
    registry = discover([workplace / block.file_name for block in plugin_files()])
    assert {"total_variation", "sure_kl", "alpha_divergence"} <= set(registry.names("base_losses"))
    assert "code_spans" in registry.names("span_extractors")


def test_code_spans_are_sorted_lines_and_identifiers(workplace):
    text = "\nif a_1:\n\tb = 22  \n\n"
    spans = create(workplace, "span_extractors", "code_spans").extract([text, ""])
    assert [text[start:end] for start, end in spans[0]["words"]] == ["if", "a_1", "b", "22"]
    assert [text[start:end] for start, end in spans[0]["phrases"]] == ["if a_1:", "b = 22"]
    assert spans[1] == {"words": [], "phrases": []}


@pytest.mark.slow
@pytest.mark.usefixtures("trained_teacher")
def test_documented_plugin_files_train_a_student_from_the_command_line(workplace, spec_dict, write_spec, tmp_path):
    spec = {**spec_dict, "base_loss": {"name": "sure_kl"}, "alignment": {"spans": {"name": "code_spans"}}}
    files = [word for name in ("sure_kl.py", "code_spans.py") for word in ("-p", str(workplace / name))]
    path = str(write_spec({**spec, "evaluation": None}))
    result = CliRunner().invoke(main, [*files, "run", path])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "runs" / "student" / "student" / "model.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.usefixtures("trained_teacher")
def test_documented_base_loss_trains_on_responses_of_the_student(workplace, spec_dict, write_spec, tmp_path):
    batches = {"policy": "on_policy", "fraction": 1.0}
    loss = {"name": "alpha_divergence", "params": {"alpha": 0.3, "batches": batches}}
    training = {**spec_dict["training"], "max_steps": 2, "generation": {"max_new_tokens": 6}}
    spec = {**spec_dict, "base_loss": loss, "training": training, "evaluation": None}
    arguments = ["-p", str(workplace / "alpha_divergence.py"), "run", str(write_spec(spec))]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "runs" / "student" / "student" / "model.safetensors").is_file()


@pytest.mark.slow
def test_documented_contract_tests_pass(workplace, warm_python):
    (block,) = [block for block in SNIPPETS if "SpanExtractorContract" in block.text]
    (workplace / "test_code_spans.py").write_text(block.text, encoding="utf-8")
    command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "test_code_spans.py"]
    done = warm_python.run(command, cwd=workplace)
    assert done.returncode == 0, done.stdout
    assert "14 passed" in done.stdout
