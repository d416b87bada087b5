"""Randomness without a state: whatever is drawn at a step depends on the seed and the step alone."""

from __future__ import annotations

import random

from mta_framework.interfaces import Rollouts
from mta_framework.types import Progress


def at_step(purpose: str, rollouts: Rollouts, progress: Progress) -> random.Random:
    """A generator for one purpose at one step: the same in every process, and after a resume."""
    return random.Random(f"{rollouts.seed} {purpose} {progress.step}")
