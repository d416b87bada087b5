"""The comparison of a sweep's finished cells, printed and written beside them."""

from __future__ import annotations

from collections.abc import Iterator

from mta_framework.comparison.compare import Entry, compare
from mta_framework.comparison.comparison_files import write
from mta_framework.comparison.renderings import terminal_lines
from mta_framework.errors import InputError, RunError
from mta_framework.reporting.report_files import write_comparison
from mta_framework.sweeps.bound_sweep import BoundSweep
from mta_framework.sweeps.grid import rows_of


def compare_cells(bound: BoundSweep) -> Iterator[str]:
    """Compare the finished cells, those of one row as its training seeds, and write the comparison.

    Yields:
        Lines for the terminal; none where nothing was evaluated.

    Raises:
        RunError: Some predictions were changed since, or the comparison cannot be written.
    """
    cells = [cell for cell in bound.cells if cell.state == "finished" and cell.run.spec.evaluation is not None]
    if not cells:
        return
    rows = {cell.cell.row for cell in cells}
    baselines = {row: base for row, base in rows_of(bound.sweep).items() if base and {row, base} <= rows}
    entries = [Entry(cell.folder.path, cell.cell.row) for cell in cells]
    try:
        # What the cells were evaluated on differs where an axis says so, and nowhere else.
        comparison = compare(entries, baselines if bound.sweep.baseline else None, despite_differences=True)
    except InputError as error:
        raise RunError(f"the finished cells cannot be compared: {error}") from error
    yield from terminal_lines(comparison)
    yield ""
    for path in [*write(bound.sweep.folder, comparison), write_comparison(bound.sweep.folder, comparison)]:
        yield f"Written: {path}"
