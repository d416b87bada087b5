"""The files of a report and of a comparison, each whole or not at all."""

from __future__ import annotations

import re
from pathlib import Path

from mta_framework.comparison import renderings
from mta_framework.comparison.results import Comparison
from mta_framework.errors import writing_to
from mta_framework.evaluation.report import REPORT_FILE, Report, report_json
from mta_framework.storage import add_to_manifest, write_atomically

# Matplotlib and Jinja are slow to import: a command that only trains does not wait for them.

COMPARISON_FILE = re.compile(r"(comparison|runs|wins|outcomes|curves(-.*)?)\.(md|csv|tex|json|html|svg)")
"""Names of the files that ``write_comparison`` writes."""


def write_report(folder: Path, report: Report) -> None:
    """Write ``report.html``, ``report.md``, the model card of an exported student and, last, ``report.json``.

    A folder with a ``report.json`` therefore has a whole report.

    Args:
        folder: Folder of the run.
        report: The report.
    """
    from mta_framework.reporting.card import CARD, card
    from mta_framework.reporting.markdown_report import report_markdown
    from mta_framework.reporting.run_page import run_page

    if report.steps and (folder / report.student_folder).is_dir():
        write_atomically(folder / report.student_folder / CARD, card(report))
    write_atomically(folder / "report.html", run_page(report))
    write_atomically(folder / "report.md", report_markdown(report))
    write_atomically(folder / REPORT_FILE, report_json(report))
    add_to_manifest(folder, REPORT_FILE)


def write_comparison(folder: Path, comparison: Comparison) -> list[Path]:
    """Write ``comparison.md``, ``.csv``, ``.tex``, ``.json`` and ``.html``, and what they are made of.

    Further files are ``runs.csv``, a line for each run; ``wins.csv``, a line for each prompt; ``outcomes.csv`` and
    ``curves.csv``, the validation outcomes and learning curves; and images of these curves,
    ``curves-QUANTITY-VIEW.svg``. Each file appears whole; images of an earlier comparison in the folder are removed.

    Args:
        folder: Folder to write to.
        comparison: The comparison.

    Returns:
        Paths of the files.

    Raises:
        RunError: The folder cannot be written to.
    """
    from mta_framework.reporting.comparison_page import comparison_page
    from mta_framework.reporting.curve_figures import curve_files
    from mta_framework.reporting.markdown_report import comparison_markdown

    contents: dict[str, str | bytes] = {
        "comparison.md": comparison_markdown(comparison),
        "comparison.csv": renderings.scores_csv(comparison),
        "runs.csv": renderings.runs_csv(comparison),
        "outcomes.csv": renderings.outcomes_csv(comparison),
        "curves.csv": renderings.curves_csv(comparison),
        "comparison.tex": renderings.latex(comparison),
        "comparison.json": renderings.comparison_json(comparison),
        "wins.csv": renderings.wins_csv(comparison),
        "comparison.html": comparison_page(comparison),
        **dict(curve_files(comparison)),
    }
    with writing_to(folder, "make room, or name another folder"):
        for name, content in contents.items():
            write_atomically(folder / name, content)
        for file in folder.glob("curves-*.svg"):  # of an earlier comparison
            if file.name not in contents:
                file.unlink()
    return [folder / name for name in contents]
