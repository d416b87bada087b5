"""What alignment terms declare to read of the teacher, before any model is opened."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mta_framework import AlignmentTerm, InputError, RunError
from mta_framework.registry import discover
from mta_framework.runs.plugin_binding import bind

SPECS = Path(__file__).parents[2] / "specs"
FILE = """
from mta_framework import AlignmentTerm, hookimpl

class Reader(AlignmentTerm):
    NAME = "reader"
    def teacher_needs(self, has_shared_tokenizer):
        return NEEDS
    def compute(self, layer, module):
        return layer.student.span_vector_SD.sum()

@hookimpl
def mta_register_alignment_terms():
    return [Reader]
"""


@pytest.fixture
def bound(tmp_path):
    """Binds a spec whose one term declares these needs, with further settings of the section alignment."""
    (tmp_path / "rows.jsonl").write_text("{}")
    model = SPECS / "inputs" / "model"

    def bind_needs(needs, **settings):
        plugin = tmp_path / "reader.py"
        plugin.write_text(FILE.replace("NEEDS", repr(needs)))
        spec = {
            "name": "needs",
            "teacher": {"path": str(model)},
            "student": {"path": str(model)},
            "data": {"train": {"path": "rows.jsonl"}},
            "base_loss": {"name": "kl"},
            "training": {"epochs": 1},
            "alignment": {
                "spans": {"name": "words"},
                "layers": {"name": "proportional", "params": {"words": 1, "phrases": 0}},
                "terms": [{"name": "reader", "weight": 1.0}],
                **settings,
            },
        }
        (tmp_path / "spec.json").write_text(json.dumps(spec))
        return bind(tmp_path / "spec.json", discover([plugin]))

    return bind_needs


def test_a_misspelt_need_is_refused_with_those_that_there_are(bound):
    with pytest.raises(RunError, match=r"among geometry, .*span_vectors, .*head \(got 'span_vector'\)"):
        bound(["span_weights", "span_vector"])


@pytest.mark.parametrize("need", ["span_vectors", "geometry", "change_geometry"])
def test_an_estimator_that_pools_what_a_term_reads_has_an_effect(bound, need):
    assert isinstance(bound([need], pooling={"name": "uniform"}).terms[0], AlignmentTerm)
    assert bound([need], importance={"name": "uniform"}).importance.NAME == "uniform"
    with pytest.raises(InputError, match=r"importance: has no effect, since no term reads token or span weights"):
        bound([need], pooling={"name": "attention"}, importance={"name": "uniform"})


@pytest.mark.parametrize("need", ["span_weights", "token_weights"])
def test_an_estimator_of_weights_that_a_term_reads_has_an_effect(bound, need):
    assert bound([need], importance={"name": "uniform"}).importance.NAME == "uniform"
    with pytest.raises(InputError, match="pooling: has no effect, since no term reads span vectors"):
        bound([need], pooling={"name": "uniform"})
