"""Which runs are one row, and what rows are called."""

from __future__ import annotations

import pytest

from mta_framework.comparison.finished_runs import read_run
from mta_framework.comparison.grouping import group, references
from mta_framework.errors import InputError

from .conftest import MTA

SCORES = {"dolly": [[1.0, 2.0], [3.0, 4.0]]}


@pytest.fixture
def run(make_run):
    """A run that was read back."""
    return lambda scores=SCORES, **changes: read_run(make_run(scores, **changes))


def rows(runs, labels=None):
    return {entry.label: [run.name for run in entry.runs] for entry in group(runs, labels)}


def test_runs_that_differ_in_nothing_but_their_seed_are_one_row(run):
    runs = [run(name=f"kl-{seed}", seed=seed, output_dir=f"runs{seed}") for seed in (1, 2, 3)]
    assert rows(runs) == {"KL": ["kl-1", "kl-2", "kl-3"]}


def test_what_does_not_touch_the_weights_makes_no_row(run):
    runs = [run(), run(name="b", seed=2, training__micro_batch_size=2, data__processes=4)]
    assert rows(runs) == {"KL": ["kl", "b"]}


def test_rows_are_called_after_base_loss_and_alignment(run):
    runs = [
        run(),
        run(name="b", alignment=MTA),
        run(name="c", alignment={**MTA, "terms": MTA["terms"][:1]}),
        run(name="d", alignment={**MTA, "terms": MTA["terms"][1:]}),
        run(name="e", base_loss={"name": "distillm2", "params": {}}),
        run(name="f", base_loss={"name": "my_loss", "params": {}}, alignment=MTA),
    ]
    assert list(rows(runs)) == ["KL", "KL + MTA", "KL + DSA", "KL + Hid", "DistiLLM-2", "my_loss + MTA"]


def test_methods_that_would_be_called_the_same_have_the_names_of_their_runs(run):
    runs = [run(name="short-1"), run(name="long-1", training__epochs=9), run(name="long-2", seed=2, training__epochs=9)]
    assert rows([*runs, run(name="mta", alignment=MTA)]) == {
        "short-1": ["short-1"],
        "long": ["long-1", "long-2"],
        "KL + MTA": ["mta"],
    }


def test_methods_and_names_that_clash_are_distinguished_by_folder(run):
    runs = [run(folder="a"), run(folder="b", training__epochs=9)]
    assert list(rows(runs)) == [str(entry.folder) for entry in runs]


def test_what_trained_nothing_is_called_by_its_name(run):
    runs = [run({"gpt2": SCORES}, name="gpt2", training=None), run({"opt": SCORES}, name="opt", training=None)]
    assert rows(runs) == {"gpt2": ["gpt2"], "opt": ["opt"]}
    assert [entry.seed for entry in runs] == [None, None]


def test_given_labels_decide(run):
    runs = [run(), run(name="b", training__epochs=9, seed=2), run(name="c", seed=3)]
    assert rows(runs, ["all", "all", "third"]) == {"all": ["kl", "b"], "third": ["c"]}


def test_two_runs_of_one_method_and_seed_are_refused(run):
    with pytest.raises(InputError, match=r"copy: is the method of .*/kl with the same seed \(got 1\)"):
        rows([run(), run(name="copy")])


def test_other_models_that_scored_alike_are_one_reference(run):
    teacher = {"dolly": [[7.0, 8.0], [7.0, 9.0]]}
    runs = [run({"student": SCORES, "teacher": teacher}, name=name, seed=seed) for name, seed in (("a", 1), ("b", 2))]
    assert [(entry.label, entry.model, entry.reference) for entry in references(runs, ["KL"])] == [
        ("teacher", "teacher", True)
    ]


def test_references_that_differ_are_called_after_their_runs(run):
    runs = [
        run({"student": SCORES, "initial_student": {"dolly": [[value, 1.0], [1.0, 1.0]]}}, name=name, seed=seed)
        for seed, (name, value) in enumerate((("a", 2.0), ("b", 3.0)))
    ]
    assert [entry.label for entry in references(runs, [])] == ["initial student of a", "initial student of b"]


def test_a_reference_gives_way_to_a_method_of_its_name(run):
    groups = references([run({"student": SCORES, "teacher": SCORES}, name="a")], ["teacher"])
    assert [entry.label for entry in groups] == ["teacher of a"]


@pytest.mark.parametrize(
    ("names", "shared"),
    [
        (("kl-lr3-seed10", "kl-lr3-seed11"), "kl-lr3-seed"),
        (("kl-mta-1", "kl-mta-2"), "kl-mta"),
        (("a", "b"), "a"),
    ],
)
def test_rows_of_one_label_are_called_by_what_the_names_of_their_runs_share(run, names, shared):
    runs = [run(name=name, seed=seed, training__epochs=5) for seed, name in enumerate(names)]
    assert rows([run(), *runs]) == {"kl": ["kl"], shared: list(names)}
