"""Key layers that are measured: asked once, held to the contract, kept on disk."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from mta_framework import BaseLoss, InputError, LayerPair, LayerSimilarity, MeasuringLayerMapper, ModelShape, RunError
from mta_framework.runs.build import alignment_layers, measured_layers, recorded_layers
from mta_framework.runs.layer_checks import base_loss_layers

RUN_MODELS = SimpleNamespace(
    student_summary=SimpleNamespace(shape=ModelShape(2, 4)), teacher_summary=SimpleNamespace(shape=ModelShape(3, 4))
)
SIMILARITY = LayerSimilarity(((0.1, 0.2, 0.3), (0.4, 0.5, 0.625)), ((1.0, 0.5), (0.5, 1.0)))


class Fixed(MeasuringLayerMapper):
    """Gives what it was made with, whatever is measured."""

    NAME = "fixed"

    def __init__(self, outcome, planned=1):
        super().__init__(self.Params())
        self.outcome = outcome
        self.planned = planned

    @property
    def granularities(self):
        return ("words",)

    @property
    def num_texts(self):
        return 3

    def map(self, student, teacher):
        return [LayerPair(layer, layer, "words") for layer in (1, 2)][: self.planned]

    def choose(self, similarity):
        assert similarity is SIMILARITY
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


def measure(outcome, file, compare=lambda: SIMILARITY, planned=1):
    return measured_layers(Fixed(outcome, planned), RUN_MODELS, compare, file)


def test_choice_is_reported_and_kept_with_what_was_measured(tmp_path, capsys):
    pairs = [LayerPair(1, 2, "words"), LayerPair(2, 3, "words")]
    file = tmp_path / "key-layers.json"
    assert measure(pairs, file, planned=2) == tuple(pairs)
    assert capsys.readouterr().out == "Key layers, measured: 1->2 words (CKA 0.20), 2->3 words (CKA 0.62)\n"
    assert recorded_layers(file) == tuple(pairs)
    saved = json.loads(file.read_text())
    assert saved["pairs"][1] == {"student": 2, "teacher": 3, "granularity": "words", "cka": 0.625}
    assert (saved["across"][1][0], saved["within"][0][1]) == (0.4, 0.5)


def test_what_is_kept_is_not_measured_again(tmp_path, capsys):
    measure([LayerPair(1, 2, "words")], tmp_path / "k.json")
    capsys.readouterr()
    again = measure(AssertionError(), tmp_path / "k.json", lambda: pytest.fail("measured again"))
    assert again == (LayerPair(1, 2, "words"),)
    assert capsys.readouterr().out == ""


def test_before_measuring_the_mapper_is_asked_by_shapes():
    assert alignment_layers(Fixed([]), RUN_MODELS) == (LayerPair(1, 1, "words"),)


@pytest.mark.parametrize(
    ("outcome", "message"),
    [
        ([], r"^layer mapper 'fixed' must return at least one pair, of the granularities words alone$"),
        ([LayerPair(1, 1, "phrases")], r"granularities words alone \(got 1->1 phrases\)$"),
        ([LayerPair(3, 1, "words")], r"^layer mapper 'fixed' must name pairs within layers 1 to 2 of the student"),
        (
            [LayerPair(1, 1, "words")] * 2,
            r"must return different pairs, sorted by student layer \(got 1->1 words, 1->1",
        ),
        (
            [LayerPair(2, 1, "words"), LayerPair(1, 1, "words")],
            r"sorted by student layer \(got 2->1 words, 1->1 words\)$",
        ),
        ([(1, 1, "words")], r"must return pairs LayerPair\(.*\) of integers \(got tuple \(1, 1, 'words'\)\)$"),
        ([LayerPair(1.0, 1, "words")], r"of integers \(got LayerPair .*1\.0"),
        (None, r"^layer mapper 'fixed' must return a list of pairs of layers \(got NoneType\)$"),
        (
            [LayerPair(1, 1, "words"), LayerPair(2, 1, "words")],
            r"^layer mapper 'fixed': choose must return as many pairs as map \(2 of words; 1 of words\)$",
        ),
        (KeyError("x"), r"^layer mapper 'fixed' failed \(KeyError: 'x'"),
    ],
)
def test_a_choice_that_breaks_the_contract_stops_the_run_and_is_not_kept(outcome, message, tmp_path):
    with pytest.raises(RunError, match=message):
        measure(outcome, tmp_path / "k.json")
    assert not (tmp_path / "k.json").exists()


def test_a_generator_of_pairs_is_taken_and_named_where_it_fails(tmp_path):
    assert measure((LayerPair(layer, 1, "words") for layer in [1]), tmp_path / "k.json") == (LayerPair(1, 1, "words"),)
    with pytest.raises(RunError, match=r"^layer mapper 'fixed' failed \(ZeroDivisionError: "):
        measure((1 // 0 for _ in [1]), tmp_path / "other.json")


def test_a_mapper_may_refuse_models_in_any_words(tmp_path):
    with pytest.raises(
        InputError, match=r"^alignment.layers: no such layers; expected other options. Change the options"
    ):
        measure(ValueError("no such layers."), tmp_path / "k.json")


def test_a_mapper_that_finds_no_layers_is_an_error_of_the_input(tmp_path):
    with pytest.raises(InputError, match=r"^alignment.layers: no such layers \(got 2\); expected three. Add one.$"):
        measure(ValueError("no such layers (got 2); expected three. Add one."), tmp_path / "k.json")


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([LayerPair(1, 1, "words")], r"must name its key layers as pairs of numbers, \(student layer, teacher layer\)"),
        ([1, 2], r"\(got 1\)$"),
        ([(1.0, 2)], r"\(got \(1\.0, 2\)\)$"),
        (None, r"must return a list of pairs of layers \(got NoneType\)$"),
        ([(1, 4)], "must name pairs within layers 1 to 2 of the student and 1 to 3 of the teacher"),
    ],
)
def test_layers_of_a_base_loss_that_break_the_contract_are_named(layers, message):
    class Reading(BaseLoss):
        NAME = "reading"

        def compute(self, student, teacher, batch, progress):
            raise AssertionError

        def key_layers(self, student, teacher):
            return layers

    with pytest.raises(RunError, match=rf"^base loss 'reading' .*{message}"):
        base_loss_layers(Reading(Reading.Params()), RUN_MODELS)
