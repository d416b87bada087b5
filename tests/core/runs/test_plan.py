"""What a dry run says of validation and the best checkpoint."""

from __future__ import annotations

import pytest

from mta_framework.runs.plan import selection_text
from mta_framework.spec.training import TrainingSection

BEST = {"load_best_model_at_end": True}


@pytest.mark.parametrize(
    ("settings", "higher", "sentences"),
    [
        ({}, False, ""),
        (BEST, False, "Validation every epoch; the student with the lowest loss is exported."),
        (
            {**BEST, "eval_steps": 50, "save_steps": 50, "metric_for_best_model": "rouge_l"},
            True,
            "Validation every 50 steps; the student with the highest rouge_l of answers to 1,000 prompts is exported.",
        ),
        (
            {**BEST, "early_stopping_patience": 1},
            False,
            "Validation every epoch; the student with the lowest loss is exported. Training stops after 1 validation "
            "without a better one.",
        ),
    ],
)
def test_plan_says_how_the_student_is_chosen(settings, higher, sentences):
    assert selection_text(TrainingSection(epochs=1, **settings), higher, prompts=1000) == sentences
