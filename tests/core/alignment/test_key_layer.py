"""What an alignment term sees of a key layer, and that it sees nothing of the teacher that it has not declared."""

from __future__ import annotations

import re

import pytest
import torch

from mta_framework import AlignmentTerm, RunError
from mta_framework.alignment import Alignment, WeightedTerm
from mta_framework.runs.layer_checks import require_terms
from mta_framework.types import LayerPair, ModelShape, States
from mta_plugins.importance_estimators.uniform import Uniform

PAIRS = LayerPair(1, 1, "words"), LayerPair(2, 3, "words")
LENGTHS, SPANS = [5, 4], [[(0, 2), (2, 5), (1, 3)], [(0, 1), (1, 4)]]
ATTRIBUTES = {
    "hidden_BTD": "states",
    "span_token_UD": "span_tokens",
    "span_vector_SD": "span_vectors",
    "token_weight_U": "token_weights",
    "span_weight_S": "span_weights",
    "geometry": "geometry",
    "change_geometry": "change_geometry",
    "head": "head",
    "final_layers": "head",
}


class Reader(AlignmentTerm):
    """Keeps what it sees of each key layer."""

    NAME = "reader"

    def __init__(self, read, needs=(), chosen=None):
        super().__init__(self.Params())
        self.read, self.needs, self.chosen, self.layers = read, needs, chosen, []

    def teacher_needs(self, has_shared_tokenizer):
        return self.needs

    def key_layers(self, pairs):
        return pairs if self.chosen is None else self.chosen

    def compute(self, layer, module):
        self.layers.append(layer)
        self.read(layer)
        return layer.student.hidden_BTD.sum()


def states(width, seed):
    generator = torch.Generator().manual_seed(seed)
    layers = {layer: torch.randn(2, 5, width, generator=generator) for layer in (1, 2, 3)}
    return States(layers[3], layers, "head", "final layers")


def computed(term, make_batch, pairs=PAIRS, shared_vocabulary=None):
    shapes = ModelShape(3, 4), ModelShape(3, 6)
    alignment = Alignment(
        pairs, Uniform(Uniform.Params()), [WeightedTerm(term, 3.0)], *shapes, shared_vocabulary=shared_vocabulary
    )
    assert not alignment.state_dict()
    return alignment(states(4, 1), states(6, 2), make_batch(LENGTHS, SPANS, 5))


@pytest.mark.parametrize(("attribute", "need"), ATTRIBUTES.items())
def test_undeclared_parts_of_the_teacher_are_refused_and_declared_ones_are_there(make_batch, attribute, need):
    def read(layer):
        return getattr(layer.teacher, attribute)

    upper = [LayerPair(2, 3, "words")]
    with pytest.raises(RunError, match=f"^alignment term 'reader' must declare '{need}' to read {attribute} of the te"):
        computed(Reader(read, [other for other in ATTRIBUTES.values() if other != need], upper), make_batch)
    computed(Reader(read, [need], upper), make_batch)


@pytest.mark.parametrize("attribute", ["_states", "normalised_weight_U"])
def test_what_is_no_part_of_the_contract_cannot_be_read_of_the_teacher(make_batch, attribute):
    term = Reader(lambda layer: getattr(layer.teacher, attribute), list(ATTRIBUTES.values()))
    with pytest.raises(RunError, match=f"may read of the teacher what TeacherLayer has \\(got '{attribute}'\\)"):
        computed(term, make_batch)


def test_a_layer_knows_the_one_of_its_granularity_below_it_whatever_the_order_of_the_pairs(make_batch):
    term = Reader(lambda layer: None)
    computed(term, make_batch, (LayerPair(3, 3, "words"), LayerPair(1, 2, "words")))
    assert [layer.pair.student for layer in term.layers] == [3, 1]
    assert [layer.previous and layer.previous.pair.student for layer in term.layers] == [1, None]


def test_of_a_key_layer_at_which_a_term_is_not_computed_nothing_of_the_teacher_is_read(make_batch):
    def read(layer):
        return layer.previous and layer.previous.teacher.span_vector_SD

    computed(Reader(read, ["span_vectors"]), make_batch)
    with pytest.raises(
        RunError, match=r"must declare 'span_vectors' to read span_vector_SD of the teacher \(got nothin"
    ):
        computed(Reader(read, ["span_vectors"], [LayerPair(2, 3, "words")]), make_batch)


def test_changes_at_the_lowest_layer_are_refused(make_batch):
    with pytest.raises(RunError, match="does not exist at the lowest key layer"):
        computed(Reader(lambda layer: layer.teacher.change_geometry, ["change_geometry"]), make_batch)


def test_weights_are_divided_by_the_number_of_layers_at_which_the_term_is_computed(make_batch):
    terms = computed(Reader(lambda layer: None), make_batch)
    assert [term.weight for term in terms] == [1.5, 1.5]
    (term,) = computed(Reader(lambda layer: None, chosen=[LayerPair(2, 3, "words")]), make_batch)
    assert term.weight == 3.0


def test_weights_of_a_text_sum_to_one_over_spans_and_over_memberships(make_batch):
    sums = {}

    def read(layer):
        text_U = layer.teacher.index.token_U // 5
        sums["span"] = torch.zeros(2).index_add(0, layer.teacher.index.text_S, layer.teacher.span_weight_S)
        sums["token"] = torch.zeros(2).index_add(0, text_U, layer.teacher.token_weight_U)

    computed(Reader(read, ["span_weights", "token_weights"]), make_batch)
    for total_B in sums.values():
        torch.testing.assert_close(total_B, torch.ones(2))


def test_a_term_that_fails_is_named_with_its_line(make_batch):
    with pytest.raises(RunError, match=r"^alignment term 'reader' failed \(ZeroDivisionError: .*test_key_layer.py:\d+"):
        computed(Reader(lambda layer: 1 / 0), make_batch)


def test_shared_tokens_are_those_of_the_run_at_every_layer_and_none_at_all_are_refused(make_batch):
    ids = torch.tensor([1, 2]), torch.tensor([7, 0])
    term = Reader(lambda layer: None)
    computed(term, make_batch, shared_vocabulary=ids)
    lower, upper = term.layers
    for layer in (lower, upper, upper.previous):
        assert all(torch.equal(got, given) for got, given in zip(layer.shared_vocabulary, ids, strict=True))
    nothing = torch.tensor([], dtype=torch.int64)
    with pytest.raises(RunError, match=r"^the vocabularies of student and teacher share no token"):
        computed(Reader(lambda layer: layer.shared_vocabulary), make_batch, shared_vocabulary=(nothing, nothing))
    computed(Reader(lambda layer: None), make_batch, shared_vocabulary=(nothing, nothing))


def test_one_module_for_several_key_layers_is_refused():
    term, module = Reader(lambda layer: None), torch.nn.Linear(4, 6)
    term.make_module = lambda student, teacher: module
    with pytest.raises(RunError, match="'reader' must make a new module for each key layer, or none at all"):
        Alignment(PAIRS, Uniform(Uniform.Params()), [WeightedTerm(term, 1.0)], ModelShape(3, 4), ModelShape(3, 6))


def test_parameters_that_a_term_does_not_announce_are_refused():
    term = Reader(lambda layer: None)
    term.make_module = lambda student, teacher: torch.nn.Linear(student.hidden_size, teacher.hidden_size)
    with pytest.raises(RunError, match="'reader' makes parameters, but its has_parameters is false"):
        require_terms([term], PAIRS, ModelShape(3, 4), ModelShape(3, 6))


@pytest.mark.parametrize(
    ("name", "returned", "message"),
    [
        ("key_layers", [PAIRS[0], PAIRS[0]], "must choose at least one of the key layers, each once, and no others"),
        ("key_layers", None, "must return a list of key layers (got NoneType)"),
        ("divisor", 0, "its divisor must be an integer from 1 on (got 0)"),
        ("divisor", -1, "its divisor must be an integer from 1 on (got -1)"),
        ("divisor", "2", "its divisor must be an integer from 1 on (got '2')"),
        ("make_module", torch.zeros(2), "make_module must return a module of torch or None (got Tensor)"),
    ],
)
def test_what_a_term_gives_before_training_is_checked(name, returned, message):
    term = Reader(lambda layer: None)
    setattr(term, name, lambda *_: returned)
    with pytest.raises(RunError, match=rf"^alignment term 'reader'.*{re.escape(message)}"):
        require_terms([term], PAIRS, ModelShape(3, 4), ModelShape(3, 6))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("has_parameters", True, " makes no parameters to train, but its has_parameters is true"),
        ("num_texts", 2.5, ": num_texts must be an integer from 0 on (got 2.5)"),
        ("num_texts", -1, ": num_texts must be an integer from 0 on (got -1)"),
    ],
)
def test_what_a_term_declares_before_training_is_checked(name, value, message):
    term = Reader(lambda layer: None)
    declaring = type("Declaring", (Reader,), {name: value})
    term.__class__ = declaring
    with pytest.raises(RunError, match=rf"^alignment term 'reader'{re.escape(message)}$"):
        require_terms([term], PAIRS, ModelShape(3, 4), ModelShape(3, 6))


def test_a_generator_of_key_layers_is_taken_and_named_where_it_fails():
    term = Reader(lambda layer: None)
    term.key_layers = lambda pairs: (pair for pair in pairs)
    require_terms([term], PAIRS, ModelShape(3, 4), ModelShape(3, 6))
    term.key_layers = lambda pairs: (1 // 0 for _ in pairs)
    with pytest.raises(RunError, match=r"^alignment term 'reader' failed \(ZeroDivisionError: "):
        require_terms([term], PAIRS, ModelShape(3, 4), ModelShape(3, 6))


def test_a_term_that_changes_shared_states_in_place_is_named(make_batch):
    first = Reader(lambda layer: layer.student.span_vector_SD)
    with pytest.raises(
        RunError, match=r"^alignment term 'reader' must not change its inputs .*student\.states\.layers"
    ):
        computed(Reader(lambda layer: layer.student.hidden_BTD.mul_(2.0)), make_batch)
    computed(first, make_batch)
    for change in (
        lambda layer: layer.student.span_vector_SD.mul_(0.5),
        lambda layer: layer.student.span_token_UD.mul_(2),
    ):
        with pytest.raises(RunError, match=r"^alignment term 'reader' must not change its inputs .*student\.span_"):
            computed(Reader(change), make_batch)
