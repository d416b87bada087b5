"""One loss and one gradient, however a global batch is cut into micro-batches and processes."""

from __future__ import annotations

import json

import pytest
import torch

from mta_framework.registry import discover

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("trained_teacher", "no_page")]


def require_same(cut, whole):
    (cut_losses, cut_gradients), (losses, gradients) = cut, whole
    assert cut_losses == pytest.approx(losses, rel=1e-5)
    assert cut_gradients.keys() == gradients.keys()
    for name, expected in gradients.items():
        tolerance = 1e-5 * expected.abs().max().item() + 1e-8
        torch.testing.assert_close(cut_gradients[name], expected, rtol=1e-4, atol=tolerance, msg=name)


GENERATES = {"max_new_tokens": 10, "batch_tokens": 400}
BASES = {
    "sft": ({"name": "sft"}, None),
    "kl": ({"name": "kl", "params": {"cross_entropy": 0.5}}, None),
    "jsd on student responses": (
        {"name": "jsd", "params": {"batches": {"policy": "on_policy", "fraction": 1.0}}},
        GENERATES,
    ),
    "distillm, adaptive": (
        {"name": "distillm", "params": {"batches": {"policy": "adaptive", "initial_threshold": 1.0}}},
        GENERATES,
    ),
    "fdd": ({"name": "fdd"}, None),
    "distillm2": ({"name": "distillm2"}, GENERATES),
    "none": ({"name": "none"}, None),
    "policy_gradient": ({"name": "policy_gradient"}, GENERATES),
}


CASES = [
    pytest.param(base, mta, id=f"{base}, MTA {'on' if mta else 'off'}")
    for base in BASES
    for mta in (True, False)
    if mta or base != "none"
]
REGISTRY = discover()
OTHERS = [name for name in REGISTRY.names("base_losses") if name not in {base["name"] for base, _ in BASES.values()}]


@pytest.fixture
def require_one_loss(tmp_path, one_step, one_step_on_two_ranks):
    """Compares the losses and gradients of a spec of one step over all cuts of its batch."""

    def require(path):
        whole = one_step(path, tmp_path / "1x8", 8)
        for size in (4, 1):
            require_same(one_step(path, tmp_path / f"{8 // size}x{size}", size), whole)
        require_same(one_step_on_two_ranks(path, tmp_path / "two-ranks", 2), whole)
        return whole[0]

    return require


@pytest.mark.parametrize(("base", "mta"), CASES)
def test_every_cut_gives_the_loss_and_gradient_of_the_whole_batch(
    base, mta, spec_dict, write_spec, tmp_path, require_one_loss
):
    spec_dict["base_loss"], generation = BASES[base]
    training = {**spec_dict["training"], "max_steps": 1, "batch_size": 8, "generation": generation}
    changes = {"training": training, "evaluation": None}
    if not mta:
        changes["alignment"] = None
        if base == "sft":  # nothing is left that would need a teacher
            changes["teacher"] = None
            student = json.loads((tmp_path / "teacher.json").read_text())["student"]
            changes["student"] = {**spec_dict["student"], "tokenizer": student["tokenizer"]}
    assert ("hid" in require_one_loss(write_spec({**spec_dict, **changes}))) == mta


@pytest.mark.parametrize("name", OTHERS)
def test_every_other_base_loss_is_the_same_however_a_batch_is_cut(name, spec_dict, write_spec, require_one_loss):
    generation = GENERATES if REGISTRY.create("base_losses", name).batch_policy() else None
    training = {**spec_dict["training"], "max_steps": 1, "batch_size": 8, "generation": generation}
    changes = {"training": training, "evaluation": None, "base_loss": {"name": name}}
    assert "dsa" in require_one_loss(write_spec({**spec_dict, **changes}))


def test_all_alignment_terms_are_the_same_however_a_batch_is_cut(spec_dict, write_spec, require_one_loss):
    names = REGISTRY.names("alignment_terms")
    layers = {"name": "proportional", "params": {"words": 3, "phrases": 0}}
    terms = [{"name": name, "weight": 0.5} for name in names]
    training = {**spec_dict["training"], "max_steps": 1, "batch_size": 8}
    changes = {"training": training, "evaluation": None}
    changes["alignment"] = {**spec_dict["alignment"], "layers": layers, "terms": terms}
    assert set(names) <= set(require_one_loss(write_spec({**spec_dict, **changes})))
