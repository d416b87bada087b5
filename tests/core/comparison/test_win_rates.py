"""A metric that compares responses judges two rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mta_framework.comparison.compare import compare
from mta_framework.comparison.win_rates import read_judge
from mta_framework.errors import InputError, RunError
from mta_framework.interfaces import PairwiseMetric
from mta_framework.registry import Registered, Registry
from mta_framework.types import ScoreSet

from .conftest import MTA

BASE = {"dolly": [[1.0] * 4, [2.0] * 4], "vicuna": [[1.0] * 2, [2.0] * 2]}


class Longer(PairwiseMetric):
    """Prefers what it is told to, and remembers what it saw."""

    NAME = "longer"

    def __init__(self, params, outcomes=((1, 0.5, 1, 0), (1, 1))):
        super().__init__(params)
        self.outcomes = list(outcomes)
        self.seen = []

    def score(self, answers):
        return ScoreSet(tuple(0.0 for _ in answers.predictions))

    def prefer(self, first, second):
        self.seen.append((first, second))
        return ScoreSet(tuple(self.outcomes.pop(0)))

    def usage(self):
        return {"requests": 12, "tokens": 3400.0}


@pytest.fixture
def entries(make_run):
    """KL against KL + MTA."""
    return [make_run(BASE), make_run(BASE, name="mta", alignment=MTA)]


def judge(**options):
    return Longer(Longer.Params(), **options)


def test_counts_preferences_set_by_set_and_over_all(entries):
    verdicts = compare(entries, judge=judge()).verdicts
    assert [(entry.set, entry.wins, entry.ties, entry.losses) for entry in verdicts] == [
        ("dolly", 2, 1, 1),
        ("vicuna", 2, 0, 0),
        (None, 4, 1, 1),
    ]
    assert [entry.share for entry in verdicts] == [pytest.approx(2.5 / 4), 1.0, pytest.approx((0.625 + 1) / 2)]
    assert {(entry.baseline, entry.row, entry.metric) for entry in verdicts} == {("KL", "KL + MTA", "longer")}


def test_probability_is_that_of_a_sign_test(entries):
    # Two prompts, both won: a quarter of all swaps is as extreme on each side.
    assert compare(entries, judge=judge()).verdicts[1].p == pytest.approx(0.5, abs=0.03)


def test_sees_question_references_and_the_responses_of_the_first_seed_base_first(entries):
    chosen = judge()
    compare(entries, judge=chosen)
    first, second = chosen.seen[0]
    assert first.questions[0] == "dolly question 1"
    assert list(first.references[3]) == ["dolly reference 4"]
    assert first.predictions[0] == second.predictions[0] == "student answers dolly 1 under 10"
    folder = entries[0].parent
    assert first.cache_dir == folder / "metric-cache" / "longer"
    assert first.cache_dir.is_dir()
    assert isinstance(first.predictions, tuple)
    assert isinstance(first.references, tuple)


def test_what_it_took_stands_in_the_notes(entries):
    assert "longer took 12 requests, 3400 tokens." in compare(entries, judge=judge()).notes


def test_more_than_two_rows_are_refused(entries, make_run):
    third = make_run(BASE, name="fdd", base_loss={"name": "fdd", "params": {}})
    with pytest.raises(InputError, match=r"--judge: compares two rows \(got 3: KL, KL \+ MTA, FDD\)"):
        compare([*entries, third], judge=judge())


def test_one_row_is_refused(entries):
    with pytest.raises(InputError, match="compares two rows"):
        compare(entries[:1], judge=judge())


@pytest.mark.parametrize(
    ("outcomes", "problem"),
    [
        ((1, 0), "returned another number of scores (got 2); expected one score per prediction, 4. "),
        ((1, 2, 0, 0), "prefer() returned an unusable score (got 2.0 for prompt 2 of dolly); expected 1 where "),
        ((1, 0, float("nan"), 0), "prefer() returned an unusable score (got nan for prompt 3 of dolly); expected 1 "),
        ((1, 0, 0, None), "returned a score that is no number (got None for prediction 4); expected a number "),
    ],
)
def test_anything_but_a_preference_for_each_prompt_is_refused_with_what_was_returned(entries, outcomes, problem):
    with pytest.raises(RunError) as refusal:
        compare(entries, judge=judge(outcomes=(outcomes,)))
    assert str(refusal.value).startswith(f"metric longer: {problem}")
    assert str(refusal.value).endswith("Correct the metric, or compare without --judge.")


def test_a_comparison_that_returns_no_score_set_is_refused_with_what_it_returned(entries, monkeypatch):
    monkeypatch.setattr(Longer, "prefer", lambda self, first, second: [0.5] * 4)
    with pytest.raises(RunError, match=r"prefer\(\) returned something else \(got list\); expected a ScoreSet "):
        compare(entries, judge=judge())


def test_a_comparison_that_fails_is_named_with_its_source_line(entries, monkeypatch):
    monkeypatch.setattr(Longer, "prefer", lambda self, first, second: 1 / 0)
    with pytest.raises(RunError, match=r"^metric longer: prefer\(\) failed \(ZeroDivisionError: .*, in test_win_rates"):
        compare(entries, judge=judge())


def test_a_usage_that_is_no_number_is_refused(entries, monkeypatch):
    monkeypatch.setattr(Longer, "usage", lambda self: {"requests": "many"})
    with pytest.raises(RunError, match=r"^metric longer: usage\(\) returned something else .* compare without --judge"):
        compare(entries, judge=judge())


class Plain(Longer):
    """A metric that lacks something."""

    NAME = "lacking"

    def require(self):
        return "Set MY_KEY in the environment."


@pytest.fixture
def registry():
    """The two metrics above, and one that compares nothing."""
    from mta_plugins.metrics.rouge_l import RougeL

    registry = Registry()
    registry.families["metrics"] = {plugin.NAME: [Registered(plugin, "a test")] for plugin in (Longer, Plain, RougeL)}
    return registry


def written(tmp_path, text):
    path = tmp_path / "judge.json"
    path.write_text(text if isinstance(text, str) else json.dumps(text))
    return path


def test_a_file_names_the_metric(tmp_path, registry):
    metric = read_judge(written(tmp_path, {"name": "longer", "params": {}}), registry)
    assert (metric.NAME, type(metric)) == ("longer", Longer)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ({"name": "longer", "parms": {}}, "judge.json: parms"),
        ({"params": {}}, "judge.json: name"),
        ({"name": "longer", "params": {"model": "x"}}, "judge.json: params.model"),
        ({"name": "longr"}, "Did you mean 'longer'"),
        ({"name": "rouge_l"}, "is not a pairwise metric"),
        ({"name": "lacking"}, "Set MY_KEY in the environment."),
    ],
)
def test_a_faulty_file_is_reported(tmp_path, registry, text, message):
    with pytest.raises(InputError, match=message):
        read_judge(written(tmp_path, text), registry)


def test_a_judge_file_that_does_not_exist_is_not_taken_for_a_spec(tmp_path, registry):
    with pytest.raises(InputError) as refusal:
        read_judge(tmp_path / "no.json", registry)
    problem = f"{tmp_path / 'no.json'}: does not exist; expected a JSON file that names a metric. Check the path. "
    assert str(refusal.value) == f'{problem}Write {{"name": ..., "params": {{...}}}} to it.'


def test_answers_are_kept_beside_the_runs_wherever_the_command_is_given(entries, monkeypatch):
    chosen = judge()
    monkeypatch.chdir(entries[0])
    compare([Path(), entries[1]], judge=chosen)
    assert chosen.seen[0][0].cache_dir == entries[0].parent / "metric-cache" / "longer"
