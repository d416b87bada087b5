"""Finished runs with scores that a test chooses; no model is needed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from mta_framework.evaluation.aggregation import Evaluation, SetResult, aggregate
from mta_framework.evaluation.predictions import Key, Prediction, write_predictions
from mta_framework.evaluation.report import Report, ReportedMetric, report_json
from mta_framework.storage import add_to_manifest, write_atomically

ROUGE = ReportedMetric("rouge_l")
PERPLEXITY = ReportedMetric("perplexity", higher_is_better=False, mean="geometric")

BASE: dict[str, Any] = {
    "name": "kl",
    "seed": 1,
    "output_dir": "runs",
    "teacher": {"hub": "gpt2-xl"},
    "student": {"hub": "gpt2"},
    "data": {"train": {"path": "train.jsonl"}, "template": "alpaca"},
    "base_loss": {"name": "kl", "params": {}},
    "alignment": None,
    "training": {"epochs": 3, "batch_size": 8},
    "evaluation": {
        "temperature": 0.7,
        "top_p": 1.0,
        "max_new_tokens": 512,
        "max_prompt_length": 256,
    },
}
TITLES = {"kl": "KL", "fdd": "FDD", "jsd": "JSD", "distillm2": "DistiLLM-2"}
"""Base losses that have a title of their own."""

DSA, HID = {"name": "dsa", "weight": 2.0}, {"name": "hid", "weight": 0.2}
MTA = {"spans": {"name": "words"}, "terms": [DSA, HID]}

Scores = Mapping[str, Sequence[Sequence[float]]]
"""Set -> for each seed the scores of its prompts."""


def spec_of(**changes: Any) -> dict[str, Any]:
    """``BASE`` with other sections; a dotted name, with two underscores for the dot, changes one field."""
    spec = copy.deepcopy(BASE)
    for name, value in changes.items():
        *path, last = name.split("__")
        section = spec
        for key in path:
            section = section[key]
        section[last] = value
    return spec


def predictions_of(model: str, name: str, seed: int, scores: Sequence[float], metrics: Sequence[ReportedMetric]):
    """One row per score: every metric gives the same, tokens are the weights of geometric means."""
    for index, score in enumerate(scores, start=1):
        weights = {metric.label: float(index + (model == "wordy")) for metric in metrics if metric.mean == "geometric"}
        yield Prediction(
            prompt=f"### {name} question {index}",
            question=f"{name} question {index}",
            prediction=f"{model} answers {name} {index} under {seed}",
            references=(f"{name} reference {index}",),
            finished=True,
            tokens=5,
            scores={metric.label: score for metric in metrics},
            weights=weights,
        )


def write_report(folder: Path, content: bytes | str) -> None:
    """A report as a run writes it, with an entry in the manifest of its folder."""
    write_atomically(folder / "report.json", content)
    add_to_manifest(folder, "report.json")


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Writes the folder of a finished run."""

    def make(
        scores: Scores | Mapping[str, Scores],
        metrics: Sequence[ReportedMetric] = (ROUGE,),
        seeds: Sequence[int] = (10, 20),
        folder: str | None = None,
        report: Mapping[str, Any] = MappingProxyType({}),
        **changes: Any,
    ) -> Path:
        spec = spec_of(**changes)
        path = tmp_path / "runs" / (folder or spec["name"])
        models = scores if isinstance(next(iter(scores.values())), Mapping) else {"student": scores}
        results = []
        for model, sets in models.items():
            for name, by_seed in sets.items():
                for seed, of_seed in zip(seeds, by_seed, strict=True):
                    rows = list(predictions_of(model, name, seed, of_seed, metrics))
                    write_predictions(path / "predictions" / model / f"{name}-seed{seed}.jsonl", rows, Key("r", "s"))
                    results.append(SetResult(model, name, seed, 0, tuple(rows)))
        evaluation = aggregate(Evaluation(tuple(results), tuple(metrics)))
        title = TITLES.get((spec.get("base_loss") or {}).get("name"), "")
        titles = {"base_loss_title": title, "term_titles": {"dsa": "DSA", "hid": "Hid"}}
        write_report(path, report_json(Report(spec["name"], spec, evaluation, **titles, **report)))
        return path

    return make
