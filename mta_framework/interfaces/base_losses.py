"""The contract of base losses."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from pydantic import JsonValue

from mta_framework.interfaces.batch_policies import BatchPolicy
from mta_framework.interfaces.plugin import Plugin
from mta_framework.types import (
    Batch,
    LossTerms,
    ModelShape,
    Progress,
    States,
)


class BaseLoss(Plugin):
    """The loss that spans are added to.

    Attributes:
        NEEDS_TEACHER: Whether ``compute`` uses the teacher.
        NEEDS_SHARED_VOCABULARY: Whether it compares tokens one by one, so that teacher and student must have the same;
            if not, it has to cope with ``batch.teacher``.
    """

    NEEDS_TEACHER: ClassVar[bool] = True
    NEEDS_SHARED_VOCABULARY: ClassVar[bool] = True

    @abstractmethod
    def compute(self, student: States, teacher: States | None, batch: Batch, progress: Progress) -> LossTerms:
        """The loss on one micro-batch, as sums (``mta_framework.chunked_loss`` does it without whole logits).

        Args:
            student: With gradient; ``layers`` has those of ``key_layers``, and perhaps others.
            teacher: Without gradient; None where ``NEEDS_TEACHER`` is false.
            batch: What is supervised, and the counts that the sums are divided by.
            progress: For schedules.

        Returns:
            Terms whose units are keys of ``batch.counts``, the same ones at every call. Where a micro-batch has nothing
            of a term's unit (no supervised token, say), it is a zero that still hangs on the student's graph.
        """

    def key_layers(self, student: ModelShape, teacher: ModelShape) -> Sequence[tuple[int, int]]:
        """Pairs of layers, the student's and the teacher's, from 1, whose states ``compute`` reads.

        Raises:
            ValueError: As ``LayerMapper.map``.
        """
        return ()

    def batch_policy(self) -> BatchPolicy | None:
        """A new policy for one run; None: every step is trained on the data as they are."""
        return None

    def observe(self, values: Mapping[str, float]) -> None:
        """The value of each term over the global batch, by name and without its weight; after every step."""

    def state(self) -> JsonValue:
        """What later steps depend on, besides progress; part of every checkpoint."""
        return None

    def restore(self, state: JsonValue) -> None:
        """Go on from what ``state`` gave."""
