"""What a sweep says while its runs start and end."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from mta_framework.errors import InputError
from mta_framework.evaluation.report import read_report
from mta_framework.evaluation.score_tables import cell_of, figure
from mta_framework.evaluation.training_log import validation_points
from mta_framework.runs.folder import RunFolder
from mta_framework.sweeps.job import Job, Outcome


class SweepProgress:
    """Counts the runs of a sweep and reports each that starts, ends or cannot start.

    Args:
        total: Number of runs.
        tell: Callback that gets every line.
    """

    def __init__(self, total: int, tell: Callable[[str], None]) -> None:
        self.failed: list[str] = []
        self._total = total
        self._tell = tell
        self._ended = 0

    def started(self, job: Job) -> None:
        """Report that a run has started."""
        self._tell(f"started {job.name}")

    def ended(self, outcome: Outcome) -> None:
        """Report that a run has ended, successfully or not."""
        job = outcome.job
        if outcome.finished:
            self._count(f"finished {job.name} in {duration(outcome.seconds)}{_score(job.folder)}")
        else:
            self._fail(job, f"{outcome.failure} (see {job.log})")

    def is_lost(self, job: Job, lost: Collection[Path]) -> bool:
        """Whether a run cannot start, since the one that its teacher comes from has failed; if so, reports it."""
        teacher = job.run.teacher
        if teacher is None or teacher.spec.folder not in lost:
            return False
        self._fail(job, f"there is no teacher {teacher.spec.name}")
        return True

    def _fail(self, job: Job, why: str) -> None:
        self.failed.append(job.name)
        self._count(f"failed {job.name}: {why}")

    def _count(self, line: str) -> None:
        self._ended += 1
        self._tell(f"[{self._ended}/{self._total}] {line}")


def duration(seconds: float) -> str:
    """``45 s``, ``3 min 20 s`` or ``2 h 5 min``."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes else f"{rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def _score(folder: RunFolder) -> str:
    """The student's score by the first metric, on its only set or on average over all; else its validation loss."""
    try:
        report = read_report(folder.path)
    except InputError:
        return ""
    evaluation = report.evaluation
    scores = [score for score in evaluation.scores if score.model == "student"] if evaluation else []
    if not scores:
        _, losses = validation_points(report.log, "loss")
        return f": validation loss {figure(losses[-1])}" if losses else ""
    score = next((average for average in scores if average.set is None), scores[0])
    return f": {score.metric} {cell_of(score).text}"
