"""A run with a broken plugin stops with its name, the text's number and what was wrong."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from mta_framework.cli import main

BROKEN = '''
from torch import nn

from mta_framework import (
    TOKENS, AlignmentTerm, BaseLoss, ImportanceEstimator, LayerMapper, LayerPair, LossTerm, SpanExtractor, hookimpl
)


class Spans(SpanExtractor):
    """Up to one character beyond the end of long texts."""

    NAME = "broken_spans"
    VERSION = "1"

    @property
    def granularities(self):
        return ("words", "phrases")

    def extract(self, texts):
        return [{"words": [], "phrases": [(0, len(text) + ("keeper" in text))]} for text in texts]


class Raising(Spans):
    """Can't stand a word."""

    NAME = "raising_spans"

    def extract(self, texts):
        if any("keeper" in text for text in texts):
            raise ValueError("too bad")
        return [{"words": [], "phrases": []} for text in texts]


class Empty(Spans):
    """Finds nothing."""

    NAME = "empty_spans"

    def extract(self, texts):
        return [{"words": [], "phrases": []} for text in texts]


class Weights(ImportanceEstimator):
    """One NaN."""

    NAME = "broken_weights"

    def weigh(self, states, layer, mask_BT):
        weight_BT = mask_BT.float()
        weight_BT[0, 1] = float("nan")
        return weight_BT


class Loss(BaseLoss):
    """Knows no tensors."""

    NAME = "broken_loss"

    def compute(self, student, teacher, batch, progress):
        return student + teacher


class Detached(BaseLoss):
    """Forgets the graph."""

    NAME = "detached_loss"

    def compute(self, student, teacher, batch, progress):
        return (LossTerm("detached", student.final_BTD.detach().requires_grad_().sum() * 1.0, TOKENS),)


class Projection(AlignmentTerm):
    """Forgets the graph of its projection alone."""

    NAME = "detached_projection"
    has_parameters = True

    def teacher_needs(self, has_shared_tokenizer):
        return ("span_vectors",)

    def make_module(self, student, teacher):
        return nn.Linear(student.hidden_size, teacher.hidden_size)

    def compute(self, layer, module):
        map_DD = module.weight.detach()
        return (layer.student.span_vector_SD @ map_DD.T - layer.teacher.span_vector_SD).square().sum()


class Idle(ImportanceEstimator):
    """Finds nothing important."""

    NAME = "idle_weights"

    def weigh(self, states, layer, mask_BT):
        return mask_BT * 0.0


class Layers(LayerMapper):
    """Divides by zero."""

    NAME = "broken_layers"

    @property
    def granularities(self):
        return ("words",)

    def map(self, student, teacher):
        return [LayerPair(1, 1 // 0, "words")]


@hookimpl
def mta_register_span_extractors():
    return [Spans, Raising, Empty]


@hookimpl
def mta_register_importance_estimators():
    return [Weights, Idle]


@hookimpl
def mta_register_alignment_terms():
    return [Projection]


@hookimpl
def mta_register_layer_mappers():
    return [Layers]


@hookimpl
def mta_register_base_losses():
    return [Loss, Detached]
'''

WORDS = {"name": "proportional", "params": {"words": 1, "phrases": 0}}


@pytest.fixture
def mta(tmp_path, spec_dict, write_spec):
    """Runs a spec with some sections replaced, on one process."""
    path = tmp_path / "broken.py"
    path.write_text(BROKEN)

    def run(**sections):
        spec = {**spec_dict, "evaluation": None, **sections}
        spec["data"] = {**spec["data"], "processes": 1}
        return CliRunner().invoke(main, ["-p", str(path), "run", str(write_spec(spec))])

    return run


@pytest.mark.slow
@pytest.mark.usefixtures("trained_teacher")
@pytest.mark.parametrize(
    ("sections", "messages"),
    [
        (
            {"alignment": {"spans": {"name": "broken_spans"}}},
            ["span extractor 'broken_spans', text 0 (", "phrases must satisfy 0 <= start < end <= "],
        ),
        (
            {"alignment": {"spans": {"name": "raising_spans"}}},
            ["span extractor 'raising_spans', text 0 (", "failed (ValueError: too bad, in broken.py:"],
        ),
        (
            {"alignment": {"spans": {"name": "words"}, "layers": WORDS, "importance": {"name": "broken_weights"}}},
            [
                "training step 1: ",
                "is nan",
                "Importance estimator 'broken_weights' must give weights that are not negative and have a finite sum ",
                "(got nan for ",
                " of the data set).",
            ],
        ),
        ({"base_loss": {"name": "broken_loss"}}, ["base loss 'broken_loss' failed (TypeError: ", ", in broken.py:"]),
        (
            {"base_loss": {"name": "detached_loss"}},
            [
                "base loss 'detached_loss' must return a term with a gradient (got 'detached', ",
                "detached from the student)",
            ],
        ),
        (
            {
                "alignment": {
                    "spans": {"name": "words"},
                    "layers": WORDS,
                    "terms": [{"name": "detached_projection", "weight": 1.0}],
                }
            },
            [
                "alignment term 'detached_projection' gives 'weight', 'bias' of its module at key layer 4->4 words no",
                " gradient; expected one for every parameter, be it 0",
            ],
        ),
        (
            {"alignment": {"spans": {"name": "words"}, "layers": {"name": "broken_layers"}}},
            ["layer mapper 'broken_layers' failed (ZeroDivisionError: ", ", in broken.py:"],
        ),
    ],
)
def test_a_broken_plugin_stops_the_run_and_is_named(mta, sections, messages):
    result = mta(**sections)
    assert result.exit_code == 1, result.output
    assert [message for message in messages if message not in result.output] == [], result.output


@pytest.mark.slow
@pytest.mark.usefixtures("trained_teacher")
def test_spans_that_no_text_has_are_a_fault_before_training(mta):
    result = mta(alignment={"spans": {"name": "empty_spans"}, "layers": WORDS})
    assert result.exit_code == 2, result.output
    assert "alignment.spans: finds no words in data.train (got 'empty_spans' and " in result.output


@pytest.mark.slow
@pytest.mark.usefixtures("trained_teacher")
def test_an_alignment_that_adds_nothing_is_warned_of_and_reported(mta, tmp_path):
    result = mta(alignment={"spans": {"name": "words"}, "layers": WORDS, "importance": {"name": "idle_weights"}})
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "runs" / "student" / "report.json").read_text())
    assert [warning.partition(" has been 0")[0] for warning in report["warnings"]] == [
        "The alignment term 'dsa'",
        "The alignment term 'hid'",
    ]
