"""Runs whose teacher is read from its cache: the losses and gradients of a live teacher, which is not loaded."""

from __future__ import annotations

import pytest
import torch

from mta_framework.models import run_models
from mta_framework.registry import discover
from mta_framework.teacher_cache.recording import Recorder

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("trained_teacher", "no_page")]

REGISTRY = discover()
ALL_TERMS = [{"name": name, "weight": 0.5} for name in REGISTRY.names("alignment_terms")]
ACROSS_TOKENIZERS = [{"name": name, "weight": 1.0} for name in ("dsa", "hid", "trajectory", "span_logits", "cka")]
BOTH_GRANULARITIES = {"name": "proportional", "params": {"words": 3, "phrases": 0}}
ALIGNMENT = {"spans": {"name": "spacy_phrases"}, "layers": BOTH_GRANULARITIES}


def cached(spec, **options):
    return {**spec, "teacher": {**spec["teacher"], "cache": options}}


def aligned(spec, terms=ALL_TERMS):
    return {**spec, "alignment": {**ALIGNMENT, "terms": terms}}


@pytest.fixture
def spec(spec_dict):
    """One step of a batch of 8 texts."""
    return {**spec_dict, "training": {**spec_dict["training"], "max_steps": 1}, "evaluation": None}


class Counts:
    """How often the teacher was loaded, and on how many texts it was run to record it."""

    def __init__(self):
        self.loads = self.texts = 0


@pytest.fixture
def counts(monkeypatch):
    """Counts what happens from now on, in this process."""
    made, load, records = Counts(), run_models.load_teacher, Recorder.records

    def counted_load(*arguments):
        made.loads += 1
        return load(*arguments)

    def counted_records(recorder, states, batch, texts, kinds):
        made.texts += len(batch.input_ids_BT)
        return records(recorder, states, batch, texts, kinds)

    monkeypatch.setattr(run_models, "load_teacher", counted_load)
    monkeypatch.setattr(Recorder, "records", counted_records)
    return made


@pytest.fixture
def live_and_cached(write_spec, tmp_path, counts):
    """Runs a step with the live teacher, one that makes the cache, and one that reads it; gives all three."""

    def run(spec, step, micro_batch_size=8, **options):
        live = step(write_spec(spec, "live.json"), tmp_path / "live", micro_batch_size)
        path = write_spec(cached(spec, **options), "cached.json")
        made = step(path, tmp_path / "made", micro_batch_size)
        counts.loads = 0
        read = step(path, tmp_path / "read", micro_batch_size)
        assert counts.loads == 0
        return live, made, read

    return run


def require_close(outcome, expected, rel=1e-6, gradient=1e-5):
    assert outcome[0] == pytest.approx(expected[0], rel=rel)
    assert outcome[1].keys() == expected[1].keys()
    for name, whole in expected[1].items():
        difference = (outcome[1][name] - whole).abs().max().item()
        assert difference <= gradient * whole.abs().max().item() + 1e-8, name


def require_same_bits(outcome, expected):
    assert outcome[0] == expected[0]
    assert all(torch.equal(value, expected[1][name]) for name, value in outcome[1].items())


CASES = {
    "kl with all terms": lambda spec: aligned(spec),
    "fdd": lambda spec: {**spec, "base_loss": {"name": "fdd"}},
    "no base loss": lambda spec: {**spec, "base_loss": {"name": "none"}},
    "LoRA": lambda spec: {**spec, "student": {**spec["student"], "lora": {"rank": 4}}},
    "weights by entropy, pooled evenly": lambda spec: {
        **spec,
        "alignment": {**ALIGNMENT, "importance": {"name": "entropy"}, "pooling": {"name": "uniform"}},
    },
}


@pytest.mark.parametrize("case", sorted(CASES))
def test_a_step_by_the_cache_is_that_of_the_live_teacher(case, spec, one_step, live_and_cached):
    live, made, read = live_and_cached(CASES[case](spec), one_step)
    require_close(made, live)
    require_same_bits(read, made)


@pytest.mark.parametrize("base_loss", ["alm", "uld"])
def test_a_step_across_tokenizers_is_that_of_the_live_teacher(
    base_loss, spec, two_tokenizers, one_step, live_and_cached
):
    changes = {"base_loss": {"name": base_loss}, "training": spec["training"], "evaluation": None}
    live, made, read = live_and_cached(aligned(two_tokenizers | changes, ACROSS_TOKENIZERS), one_step)
    require_close(made, live)
    require_same_bits(read, made)


def test_gradients_are_accumulated_as_with_the_live_teacher(spec, one_step, live_and_cached):
    live, made, _ = live_and_cached(aligned(spec), one_step, micro_batch_size=2)
    require_close(made, live)


def test_two_ranks_share_the_cache_that_they_make(spec, one_step_on_two_ranks, live_and_cached):
    live, made, read = live_and_cached(aligned(spec), one_step_on_two_ranks, micro_batch_size=2)
    require_close(made, live)
    require_same_bits(read, made)


def test_in_bf16_a_step_by_the_cache_differs_by_no_more_than_that_precision(spec, one_step, live_and_cached):
    spec["training"]["precision"] = "bf16"
    live, made, read = live_and_cached(aligned(spec), one_step)
    # States are rounded to 2^-8 of their size, by the live teacher as well as in the cache.
    require_close(made, live, rel=2**-8, gradient=2**-6)
    require_same_bits(read, made)


def test_layer_states_in_8_bits_change_little_but_something(spec, one_step, live_and_cached):
    terms = [{"name": "hid", "weight": 1.0}, {"name": "dsa", "weight": 1.0}]
    live, made, read = live_and_cached(aligned(spec, terms), one_step, layer_states="8bit")
    # A row is rounded to 1/127 of its largest value, half of that on either side.
    require_close(made, live, rel=2**-7, gradient=2**-5)
    assert made[0]["hid"] != live[0]["hid"]
    assert made[0]["kl"] == pytest.approx(live[0]["kl"], rel=1e-6)
    require_same_bits(read, made)
