"""The files of a report, each whole or not at all."""

from __future__ import annotations

from pathlib import Path

from mta_framework.evaluation.report import REPORT_FILE, Report, report_json
from mta_framework.files import replace


def write_report(folder: Path, report: Report) -> None:
    """Write ``report.md``, ``loss.png`` if anything was logged, and, last of all, ``report.json``."""
    from mta_framework.reporting.curves import loss_curves  # matplotlib is slow to import
    from mta_framework.reporting.markdown import markdown

    image = loss_curves(report.log)
    if image is None:
        (folder / "loss.png").unlink(missing_ok=True)
    else:
        replace(folder / "loss.png", image)
    replace(folder / "report.md", markdown(report, curves="loss.png" if image else None))
    replace(folder / REPORT_FILE, report_json(report))
