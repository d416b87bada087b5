"""The comparisons that the results quote follow from the outcomes of the runs beside them."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from pathlib import Path

import pytest
from blocks import ROOT
from scipy.stats import ttest_rel

KEPT = sorted(path.parent for path in (ROOT / "docs" / "evidence").glob("*/curves.csv"))


def last_values(folder: Path) -> dict[str, dict[str, dict[int, float]]]:
    """Outcome -> method -> training seed -> the value after the last step."""
    values: dict[str, dict[str, dict[int, tuple[int, float]]]] = defaultdict(lambda: defaultdict(dict))
    with (folder / "curves.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            of_seed = values[row["quantity"]][row["row"]]
            entry = int(row["step"]), float(row["value"])
            of_seed[int(row["seed"])] = max(entry, of_seed.get(int(row["seed"]), entry))
    return {
        outcome: {method: {seed: value for seed, (_, value) in seeds.items()} for method, seeds in rows.items()}
        for outcome, rows in values.items()
    }


def table(folder: Path, title: str) -> dict[str, list[str]]:
    """Method -> cells of its row under a heading of ``comparison.md``."""
    text = (folder / "comparison.md").read_text(encoding="utf-8")
    section = text.partition(f"## {title} (")[2].partition("\n#")[0].replace("−", "-")
    section = section.replace("&#91;", "[").replace("&#93;", "]").replace("&#60;", "<")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    return {method: cells for method, *cells in rows[2:]}


def holm(probabilities: list[float]) -> list[float]:
    """Holm's correction, step by step."""
    order = sorted(range(len(probabilities)), key=probabilities.__getitem__)
    corrected, highest = [0.0] * len(order), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * probabilities[index]))
        corrected[index] = highest
    return corrected


@pytest.mark.parametrize("folder", KEPT, ids=lambda folder: folder.name)
def test_means_and_differences_are_those_of_the_runs(folder):
    outcomes = last_values(folder)
    assert outcomes
    for title, methods in outcomes.items():
        rows, baseline = table(folder, title), next(iter(methods.values()))
        assert list(rows) == list(methods)
        for method, values in methods.items():
            cells = rows[method]
            mean = sum(values.values()) / len(values)
            assert float(cells[0].split(" ± ")[0]) == pytest.approx(mean, abs=6e-5)
            assert int(cells[1]) == len(values)
            if method != next(iter(methods)):
                gaps = [value - baseline[seed] for seed, value in values.items() if seed in baseline]
                if gaps:
                    assert float(cells[2].rstrip("†")) == pytest.approx(sum(gaps) / len(gaps), abs=6e-5)


@pytest.mark.parametrize("folder", KEPT, ids=lambda folder: folder.name)
def test_probabilities_and_daggers_are_those_of_paired_t_tests_after_holm(folder):
    for title, methods in last_values(folder).items():
        (_, baseline), *others = methods.items()
        if len(baseline) < 2:
            continue
        probabilities = [
            ttest_rel([values[seed] for seed in baseline], [*baseline.values()]).pvalue for _, values in others
        ]
        rows = table(folder, title)
        for (method, _), p, corrected in zip(others, probabilities, holm(probabilities), strict=True):
            _, _, difference, _, *shown = rows[method]
            assert [_number(cell) for cell in shown[:2]] == pytest.approx([p, corrected], abs=6e-4), method
            assert difference.endswith("†") == (corrected < 0.05)


def _number(cell: str) -> float:
    return 0.0005 if cell.startswith("<") else float(cell)


def test_the_results_quote_no_other_tables():
    quoted = re.findall(r"<!-- generated: table (\S+) ", (ROOT / "docs" / "results.md").read_text(encoding="utf-8"))
    assert set(quoted) <= {folder.name for folder in KEPT}
