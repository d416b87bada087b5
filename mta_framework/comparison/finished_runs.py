"""Finished runs on disk: their reports, and the predictions that the reports were made from."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mta_framework.errors import Fault, FaultList, InputError, apply_to_all, counted
from mta_framework.evaluation.aggregation import SetResult, prompt_scores, rows_digest
from mta_framework.evaluation.predictions import Prediction, read_rows
from mta_framework.evaluation.report import (
    REPORT_FILE,
    Report,
    ReportedEvaluation,
    ReportedMetric,
    ReportedSet,
    read_report,
    require_listed,
)
from mta_framework.evaluation.statistics import PromptScores
from mta_framework.evaluation.training_log import validated_names
from mta_framework.spec.document import KeyPath
from mta_framework.spec.evaluation_spec import EvaluationSpec
from mta_framework.spec.input_fields import map_locations
from mta_framework.spec.run import RunSpec

_REMEDY = "Resume the run, or evaluate anew, and leave the files as they are."
_SECTIONS = ("teacher", "teachers", "student", "data", "base_loss", "alignment", "training", "evaluation")


@dataclass(frozen=True)
class Run:
    """A finished run or evaluation.

    Args:
        folder: Folder of the run.
        report: Report of the run.
        evaluation: Evaluation in the report; without sets and metrics where nothing was scored.
    """

    folder: Path
    report: Report
    evaluation: ReportedEvaluation

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.report.name

    @functools.cached_property
    def spec(self) -> dict[str, Any]:
        """The spec with the content of data sets and models in place of their paths, as far as it is known."""
        inputs = self.report.inputs

        def content(key_path: KeyPath, kind: str, value: str) -> Any:
            if kind == "path":
                return inputs.get(".".join(map(str, key_path)), value)
            hub = ".".join(map(str, (*key_path[:-1], "hub")))
            return inputs.get(hub, value)

        kind = RunSpec if "student" in self.report.spec else EvaluationSpec
        document: dict[str, Any] = map_locations(kind, dict(self.report.spec), content)
        return document

    @property
    def seed(self) -> int | None:
        """Training seed; None where nothing was trained."""
        return self.report.spec.get("seed") if self.report.spec.get("training") else None

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the evaluated models; the first is the one that is compared: the student where none was."""
        names = dict.fromkeys(entry.model for entry in self.evaluation.sets) or {"student": None}
        return tuple(sorted(names, key=lambda model: model != "student"))

    def reported_sets(self, model: str) -> dict[str, ReportedSet]:
        """What a model was evaluated on, by set, in the order of the sets."""
        return {entry.set: entry for entry in self.evaluation.sets if entry.model == model}

    def rows(self, model: str, entry: str, seed: int) -> list[Prediction]:
        """Read the responses of a model to a set under one sampling seed.

        Raises:
            InputError: The responses are missing or incomplete, or are not those that the report was made from.
        """
        path = self.folder / "predictions" / model / f"{entry}-seed{seed}.jsonl"
        rows = read_rows(path)
        FaultList(self._faults(path, SetResult(model, entry, seed, 0, tuple(rows)))).raise_any()
        return rows

    def scores(self, model: str, entry: str, metrics: Sequence[ReportedMetric]) -> dict[str, PromptScores]:
        """Read the scores of a model on a set, by label of the metric.

        Raises:
            InputError: The faults that ``rows`` finds, of all seeds at once.
        """
        by_seed = apply_to_all(lambda seed: self.rows(model, entry, seed), self.evaluation.seeds)
        return {metric.label: prompt_scores(metric, by_seed) for metric in metrics}

    def _faults(self, path: Path, result: SetResult) -> Iterator[Fault]:
        expected, rows = self.reported_sets(result.model)[result.set], result.predictions
        if len(rows) != expected.prompts:
            problem = f"is not what the report was made from (got {counted(len(rows), 'row')})"
            yield Fault(str(path), problem, f"{counted(expected.prompts, 'row')}, one per prompt", _REMEDY)
            return
        if expected.digest and expected.digest != (digest := rows_digest(rows)):
            problem = f"is not what the report was made from (got questions and references of digest {digest[:12]})"
            yield Fault(str(path), problem, f"those of digest {expected.digest[:12]}", _REMEDY)
        for metric in self.evaluation.metrics:
            if not all(math.isfinite(row.scores.get(metric.label, math.nan)) for row in rows):
                problem = f"lacks scores (got rows without a number for {metric.label})"
                yield Fault(str(path), problem, "a score of every metric in each row", _REMEDY)
            elif not _close(result.mean(metric), self._reported(result, metric)):
                problem = f"was changed after the report (got mean {metric.label} of {result.mean(metric):.6g})"
                yield Fault(str(path), problem, f"{self._reported(result, metric):.6g}, as the report has it", _REMEDY)

    def _reported(self, result: SetResult, metric: ReportedMetric) -> float:
        key = (result.model, result.set, metric.label)
        score = next(score for score in self.evaluation.scores if (score.model, score.set, score.metric) == key)
        return score.per_seed[self.evaluation.seeds.index(result.seed)]


def read_run(folder: Path) -> Run:
    """Read a finished run that was evaluated or at least validated.

    Raises:
        InputError: The run is not finished, measured nothing, did not evaluate what it trained, or has a report that
            contradicts itself or that its manifest does not list.
    """
    report = read_report(folder)
    require_listed(folder)
    if malformed := _malformed(report.spec):
        problem = f"holds no spec of a run (got {malformed})"
        raise InputError([Fault(str(folder / REPORT_FILE), problem, "a report as the run wrote it", _REMEDY)])
    evaluation = _scored(report)
    if evaluation is None and not validated_names(report.log):
        problem, hint = "evaluated nothing", "Evaluate it: `mta evaluate RUN --data NAME=FILE`."
        raise InputError([Fault(str(folder / REPORT_FILE), problem, "a run with an evaluation or a validation", hint)])
    evaluation = evaluation or ReportedEvaluation((), (), (), ())
    run = Run(folder, report, evaluation)
    if report.spec.get("training") and run.models[0] != "student":
        problem, hint = f"did not evaluate its student (got {', '.join(run.models)})", "Add it to evaluation.models."
        raise InputError([Fault(str(folder / REPORT_FILE), problem, "scores of what was trained", hint)])
    scored = {(score.model, score.set, score.metric): len(score.per_seed) for score in evaluation.scores}
    keys = [(entry.model, entry.set, metric.label) for entry in evaluation.sets for metric in evaluation.metrics]
    if any(scored.get(key) != len(evaluation.seeds) for key in keys):
        problem = "contradicts itself: there are sets, metrics or seeds without scores"
        raise InputError([Fault(str(folder / REPORT_FILE), problem, "a report as the run wrote it", _REMEDY)])
    return run


def find_runs(paths: Sequence[Path]) -> list[Path]:
    """Find the folders of finished runs, each once.

    Where a folder holds runs that were evaluated, those that were not, such as runs of teachers, are passed over; else
    those that were validated are meant.

    Args:
        paths: Folders of runs, and folders that hold such.

    Raises:
        InputError: Every path without a finished run.
    """
    folders = itertools.chain.from_iterable(apply_to_all(_runs_in, paths))
    return list({folder.resolve(): folder for folder in folders}.values())


def _runs_in(path: Path) -> list[Path]:
    if (path / REPORT_FILE).is_file():
        return [path]
    finished = sorted(file.parent for file in path.glob(f"*/{REPORT_FILE}"))
    reports = {folder: read_report(folder) for folder in finished}
    measured = [folder for folder, report in reports.items() if report.evaluation is not None]
    measured = measured or [folder for folder, report in reports.items() if validated_names(report.log)]
    if not measured:
        problem = "is no finished run and holds none" if path.exists() else "does not exist"
        expected = f"a folder with {REPORT_FILE}, or a folder of such, with scores or validation outcomes"
        raise InputError([Fault(str(path), problem, expected, "Finish the run, or correct the path.")])
    return measured


def left_out(paths: Sequence[Path], folders: Sequence[Path]) -> Iterator[str]:
    """A sentence on the runs of each folder that are not compared: unfinished ones, and those that were not evaluated.

    Args:
        paths: What ``find_runs`` was given.
        folders: What it found there.
    """
    compared = {folder.resolve() for folder in folders}
    for path in paths:
        begun = sorted(file.parent for file in path.glob("*/spec.json") if file.parent.resolve() not in compared)
        finished = [folder for folder in begun if (folder / REPORT_FILE).is_file()]
        names = {
            "Not finished, so left out": [folder.name for folder in begun if folder not in finished],
            "Not evaluated, so left out": [folder.name for folder in finished],
        }
        yield from (f"{reason}: {', '.join(some)} (in {path})." for reason, some in names.items() if some)


def _scored(report: Report) -> ReportedEvaluation | None:
    """The evaluation of a report; None where nothing was scored."""
    evaluation = report.evaluation
    return evaluation if evaluation is not None and evaluation.metrics and evaluation.sets else None


def _malformed(spec: Mapping[str, Any]) -> str | None:
    """Something that cannot be in a spec, where somebody has edited it."""
    for name in _SECTIONS:
        if not isinstance(spec.get(name), dict | None):
            return f"{name} {spec[name]!r}"
    if "base_loss" in spec and not isinstance((spec["base_loss"] or {}).get("name"), str):
        return f"base_loss {spec['base_loss']!r}"
    return None if isinstance(spec.get("seed"), int | None) else f"seed {spec['seed']!r}"


def flat(value: Any, where: str = "") -> dict[str, Any]:
    """Flatten a spec to dotted field -> value; lists are values."""
    if not isinstance(value, dict) or not value:
        return {where: value}
    return {
        name: entry
        for key, inner in value.items()
        for name, entry in flat(inner, f"{where}.{key}" if where else key).items()
    }


def _close(mean: float, expected: float) -> bool:
    return math.isclose(mean, expected, rel_tol=1e-6, abs_tol=1e-9) or (math.isnan(mean) and math.isnan(expected))
