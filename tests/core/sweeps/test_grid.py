"""A sweep is every combination of its axes' choices, and its faults are told before anything runs."""

from __future__ import annotations

import json

import pytest

from mta_framework.comparison.results import Comparison
from mta_framework.errors import InputError
from mta_framework.reporting import curve_figures
from mta_framework.reporting.report_files import write_comparison
from mta_framework.spec.sweep import SweepSpec
from mta_framework.sweeps.grid import cells_of, rows_of


def sweep(**changes):
    axes = [
        {"name": "base", "cells": {"KL": {}, "JSD": {"base_loss": {"name": "jsd"}}}},
        {"name": "terms", "cells": {"alone": {"alignment": None}, "+ MTA": {"alignment.terms.0.weight": 3}}},
        {"name": "seed", "field": "seed", "values": [1, 2]},
    ]
    document = {"name": "s", "output_dir": "/out", "spec": "/spec.json", "axes": axes, "baseline": "alone", **changes}
    return SweepSpec.model_validate(document, strict=True)


def test_last_axis_changes_fastest_and_names_follow_from_labels():
    names = [cell.name for cell in cells_of(sweep())]
    assert names == [
        "KL-alone-seed-1",
        "KL-alone-seed-2",
        "KL-MTA-seed-1",
        "KL-MTA-seed-2",
        "JSD-alone-seed-1",
        "JSD-alone-seed-2",
        "JSD-MTA-seed-1",
        "JSD-MTA-seed-2",
    ]


def test_cell_has_common_settings_first_and_the_folder_of_the_sweep_last():
    cell = cells_of(sweep(set={"training.epochs": 2}))[-1]
    assert cell.overrides == (
        "training.epochs=2",
        'base_loss={"name": "jsd"}',
        "alignment.terms.0.weight=3",
        "seed=2",
        'name="JSD-MTA-seed-2"',
        'output_dir="/out/s"',
    )


def test_seeds_share_a_row_and_each_row_is_compared_along_the_axis_of_the_baseline():
    assert rows_of(sweep()) == {
        "KL alone": None,
        "KL + MTA": "KL alone",
        "JSD alone": None,
        "JSD + MTA": "JSD alone",
    }
    assert {cell.row for cell in cells_of(sweep())} == set(rows_of(sweep()))


def test_baselines_may_be_given_one_by_one():
    axis = {"name": "m", "specs": {"A": "a.json", "A+": "b.json", "B": "c.json", "B+": "d.json"}}
    varied = sweep(axes=[axis], spec=None, baseline={"A+": "A", "B+": "B"})
    assert rows_of(varied) == {"A": None, "A+": "A", "B": None, "B+": "B"}
    assert [cell.spec for cell in cells_of(varied)] == ["a.json", "b.json", "c.json", "d.json"]


def test_sweep_over_seeds_alone_is_one_row_of_its_name():
    varied = sweep(axes=[{"name": "seed", "field": "seed", "values": [1, 2]}], baseline=None)
    assert rows_of(varied) == {"s": None}


@pytest.mark.parametrize(
    ("changes", "field", "problem"),
    [
        ({"baseline": "MTA"}, "baseline: ", "does not consist of labels of one axis"),
        ({"baseline": "seed 3"}, "baseline: ", "is a training seed"),
        ({"set": {"output_dir": "x"}}, "set: ", "is set by the sweep"),
        ({"set": {"training..epochs": 1}}, "set: ", "is not a field (got 'training..epochs')"),
        ({"set": {"seed=1": 1}}, "set: ", "is not a field"),
        ({"set": {"seed": 1}}, "set: ", "sets seed without effect"),
        ({"spec": None}, "spec: ", "must be given exactly once"),
        ({"axes": []}, "axes: ", "is too short"),
        ({"axes": [{"name": "a"}], "baseline": None}, "axes.0: ", "is incomplete"),
        ({"axes": [{"name": "a", "field": "seed"}], "baseline": None}, "axes.0.values: ", "must be given with field"),
        (
            {"axes": [{"name": "a", "field": "seed", "values": [1, 1]}], "baseline": None},
            "axes.0.values: ",
            "repeats a value",
        ),
        (
            {"axes": [{"name": "a", "cells": {"x": {}}, "values": [1]}], "baseline": None},
            "axes.0.values: ",
            "has no effect without field",
        ),
        ({"axes": [{"name": "a", "cells": {"x": {}, "+ x": {}}}], "baseline": None}, "axes: ", "share the folder 'x'"),
        ({"axes": [{"name": "a", "cells": {"X": {}, "x": {}}}], "baseline": None}, "axes: ", "(got 'X', 'x')"),
        ({"axes": [{"name": "a", "cells": {"+": {}}}], "baseline": None}, "axes: ", "the folder ''"),
        ({"axes": [{"name": "a", "cells": {"span cache": {}}}], "baseline": None}, "axes: ", "'span-cache'"),
        ({"axis": []}, "axis: ", "Did you mean 'axes'?"),
        (
            {"axes": [{"name": "a", "cells": {"x": {}}}, {"name": "a", "cells": {"y": {}}}], "baseline": None},
            "axes: ",
            "has two axes of one name (got 'a')",
        ),
    ],
)
def test_fault_of_a_sweep_names_its_place(changes, field, problem, sweep_dict, bound):
    with pytest.raises(InputError) as raised:
        bound({**sweep_dict, **changes})
    assert any(str(fault).startswith(field) and problem in str(fault) for fault in raised.value.faults), raised.value


@pytest.mark.parametrize("name", ["runs.csv", "Outcomes.csv", "curves.csv", "curves-x.svg", "wins.csv", "comparison"])
def test_cell_that_would_stand_in_the_way_of_the_comparison_is_refused(name, sweep_dict, bound):
    axes = [{"name": "a", "cells": {name: {}, "other": {}}}]
    with pytest.raises(InputError, match=f"^axes: would give a cell the folder '{name.casefold()}'") as refusal:
        bound({**sweep_dict, "axes": axes, "baseline": None})
    assert len(refusal.value.faults) == 1


def test_cell_may_be_called_like_a_file_of_the_comparison_without_its_ending(sweep_dict, bound):
    axes = [{"name": "a", "cells": {"runs": {}, "curves": {}, "curves-0.5": {}, "outcomes": {}}}]
    assert len(bound({**sweep_dict, "axes": axes, "baseline": None}).cells) == 4


def test_no_file_of_a_comparison_can_be_the_folder_of_a_cell(sweep_dict, bound, tmp_path, monkeypatch):
    monkeypatch.setattr(curve_figures, "curve_files", lambda _: [("curves-student-loss-steps.svg", b"")])
    written = write_comparison(tmp_path / "compared", Comparison((), (), (), (), (), (), ()))
    axes = [{"name": "a", "cells": {path.name: {} for path in written}}]
    with pytest.raises(InputError) as refusal:
        bound({**sweep_dict, "axes": axes, "baseline": None})
    assert len(refusal.value.faults) == len(written) == 10


def test_values_that_differ_beyond_their_shortened_labels_repeat_nothing_and_are_to_be_labelled(sweep_dict, bound):
    long = ["rouge_l" * 20, "exact_match"]
    values = [[*long, 1], [*long, 2]]
    axes = [{"name": "m", "field": "evaluation.metrics", "values": values}]
    with pytest.raises(InputError) as refusal:
        bound({**sweep_dict, "axes": axes, "baseline": None})
    faults = [fault for fault in refusal.value.faults if fault.where == "axes.0.values"]
    assert [fault.problem[:45] for fault in faults] == ["gives different values the same label (got 'm"]
    assert faults[0].hint == "Give them as cells, label -> settings, instead of field and values."


def test_value_that_is_repeated_with_its_keys_in_another_order_is_a_repetition(sweep_dict, bound):
    values = [{"name": "kl", "params": {}}, {"params": {}, "name": "kl"}]
    axes = [{"name": "m", "field": "base_loss", "values": values}]
    with pytest.raises(InputError, match=r"^axes\.0\.values: repeats a value"):
        bound({**sweep_dict, "axes": axes, "baseline": None})


def test_baseline_that_compares_a_row_with_itself_is_refused(sweep_dict, bound):
    with pytest.raises(InputError, match=r"^baseline: compares 'KL' with itself \(got .*; expected label -> another"):
        bound({**sweep_dict, "baseline": {"KL": "KL", "KL + MTA": "KL"}})


@pytest.mark.parametrize("baseline", ["none", {"w": "none"}])
def test_baseline_that_two_axes_have_is_refused(baseline, sweep_dict, bound):
    axes = [
        {"name": "m", "cells": {"none": {}, "w": {"training.epochs": 2}}},
        {"name": "n", "cells": {"none": {}, "w": {"training.warmup_ratio": 0.2}}},
    ]
    with pytest.raises(InputError, match=r"^baseline: could mean either of the axes 'm' and 'n'"):
        bound({**sweep_dict, "axes": axes, "baseline": baseline})


def test_cells_of_different_folders_whose_labels_join_to_one_row_are_refused(sweep_dict, bound):
    axes = [
        {"name": "m", "cells": {"A -1": {}, "A": {"training.learning_rate": 0.1}}},
        {"name": "n", "cells": {"B": {}, "-1 B": {"training.warmup_ratio": 0.2}}},
        {"name": "seed", "field": "seed", "values": [1, 2]},
    ]
    shared = r"axes: would share the row 'A -1 B' of the table \(got 'A -1' \+ 'B', 'A' \+ '-1 B'\)"
    with pytest.raises(InputError, match=f"^{shared}") as refusal:
        bound({**sweep_dict, "axes": axes, "baseline": None})
    assert len(refusal.value.faults) == 1


def test_a_sweep_of_more_cells_than_anybody_runs_is_refused_before_any_is_made(sweep_dict, bound, monkeypatch):
    values = [{"name": f"axis{axis}", "field": f"training.f{axis}", "values": list(range(1000))} for axis in range(6)]
    monkeypatch.setattr("mta_framework.sweeps.bound_sweep.cells_of", lambda _: pytest.fail("cells are made"))
    with pytest.raises(InputError) as refusal:
        bound({**sweep_dict, "axes": values, "baseline": None})
    (fault,) = refusal.value.faults
    assert (fault.where, fault.problem) == ("axes", f"make too many cells (got {10**18:,})")
    assert fault.expected == "at most 1,000 combinations of their choices"


def test_span_cache_and_processes_that_are_set_for_all_cells_do_not_refuse_those_without_alignment(sweep_dict, bound):
    sweep_dict["set"] |= {"data.cache_dir": "spans", "data.processes": 2}
    cells = bound(sweep_dict).cells
    assert [cell.run.spec.alignment is None for cell in cells] == [True, True, False, False]
    assert {cell.run.spec.data.processes for cell in cells} == {2}


def test_later_axis_that_replaces_what_an_earlier_sets_is_refused(sweep_dict, bound):
    sweep_dict["axes"].append({"name": "late", "cells": {"x": {"alignment": {"spans": {"name": "words"}}}}})
    sweep_dict["axes"][0]["cells"]["KL + MTA"] = {"alignment.terms.1.weight": 1}
    with pytest.raises(InputError, match="since axis 'late' sets alignment"):
        bound(sweep_dict)


def test_faults_of_all_cells_come_at_once_and_say_which_cells_have_them(sweep_dict, bound):
    cells = sweep_dict["axes"][0]["cells"]
    cells["KL + MTA"] = {"alignment.trems": 0}
    cells["JSD"] = {"base_loss": {"name": "jds"}, "alignment": None}
    sweep_dict["set"]["training.batch_size"] = 0
    with pytest.raises(InputError) as raised:
        bound(sweep_dict)
    faults = sorted(str(fault) for fault in raised.value.faults)
    assert len(faults) == 3
    assert faults[0].startswith("cells JSD-seed-3, JSD-seed-4: base_loss.name: ")
    assert faults[1].startswith("cells KL-MTA-seed-3, KL-MTA-seed-4: alignment.trems: ")
    assert faults[2].startswith("every cell: training.batch_size: ")


def test_cell_s_resolved_spec_binds_to_the_same_run(sweep_dict, bound, tmp_path):
    from mta_framework.registry import discover
    from mta_framework.runs.plugin_binding import bind

    for cell in bound(sweep_dict).cells:
        path = tmp_path / "elsewhere" / "spec.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(cell.run.spec.model_dump(mode="json")))
        assert bind(path, discover()).spec == cell.run.spec


def test_setting_that_would_lose_its_effect_is_set_back_to_its_default(sweep_dict, bound):
    sweep_dict["set"]["alignment.projection_learning_rate"] = 1e-3
    sweep_dict["axes"][0]["cells"] = {"DSA": {"alignment.terms": [{"name": "dsa", "weight": 2.0}]}}
    sweep_dict["baseline"] = None
    with pytest.raises(InputError, match="projection_learning_rate: has no effect"):
        bound(sweep_dict)
    sweep_dict["axes"][0]["cells"]["DSA"]["alignment.projection_learning_rate"] = 5e-4
    sweep_dict["set"].pop("alignment.projection_learning_rate")
    assert len(bound(sweep_dict).cells) == 2


def test_cells_that_are_evaluated_differently_by_accident_are_refused(sweep_dict, spec_dict, write_spec, bound):
    write_spec({**spec_dict, "alignment": None}, "a.json")
    write_spec({**spec_dict, "alignment": None, "evaluation": {**spec_dict["evaluation"], "seeds": [1]}}, "b.json")
    axes = [{"name": "m", "specs": {"a": "a.json", "b": "b.json"}}]
    document = {"name": "s", "axes": axes}
    with pytest.raises(InputError, match=r"evaluation\.seeds: is not the same in all cells"):
        bound(document)
    axes.append({"name": "t", "field": "evaluation.temperature", "values": [0.5, 1.0]})
    assert len(bound(document).cells) == 4
