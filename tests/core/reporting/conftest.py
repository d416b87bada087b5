"""A report of a run that did everything, and one of a comparison; a browser to look at their pages."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from mta_framework import LayerPair
from mta_framework.comparison.results import (
    Comparison,
    Contrast,
    Curve,
    LearningCurves,
    OutcomeContrast,
    PromptPair,
    Row,
    RowScore,
    RunRef,
    SideBySide,
    ValidationOutcome,
)
from mta_framework.evaluation.report import (
    Geometry,
    Report,
    ReportedData,
    ReportedEvaluation,
    ReportedMetric,
    ReportedModel,
    ReportedSet,
    ReportedSpans,
    SampleResponses,
    Score,
    SpanSample,
)
from mta_framework.evaluation.seed_statistics import seed_difference

sys.path.insert(0, str(Path(__file__).parent))

HOSTILE = """<script>alert(1)</script>"'&amp; $x_1$ {{ 7 * 7 }}\x07 日本語"""


@pytest.fixture(scope="session")
def spec():
    """A resolved spec, as far as reports look at it."""
    return {
        "name": "small",
        "seed": 42,
        "output_dir": "/home/someone/secret/runs",
        "teacher": {"hub": "org/teacher", "revision": "v2", "path": None, "run": None},
        "student": {"hub": None, "path": None, "config": None, "teacher_layers": [1, 3]},
        "data": {"train": {"path": "/home/someone/secret/train.jsonl", "hub": None}, "max_length": 256},
        "base_loss": {"name": "kl", "params": {}},
        "alignment": {
            "spans": {"name": "spacy_phrases"},
            "importance": {"name": "attention"},
            "terms": [{"name": "dsa", "weight": 2.0}, {"name": "hid", "weight": 0.2}],
        },
        "training": {"batch_size": 16, "learning_rate": 1e-4, "epochs": 4},
        "evaluation": {"seeds": [10, 20], "sets": {"dolly": {"hub": "org/dolly"}}, "metrics": [{"name": "rouge_l"}]},
    }


@pytest.fixture(scope="session")
def evaluation():
    """Two models, two seeds, one set; a sample with text that would like to be markup."""
    return ReportedEvaluation(
        seeds=(10, 20),
        scores=(
            Score("student", "dolly", "rouge_l", (20.0, 22.0), 21.0, 2**0.5, (18.25, 23.75)),
            Score("teacher", "dolly", "rouge_l", (26.0, 27.0), 26.5, 0.5**0.5, (24.0, 29.0)),
        ),
        sets=(ReportedSet("student", "dolly", 500, 3, 0.912), ReportedSet("teacher", "dolly", 500, 4, 1.0)),
        samples=(
            SampleResponses(
                "dolly", "What | is\n**this**?", "A <b>test</b>", {"student": "", "teacher": f"line one\n{HOSTILE}"}
            ),
        ),
        metrics=(ReportedMetric("rouge_l", hub_name="rouge"),),
    )


@pytest.fixture(scope="session")
def report(log, spec, evaluation):
    """Everything that a run can tell."""
    pairs = (LayerPair(6, 24, "words"), LayerPair(12, 48, "phrases"))
    matrix = ((1.0, 0.25, -0.5), (0.25, 1.0, 0.75), (-0.5, 0.75, 1.0))
    text = f"The old keeper has repaired the lamp. {HOSTILE}"
    return Report(
        name="small",
        spec=spec,
        evaluation=evaluation,
        layer_pairs=pairs,
        models={
            "student": ReportedModel(124_439_808, 124_439_808, 12),
            "teacher": ReportedModel(1_557_611_200, 0, 48),
        },
        data={"train": ReportedData(9568, 1867, 120)},
        spans={"phrases": ReportedSpans(19136, 9568, 7)},
        unparsed=3,
        log=log,
        steps=20,
        seconds_per_step=0.4567,
        timings={"data": 12.3, "training": 9.1},
        versions={"python": "3.11.9", "device": "cpu", "mta-framework": "0.1.0"},
        step_time={"teacher": 0.1, "student": 0.2, "backward": 0.15, "generation": 0.0},
        geometry=tuple(
            Geometry(pair, ("The keeper", HOSTILE, "lamp"), matrix, matrix, matrix, 16, 0.412, 0.934) for pair in pairs
        ),
        span_samples=(SpanSample(text, {"words": ((0, 3), (4, 7)), "phrases": ((0, 14), (15, 27))}),),
        command="mta run /home/someone/secret/spec.json --set output_dir=/home/someone/secret/runs",
    )


@pytest.fixture(scope="session")
def comparison():
    """A baseline and a better row on two sets, trained from three seeds each."""
    keys = [("rouge_l", "dolly"), ("rouge_l", "vicuna"), ("rouge_l", None)]
    cells = {key: RowScore(20.0 + n, 0.5, "sampling seeds", 2, (18.0, 22.0)) for n, key in enumerate(keys)}
    better = {key: RowScore(22.0 + n, 0.5, "sampling seeds", 2, (20.0, 24.0)) for n, key in enumerate(keys)}
    pair = PromptPair("rouge_l", "dolly", 7, "KL", "KL + MTA", 10.0, 90.0, 1)
    return Comparison(
        metrics=(ReportedMetric("rouge_l"),),
        sets=("dolly", "vicuna"),
        rows=(Row("KL", None, ("base",), cells), Row("KL + MTA", "KL", ("other",), better)),
        contrasts=tuple(
            Contrast("rouge_l", name, "KL", "KL + MTA", 2.0, (0.5, 3.5), 0.002, 0.006, 30, 4, 16) for _, name in keys
        ),
        examples=(SideBySide(pair, "Why?", HOSTILE, "Because.", ""),),
        notes=("A note about the numbers.",),
        runs=(RunRef("base", "/home/base", "KL", 1), RunRef("other", "/gone", "KL + MTA", 1)),
        outcomes=(outcome(),),
        outcome_notes=("A note about outcomes.",),
        curves=(
            LearningCurves("kl", "validation kl", {"KL": CURVE, "KL + MTA": OTHER_CURVE}, "processor time", True),
            LearningCurves("loss", "training loss (total)", {"KL": CURVE}, "", False),
        ),
    )


CURVE = Curve((10, 20), (100.0, 200.0), {1: (3.0, 2.0), 2: (3.25, 2.25), 3: (2.75, 1.5)})
OTHER_CURVE = Curve((10, 20), (150.0, 300.0), {1: (2.5, 1.75), 2: (3.0, 2.0), 3: (2.5, 1.25)})


def outcome():
    """The last values of the curves."""
    values = [{seed: of_run[-1] for seed, of_run in curve.values.items()} for curve in (CURVE, OTHER_CURVE)]
    contrast = OutcomeContrast("KL", "KL + MTA", -0.25, seed_difference(*values), 0.04)
    return ValidationOutcome(
        "kl", "validation kl", False, dict(zip(("KL", "KL + MTA"), values, strict=True)), (contrast,)
    )


@pytest.fixture(scope="module")
def chromium():
    """A headless Chromium, the machine's own or one from the npm registry.

    Not for the whole session: while it is open, an event loop runs, and other tests could start none.
    """
    from browser import browser
    from cache_folder import cache_folder

    with browser(cache_folder("chromium")) as started:
        yield started


@pytest.fixture(scope="session")
def settings_text(spec):
    """The spec as pages show it."""
    return json.dumps(spec, indent=2, ensure_ascii=False)
