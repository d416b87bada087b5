"""Finished runs on disk: their reports, and the predictions that these were made from."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mta_framework.errors import Fault, InputError, collect_faults
from mta_framework.evaluation.aggregation import prompt_scores, rows_digest
from mta_framework.evaluation.predictions import read_rows
from mta_framework.evaluation.report import REPORT_FILE, EvaluationFacts, MetricFacts, Report, SetFacts, read_report
from mta_framework.evaluation.set_results import Prediction, SetResult
from mta_framework.evaluation.statistics import PromptScores

_REMEDY = "Resume the run, or evaluate anew, and leave the files as they are."
_SECTIONS = ("teacher", "student", "data", "base_loss", "alignment", "training", "evaluation")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """A finished run or evaluation.

    Args:
        folder: Where it lies.
        report: Its report.
        facts: The evaluation in it.
    """

    folder: Path
    report: Report
    facts: EvaluationFacts

    @property
    def name(self) -> str:
        """Of the run."""
        return self.report.name

    @property
    def seed(self) -> int | None:
        """That it was trained from; None where nothing was trained."""
        return self.report.spec.get("seed") if self.report.spec.get("training") else None

    @property
    def models(self) -> tuple[str, ...]:
        """What was evaluated, the model that is compared first."""
        found = tuple(dict.fromkeys(entry.model for entry in self.facts.sets))
        return tuple(sorted(found, key=lambda model: model != "student"))

    def set_facts(self, model: str) -> dict[str, SetFacts]:
        """By name of the set, in their order."""
        return {entry.set: entry for entry in self.facts.sets if entry.model == model}

    def rows(self, model: str, entry: str, seed: int) -> list[Prediction]:
        """The responses of a model to a set, which are those that the report was made from.

        Raises:
            InputError: They are missing, incomplete or were changed.
        """
        path = self.folder / "predictions" / model / f"{entry}-seed{seed}.jsonl"
        rows = read_rows(path)
        faults = list(self._faults(path, SetResult(model, entry, seed, 0, tuple(rows))))
        if faults:
            raise InputError(faults)
        return rows

    def scores(self, model: str, entry: str, metrics: Sequence[MetricFacts]) -> dict[str, PromptScores]:
        """Label of each metric -> scores under all seeds.

        Raises:
            InputError: As ``rows``, of all seeds at once.
        """
        faults: list[Fault] = []
        by_seed: list[list[Prediction]] = []
        for seed in self.facts.seeds:
            with collect_faults(faults):
                by_seed.append(self.rows(model, entry, seed))
        if faults:
            raise InputError(faults)
        return {metric.label: prompt_scores(metric, by_seed) for metric in metrics}

    def _faults(self, path: Path, result: SetResult) -> Iterator[Fault]:
        expected, rows = self.set_facts(result.model)[result.set], result.predictions
        if len(rows) != expected.prompts:
            problem = f"is not what the report was made from (got {len(rows)} rows)"
            yield Fault(str(path), problem, f"{expected.prompts} rows, one per prompt", _REMEDY)
            return
        if expected.digest and expected.digest != (found := rows_digest(rows)):
            problem = f"is not what the report was made from (got questions and references of digest {found[:12]})"
            yield Fault(str(path), problem, f"those of digest {expected.digest[:12]}", _REMEDY)
        for metric in self.facts.metrics:
            if not all(math.isfinite(row.scores.get(metric.label, math.nan)) for row in rows):
                problem = f"lacks scores (got rows without a number for {metric.label})"
                yield Fault(str(path), problem, "a score of every metric in each row", _REMEDY)
            elif not _close(result.mean(metric), self._reported(result, metric)):
                problem = f"was changed after the report (got a mean {metric.label} of {result.mean(metric):.6g})"
                yield Fault(str(path), problem, f"{self._reported(result, metric):.6g}, as the report has it", _REMEDY)

    def _reported(self, result: SetResult, metric: MetricFacts) -> float:
        place = (result.model, result.set, metric.label)
        score = next(score for score in self.facts.scores if (score.model, score.set, score.metric) == place)
        return score.per_seed[self.facts.seeds.index(result.seed)]


def read_run(folder: Path) -> Run:
    """Read a finished run that was evaluated.

    Raises:
        InputError: It is not finished, did not evaluate what it trained, or its report contradicts itself.
    """
    report = read_report(folder)
    facts = report.evaluation
    if odd := _malformed(report.spec):
        problem = f"holds no spec of a run (got {odd})"
        raise InputError([Fault(str(folder / REPORT_FILE), problem, "a report as the run wrote it", _REMEDY)])
    if facts is None or not facts.metrics or not facts.sets:
        problem, hint = "evaluated nothing (got no scores)", "Evaluate it: `mta evaluate RUN --data NAME=FILE`."
        raise InputError([Fault(str(folder / REPORT_FILE), problem, "a run with an evaluation", hint)])
    run = Run(folder, report, facts)
    if report.spec.get("training") and run.models[0] != "student":
        problem, hint = f"did not evaluate its student (got {', '.join(run.models)})", "Add it to evaluation.models."
        raise InputError([Fault(str(folder / REPORT_FILE), problem, "scores of what was trained", hint)])
    scored = {(score.model, score.set, score.metric): len(score.per_seed) for score in facts.scores}
    places = [(entry.model, entry.set, metric.label) for entry in facts.sets for metric in facts.metrics]
    if any(scored.get(place) != len(facts.seeds) for place in places):
        problem = "contradicts itself (got sets, metrics or seeds without scores)"
        raise InputError([Fault(str(folder / REPORT_FILE), problem, "a report as the run wrote it", _REMEDY)])
    return run


def find_runs(paths: Sequence[Path]) -> list[Path]:
    """The folders of finished runs: each path is one, or holds some; none is given twice.

    Runs that evaluated nothing, say those of teachers, are passed over where a folder holds others.

    Raises:
        InputError: All paths without a finished run.
    """
    faults: list[Fault] = []
    found: list[Path] = []
    for path in paths:
        with collect_faults(faults):
            found += [path] if (path / REPORT_FILE).is_file() else _evaluated_in(path)
    if faults:
        raise InputError(faults)
    return list({folder.resolve(): folder for folder in found}.values())


def _evaluated_in(path: Path) -> list[Path]:
    folders = sorted(file.parent for file in path.glob(f"*/{REPORT_FILE}"))
    found = [folder for folder in folders if read_report(folder).evaluation is not None]
    begun = sorted(file.parent.name for file in path.glob("*/spec.json") if file.parent not in folders)
    if found and begun:
        _log.warning("%s: not finished, so left out: %s", path, ", ".join(begun))
    if not found:
        problem = f"is no finished run and holds none (got {'a folder' if path.is_dir() else 'no folder'})"
        expected = f"a folder with {REPORT_FILE}, or a folder of such, with scores"
        raise InputError([Fault(str(path), problem, expected, "Finish the run, or correct the path.")])
    return found


def _malformed(spec: Mapping[str, Any]) -> str | None:
    """What cannot be in a spec, where somebody has edited it."""
    for name in _SECTIONS:
        if not isinstance(spec.get(name), dict | None):
            return f"{name} {spec[name]!r}"
    if "base_loss" in spec and not isinstance((spec["base_loss"] or {}).get("name"), str):
        return f"base_loss {spec['base_loss']!r}"
    return None if isinstance(spec.get("seed"), int | None) else f"seed {spec['seed']!r}"


def flat(value: Any, where: str = "") -> dict[str, Any]:
    """Dotted field -> value of a spec; lists are values."""
    if not isinstance(value, dict) or not value:
        return {where: value}
    return {
        name: entry
        for key, inner in value.items()
        for name, entry in flat(inner, f"{where}.{key}" if where else key).items()
    }


def _close(found: float, expected: float) -> bool:
    return math.isclose(found, expected, rel_tol=1e-6, abs_tol=1e-9) or (math.isnan(found) and math.isnan(expected))
