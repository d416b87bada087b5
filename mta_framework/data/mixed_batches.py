"""Batches of texts of several teachers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mta_framework.data.batches import Collator
from mta_framework.types import Example, MixedBatch


class MixedCollator:
    """Turns examples of several teachers into a ``MixedBatch``.

    Args:
        collators: Collator of each teacher's texts, by its name; their order has no effect.
        samples: A text of each teacher, from which the units of its counts are known before it has any in a batch.
    """

    def __init__(self, collators: Mapping[str, Collator], samples: Mapping[str, Example]):
        self._collators = dict(sorted(collators.items()))
        self._samples = samples
        units = {name: self._collators[name].with_teacher_records(None)([samples[name]]).counts for name in samples}
        self._nothing = {name: dict.fromkeys(units[name], 0) for name in self._collators}

    def __call__(self, examples: Sequence[Example]) -> MixedBatch:
        texts = {name: [text for text in examples if text.teacher_name == name] for name in self._collators}
        parts = {name: self._collators[name](of_teacher) for name, of_teacher in texts.items() if of_teacher}
        counts = {
            name: {**nothing, **parts[name].counts} if name in parts else nothing
            for name, nothing in self._nothing.items()
        }
        return MixedBatch(parts, counts)

    def with_teacher_records(self, teacher_records: None) -> MixedCollator:
        """Make the same collator without what is kept of the teachers.

        Args:
            teacher_records: None, as for ``Collator``; each teacher has its own records.
        """
        collators = {name: each.with_teacher_records(teacher_records) for name, each in self._collators.items()}
        return MixedCollator(collators, self._samples)
