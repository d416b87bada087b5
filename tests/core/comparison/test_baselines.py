"""What rows are compared to, and where they stand."""

from __future__ import annotations

import pytest

from mta_framework.comparison.baselines import with_baselines
from mta_framework.comparison.finished_runs import read_run
from mta_framework.comparison.grouping import group, references
from mta_framework.errors import InputError

from .conftest import MTA

SCORES = {"dolly": [[1.0, 2.0], [3.0, 4.0]]}
FDD = {"name": "fdd", "params": {}}


@pytest.fixture
def groups(make_run):
    """Methods and references of runs, by their changes to the base spec."""

    def make(*changes, scores=SCORES):
        runs = [read_run(make_run(scores, **{"name": f"run{index}", **change})) for index, change in enumerate(changes)]
        methods = group(runs)
        return [*methods, *references(runs, [entry.label for entry in methods])]

    return make


def table(rows):
    return [(entry.label, entry.baseline) for entry in rows]


def test_a_row_with_alignment_is_compared_to_its_base_loss_above_it(groups):
    rows = groups(
        {"alignment": MTA},
        {"base_loss": FDD, "alignment": MTA},
        {"base_loss": FDD},
        {},
        {"alignment": {**MTA, "terms": MTA["terms"][:1]}},
    )
    assert table(with_baselines(rows, None)) == [
        ("FDD", None),
        ("FDD + MTA", "FDD"),
        ("KL", None),
        ("KL + MTA", "KL"),
        ("KL + DSA", "KL"),
    ]


def test_another_student_is_no_baseline(groups):
    rows = with_baselines(groups({}, {"alignment": MTA, "student": {"hub": "opt"}}, {"alignment": MTA}), None)
    # Two rows would be called KL + MTA.
    assert table(rows) == [("KL", None), ("run2", "KL"), ("run1", None)]


@pytest.mark.parametrize(
    "changed",
    [
        {"teacher": {"hub": "gpt2-xl", "cache": {"layer_states": "exact"}}},
        {"student": {"hub": "gpt2", "attention": "eager"}},
    ],
    ids=["teacher.cache", "student.attention"],
)
def test_what_affects_nothing_makes_no_other_model(groups, changed):
    models = {"teacher": {"hub": "gpt2-xl", "cache": None}, "student": {"hub": "gpt2", "attention": None}}
    rows = groups({**models, "base_loss": FDD}, models, {**models, **changed, "alignment": MTA})
    assert table(with_baselines(rows, None)) == [("FDD", None), ("KL", None), ("KL + MTA", "KL")]
    assert rows[-1].beyond_alignment == ()


def test_runs_with_and_without_a_cache_are_one_method(groups):
    teacher = {"hub": "gpt2-xl", "cache": None}
    cached = {"hub": "gpt2-xl", "cache": {"path": "/somewhere", "layer_states": "exact"}}
    assert len(groups({"teacher": teacher, "seed": 1}, {"teacher": cached, "seed": 2})) == 1
    rounded = {**cached, "cache": {"layer_states": "8bit"}}
    assert len(groups({"teacher": teacher, "seed": 1}, {"teacher": rounded, "seed": 2})) == 2


def test_what_differs_beside_the_alignment_is_kept(groups):
    rows = with_baselines(groups({}, {"alignment": MTA, "training__epochs": 5}), None)
    assert rows[1].baseline == "KL"
    assert rows[1].beyond_alignment == ("training.epochs",)


def test_among_several_bases_the_one_that_differs_in_alignment_alone_is_taken(groups):
    rows = with_baselines(groups({"training__epochs": 5}, {}, {"alignment": MTA}), None)
    assert table(rows) == [("run0", None), ("run1", None), ("KL + MTA", "run1")]
    assert rows[2].beyond_alignment == ()


def test_where_none_of_several_bases_fits_none_is_taken(groups):
    rows = groups({"training__epochs": 5}, {"training__epochs": 6}, {"alignment": MTA}, {"base_loss": FDD})
    other = groups({"base_loss": FDD, "alignment": MTA})[0]
    assert dict(table(with_baselines([*rows, other], None)))["KL + MTA"] is None


def test_without_any_pair_the_first_row_is_the_baseline(groups):
    rows = groups({}, {"base_loss": FDD}, {"base_loss": {"name": "jsd", "params": {}}})
    assert table(with_baselines(rows, None)) == [("KL", None), ("FDD", "KL"), ("JSD", "KL")]


def test_one_row_alone_is_compared_to_nothing(groups):
    assert table(with_baselines(groups({}), None)) == [("KL", None)]


def test_a_chosen_baseline_is_that_of_all_methods_but_of_no_reference(groups):
    both = {"student": SCORES, "teacher": SCORES}
    rows = groups({}, {"alignment": MTA}, {"base_loss": FDD}, scores=both)
    assert table(with_baselines(rows, "FDD")) == [
        ("teacher", None),
        ("FDD", None),
        ("KL", "FDD"),
        ("KL + MTA", "FDD"),
    ]


def test_a_reference_can_be_the_baseline(groups):
    rows = groups({}, scores={"student": SCORES, "teacher": SCORES})
    assert table(with_baselines(rows, "teacher")) == [("teacher", None), ("KL", "teacher")]


def test_baselines_can_be_given_row_by_row(groups):
    rows = groups({}, {"alignment": MTA}, {"base_loss": FDD})
    assert table(with_baselines(rows, {"FDD": "KL + MTA"})) == [
        ("KL", None),
        ("KL + MTA", None),
        ("FDD", "KL + MTA"),
    ]


def test_an_unknown_baseline_is_named_with_the_rows_that_there_are(groups):
    with pytest.raises(
        InputError, match=r"--baseline: no row is called 'KLL'; expected one of the rows: KL, FDD.*Did you mean 'KL'"
    ):
        with_baselines(groups({}, {"base_loss": FDD}), "KLL")
