"""The numbers of a comparison, by hand."""

from __future__ import annotations

import math
import statistics

import pytest
from scipy.stats import ttest_ind, ttest_rel

from mta_framework.comparison.compare import compare
from mta_framework.comparison.comparison_tables import contrast_table
from mta_framework.errors import InputError
from mta_framework.evaluation.statistics import holm

from .conftest import MTA, PERPLEXITY, ROUGE

BASE = {"dolly": [[10.0, 20.0, 30.0, 40.0], [12.0, 22.0, 32.0, 42.0]], "vicuna": [[5.0, 7.0], [5.0, 9.0]]}
OTHER = {"dolly": [[15.0, 19.0, 31.0, 50.0], [17.0, 21.0, 33.0, 52.0]], "vicuna": [[5.0, 9.0], [5.0, 11.0]]}
BOTH = (ROUGE, PERPLEXITY)


@pytest.fixture
def compared(make_run):
    """KL against KL + MTA, one run each."""

    def make(metrics=(ROUGE,), **options):
        folders = [make_run(BASE, metrics), make_run(OTHER, metrics, name="mta", alignment=MTA)]
        return compare(folders, **options)

    return make


def test_a_single_run_has_the_deviation_over_its_sampling_seeds(compared):
    cell = compared().rows[0].cells["rouge_l", "dolly"]
    assert (cell.mean, cell.over, cell.count) == (pytest.approx(26.0), "sampling seeds", 2)
    assert cell.deviation == pytest.approx(statistics.stdev([25.0, 27.0]))
    assert cell.interval[0] < 26 < cell.interval[1]


def test_the_average_counts_sets_alike_and_deviates_over_the_averages_of_seeds(compared):
    cell = compared().rows[0].cells["rouge_l", None]
    assert cell.mean == pytest.approx((26.0 + 6.5) / 2)
    assert cell.deviation == pytest.approx(statistics.stdev([(25.0 + 6.0) / 2, (27.0 + 7.0) / 2]))


def test_several_runs_have_the_deviation_over_their_training_seeds(make_run):
    scores = [{"dolly": [[1.0, 2.0], [3.0, 4.0]]}, {"dolly": [[5.0, 6.0], [7.0, 8.0]]}]
    runs = [make_run(of_run, name=f"run{seed}", seed=seed) for seed, of_run in enumerate(scores)]
    comparison = compare(runs)
    cell = comparison.rows[0].cells["rouge_l", "dolly"]
    assert (cell.mean, cell.over, cell.count) == (pytest.approx(4.5), "training seeds", 2)
    assert cell.deviation == pytest.approx(statistics.stdev([2.5, 6.5]))
    assert [(run.name, run.row, run.seed) for run in comparison.runs] == [("run0", "KL", 0), ("run1", "KL", 1)]


def test_one_set_has_no_average(make_run):
    comparison = compare([make_run({"dolly": [[1.0, 2.0], [3.0, 4.0]]})])
    assert (comparison.columns, list(comparison.rows[0].cells)) == (("dolly",), [("rouge_l", "dolly")])


def test_differences_and_outcomes_are_those_of_prompts_averaged_over_seeds(compared):
    contrasts = {entry.set: entry for entry in compared().contrasts}
    # Dolly by prompt: 16 - 11, 20 - 21, 32 - 31, 51 - 41; vicuna: 5 - 5, 10 - 8.
    assert contrasts["dolly"].difference == pytest.approx((5 - 1 + 1 + 10) / 4)
    assert (contrasts["dolly"].wins, contrasts["dolly"].ties, contrasts["dolly"].losses) == (3, 0, 1)
    assert contrasts["vicuna"].difference == pytest.approx(1.0)
    assert (contrasts["vicuna"].wins, contrasts["vicuna"].ties, contrasts["vicuna"].losses) == (1, 1, 0)
    assert contrasts[None].difference == pytest.approx((3.75 + 1.0) / 2)
    assert (contrasts[None].wins, contrasts[None].ties, contrasts[None].losses) == (4, 1, 1)
    assert [(entry.baseline, entry.row) for entry in contrasts.values()] == [("KL", "KL + MTA")] * 3


def test_every_prompt_is_kept_with_both_scores(compared):
    pairs = [(pair.set, pair.position, pair.baseline_score, pair.row_score, pair.outcome) for pair in compared().pairs]
    assert pairs == [
        ("dolly", 1, 11.0, 16.0, 1),
        ("dolly", 2, 21.0, 20.0, -1),
        ("dolly", 3, 31.0, 32.0, 1),
        ("dolly", 4, 41.0, 51.0, 1),
        ("vicuna", 1, 5.0, 5.0, 0),
        ("vicuna", 2, 8.0, 10.0, 1),
    ]


def test_where_lower_is_better_a_lower_score_wins(compared):
    comparison = compared(metrics=BOTH)
    outcomes = {(pair.metric, pair.set, pair.position): pair.outcome for pair in comparison.pairs}
    assert outcomes["rouge_l", "dolly", 4] == 1
    assert outcomes["perplexity", "dolly", 4] == -1
    contrast = comparison.contrast(("perplexity", "dolly"), "KL + MTA")
    assert (contrast.wins, contrast.losses) == (1, 3)


def test_a_geometric_mean_by_weight_is_taken_over_prompts_and_seeds(compared):
    scores = list(zip(*BASE["dolly"], strict=True))
    # The number of a prompt is its weight.
    logs = sum(weight * math.log(score) for weight, pair in enumerate(scores, start=1) for score in pair)
    assert compared(metrics=BOTH).rows[0].cells["perplexity", "dolly"].mean == pytest.approx(math.exp(logs / 20))


def test_probabilities_are_corrected_over_all_of_a_metric_and_no_further(compared):
    comparison = compared(metrics=BOTH)
    for metric in ("rouge_l", "perplexity"):
        entries = [entry for entry in comparison.contrasts if entry.metric == metric]
        assert [entry.p_holm for entry in entries] == holm([entry.p for entry in entries])
        assert len(entries) == 3


@pytest.fixture
def seeded(make_run):
    """KL against KL + MTA on 12 prompts, each with runs that lie so far above the prompts' own levels."""

    def make(base, other):
        levels = [float(7 * index % 12) for index in range(12)]
        entries = []
        for alignment, gains in ((None, base), (MTA, other)):
            for seed, gain in enumerate(gains):
                scores = {"dolly": [[level + gain for level in levels]]}
                run = make_run(scores, name=f"run{len(entries)}", alignment=alignment, seed=seed, seeds=(10,))
                entries.append(run)
        return compare(entries)

    return make


def test_a_difference_that_prompts_show_and_training_seeds_do_not_is_not_significant(seeded):
    (contrast,) = seeded([20.0, 20.2, 20.1], [20.0, 27.0, 29.0]).contrasts
    assert contrast.p_holm < 0.01
    assert contrast.seeds.p == pytest.approx(ttest_rel([20.0, 20.2, 20.1], [20.0, 27.0, 29.0]).pvalue)
    assert contrast.seeds.p > 0.1
    assert not contrast.significant


def test_a_difference_that_outlasts_training_seeds_is_significant_and_shown_with_their_probability(seeded):
    comparison = seeded([20.0, 20.2, 20.1], [27.0, 27.1, 27.3])
    assert comparison.contrasts[0].significant
    table = contrast_table(comparison, ROUGE)
    assert table.header[-2:] == ["p (seeds)", "smallest effect"]
    assert (table.rows[1][-2], table.rows[1][-1]) == ("< 0.001", f"{comparison.contrasts[0].seeds.smallest_effect:.2f}")
    assert any(note.startswith("p (seeds): the t-test paired by training seed, over") for note in comparison.notes)
    assert any(note.startswith("Smallest effect:") for note in comparison.notes)


def test_rows_of_other_training_seeds_are_compared_by_welchs_test(make_run):
    scores = [[20.0, 20.2, 20.1], [27.0, 27.1, 27.3]]
    runs = [
        make_run({"dolly": [[gain - 1, gain + 1]] * 2}, name=f"run{seed}", alignment=alignment, seed=seed)
        for first, alignment, gains in zip((0, 10), (None, MTA), scores, strict=True)
        for seed, gain in enumerate(gains, start=first)
    ]
    comparison = compare(runs)
    (contrast,) = comparison.contrasts
    assert contrast.seeds.p == pytest.approx(ttest_ind(*scores, equal_var=False).pvalue)
    assert any(note.startswith("p (seeds): Welch's t-test, over the means") for note in comparison.notes)


def test_a_row_that_was_trained_once_has_no_probability_over_training_seeds(seeded):
    comparison = seeded([20.0, 20.2], [27.0])
    assert (comparison.contrasts[0].seeds, comparison.contrasts[0].significant) == (None, True)
    assert "p (seeds)" not in contrast_table(comparison, ROUGE).header
    assert not any("p (seeds)" in note for note in comparison.notes)


def test_one_metric_can_be_compared_alone(make_run):
    folder = make_run(BASE, BOTH)
    comparison = compare([folder], metrics=["perplexity"])
    assert {metric for metric, _ in comparison.rows[0].cells} == {"perplexity"}


def test_texts_side_by_side_are_of_the_clearest_wins_and_losses(compared):
    examples = [(example.pair.set, example.pair.position, example.pair.outcome) for example in compared().examples]
    assert examples == [("dolly", 4, 1), ("dolly", 1, 1), ("vicuna", 2, 1), ("dolly", 2, -1)]
    example = compared().examples[0]
    assert example.prompt == "dolly question 4"
    assert example.reference == "dolly reference 4"
    assert example.row_text == "student answers dolly 4 under 10"


def test_rows_that_were_trained_once_are_named(compared):
    said = " ".join(compared().notes)
    assert "Trained once: KL, KL + MTA." in said
    assert "standard deviation over 2 sampling seeds" in said
    assert "over the 3 comparisons" in said


def test_each_run_of_a_row_weighs_the_same_whatever_its_number_of_sampling_seeds(make_run):
    folders = [
        make_run({"dolly": [[10.0, 10.0]] * 5}, seeds=(1, 2, 3, 4, 5)),
        make_run({"dolly": [[50.0, 50.0]]}, name="b", seed=2, seeds=(1,)),
    ]
    (row,) = compare(folders, despite_differences=True).rows
    assert row.cells["rouge_l", "dolly"].mean == pytest.approx(30.0)


def test_where_no_comparison_can_be_significant_that_is_said(make_run, monkeypatch):
    """Of 99 random swaps the smallest p is 2 / 100, which Holm's factor of 3 brings to 0.06."""
    monkeypatch.setattr("mta_framework.comparison.notes.RESAMPLES", 99)
    alike = {"dolly": [[1.0, 2.0]]}

    def said(rows):
        folders = [make_run(alike, name=f"run{row}", seeds=(10,), training__epochs=row + 1) for row in range(rows)]
        return "So many comparisons" in " ".join(compare(folders).notes)

    assert not said(3)
    assert said(4)


def test_evaluated_models_are_not_said_to_be_trained_once(make_run):
    models = [make_run({"dolly": [[1.0, 2.0], [1.0, 2.0]]}, name=name, training=None) for name in ("a", "b")]
    notes = " ".join(compare(models).notes)
    assert "Evaluated without their training: a, b;" in notes
    assert "Trained once" not in notes


def test_a_single_sampling_seed_is_said_to_tell_nothing(make_run):
    comparison = compare([make_run({"dolly": [[1.0, 2.0]]}, seeds=(10,))])
    assert comparison.rows[0].cells["rouge_l", "dolly"].deviation is None
    assert any("nothing is known of the spread" in note for note in comparison.notes)


def test_differences_that_were_accepted_stand_in_the_notes(make_run):
    folders = [make_run(BASE), make_run({"dolly": OTHER["dolly"]}, name="b", alignment=MTA, evaluation__top_p=0.5)]
    with pytest.raises(InputError):
        compare(folders)
    comparison = compare(folders, despite_differences=True)
    assert comparison.sets == ("dolly",)
    accepted = [note for note in comparison.notes if note.startswith("Accepted")]
    assert accepted[0] == "Accepted: evaluation.top_p differs (1.0 in kl; 0.5 in b)."
    assert accepted[1].startswith("Accepted: evaluation.sets.vicuna differs")
    assert accepted[1].endswith("It is left out.")


def test_what_differs_beside_the_alignment_stands_in_the_notes(make_run):
    folders = [make_run(BASE), make_run(OTHER, name="b", alignment=MTA, training__epochs=9)]
    comparison = compare(folders)
    assert "KL + MTA differs from KL in more than alignment: training.epochs." in comparison.notes


def test_a_metric_that_weighs_prompts_differently_is_reported(make_run):
    folders = [make_run({"plain": BASE}, BOTH, name="plain", training=None)]
    folders.append(make_run({"wordy": BASE}, BOTH, name="wordy", training=None))
    notes = [note for note in compare(folders).notes if "tokenizers" in note]
    assert len(notes) == 1
    assert notes[0].startswith("perplexity gives prompts other weights in wordy and plain")


def test_a_metric_that_weighs_prompts_alike_needs_no_word(compared):
    assert not any("tokenizers" in note for note in compared(metrics=BOTH).notes)


def test_labels_and_baselines_of_a_caller_decide(make_run):
    folders = [make_run(BASE), make_run(OTHER, name="b", training__epochs=9), make_run(BASE, name="c", seed=5)]
    labels = ("plain", "long", "plain")
    comparison = compare(folders, {"long": "plain"}, labels=labels)
    assert [(row.label, row.baseline, row.runs) for row in comparison.rows] == [
        ("plain", None, ("kl", "c")),
        ("long", "plain", ("b",)),
    ]


def test_faults_of_all_runs_are_reported_at_once(make_run, tmp_path):
    folders = [make_run(BASE), make_run(OTHER, name="b", alignment=MTA)]
    for folder in folders:
        (folder / "predictions" / "student" / "dolly-seed20.jsonl").unlink()
    with pytest.raises(InputError) as caught:
        compare(folders)
    assert len(caught.value.faults) == 2


def test_reports_that_cannot_be_read_are_reported_at_once(tmp_path):
    with pytest.raises(InputError) as caught:
        compare([tmp_path / "a", tmp_path / "b"])
    assert len(caught.value.faults) == 2


def test_teachers_stand_above_the_methods_and_are_compared_to_nothing(make_run):
    folder = make_run({"student": BASE, "teacher": OTHER})
    comparison = compare([folder])
    assert [(row.label, row.reference, row.baseline) for row in comparison.rows] == [
        ("teacher", True, None),
        ("KL", False, None),
    ]
    assert comparison.contrasts == ()
    assert "No row is compared with another." in comparison.notes


def test_a_difference_that_paired_seeds_contradict_is_not_marked_and_its_seeds_are_named(make_run):
    means = {"base": {1: 0.0, 2: 52.0, 3: 53.0}, "new": {2: 51.0, 3: 51.9}}
    folders = [
        make_run(
            {"dolly": [[mean + index % 3 for index in range(40)]] * 2},
            name=f"{row}{seed}",
            seed=seed,
            alignment=alignment,
        )
        for (row, by_seed), alignment in zip(means.items(), (None, MTA), strict=True)
        for seed, mean in by_seed.items()
    ]
    comparison = compare(folders)
    (contrast,) = comparison.contrasts
    assert contrast.difference == pytest.approx((51.0 + 51.9) / 2 - (52.0 + 53.0) / 3)
    assert contrast.p_holm < 0.05
    assert contrast.seeds.p < 0.05
    assert contrast.seeds.value == pytest.approx(-1.05)
    assert not contrast.significant
    assert any(note.startswith("Not both of KL + MTA and KL were trained from seed 1: ") for note in comparison.notes)
