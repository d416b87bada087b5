"""The tables of the results follow from the runs that are kept, by another library and by hand."""

from __future__ import annotations

import csv
import math
import re
from statistics import fmean, stdev

import pytest
from blocks import ROOT
from scipy.stats import nct, t, ttest_rel

RESULTS = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
QUOTED = re.findall(r"<!-- generated: runs ([^\s/]+)/?(\d*) (.+?) -->\n(.*?)<!-- end -->", RESULTS, re.DOTALL)


def runs(sweep: str, column: str) -> tuple[dict[str, dict[int, float]], dict[str, str]]:
    """Method -> training seed -> outcome, of the methods that have it; method -> the one that it is compared with."""
    values: dict[str, dict[int, float]] = {}
    baselines = {}
    with (ROOT / "docs" / "evidence" / sweep / "runs.csv").open(encoding="utf-8", newline="") as file:
        for run in csv.DictReader(file):
            if run[column] != "":
                values.setdefault(run["row"], {})[int(run["seed"])] = float(run[column])
                baselines[run["row"]] = run["compared_with"]
    return values, {method: baseline for method, baseline in baselines.items() if baseline}


def cells(table: str) -> dict[str, list[str]]:
    """Method -> cells of its row."""
    for written, meant in (("−", "-"), ("&#91;", "["), ("&#93;", "]"), ("&#60;", "<")):
        table = table.replace(written, meant)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"]
    return {method: others for method, *others in rows[2:]}


def holm(probabilities: list[float]) -> list[float]:
    """Holm's correction, step by step."""
    order = sorted(range(len(probabilities)), key=probabilities.__getitem__)
    corrected, highest = [0.0] * len(order), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * probabilities[index]))
        corrected[index] = highest
    return corrected


def power(effect: float, error: float, freedom: int) -> float:
    """Power of a two-sided t-test at 5 %."""
    limit = t.ppf(0.975, freedom)
    return float(nct.sf(limit, freedom, effect / error) + nct.cdf(-limit, freedom, effect / error))


def probability(cell: str) -> float:
    return 0.0005 if cell.startswith("<") else float(cell)


def test_the_results_quote_every_sweep_whose_runs_are_kept():
    assert {sweep for sweep, *_ in QUOTED} == {path.parent.name for path in ROOT.glob("docs/evidence/*/runs.csv")}


@pytest.mark.parametrize(("sweep", "planned", "column", "table"), QUOTED, ids=[" ".join(entry[:3]) for entry in QUOTED])
def test_a_table_has_means_differences_and_tests_of_its_runs(sweep, planned, column, table):
    (values, baselines), rows = runs(sweep, column), cells(table)
    assert list(rows) == list(values)
    digit = 10.0 ** -len(next(iter(rows.values()))[0].split(" ")[0].partition(".")[2])
    close = 0.6 * digit
    for method, by_seed in values.items():
        mean, _, deviation = rows[method][0].partition(" ± ")
        assert float(mean) == pytest.approx(fmean(by_seed.values()), abs=close)
        assert not deviation or float(deviation) == pytest.approx(stdev(by_seed.values()), abs=close)
        assert int(rows[method][1]) == len(by_seed)
        assert baselines.get(method) or not any(rows[method][2:])
    pairs = {
        method: [(values[baseline][seed], value) for seed, value in values[method].items()]
        for method, baseline in baselines.items()
    }
    gaps = {method: [value - base for base, value in both] for method, both in pairs.items()}
    for method, gap in gaps.items():
        assert float(rows[method][2].rstrip("†")) == pytest.approx(fmean(gap), abs=close)
    if len(values[next(iter(values))]) == 1:
        return
    tests = [ttest_rel([value for _, value in both], [base for base, _ in both]) for both in pairs.values()]
    to_come = [1.0] * (int(planned) - len(tests)) if planned else []
    corrected = holm([*(test.pvalue for test in tests), *to_come])[: len(tests)]
    for (method, gap), test, p_holm in zip(gaps.items(), tests, corrected, strict=True):
        _, _, difference, interval, *probabilities, effect, kind = rows[method]
        ends = [float(end) for end in interval.strip("[]").split(", ")]
        assert ends == pytest.approx([*test.confidence_interval()], abs=close)
        assert [probability(cell) for cell in probabilities] == pytest.approx([test.pvalue, p_holm], abs=6e-4)
        assert difference.endswith("†") == (p_holm < 0.05)
        error = stdev(gap) / math.sqrt(len(gap))
        assert power(float(effect), error, len(gap) - 1) == pytest.approx(0.8, abs=0.01)
        assert kind == f"{len(gap)} pairs"
