"""Validation is dealt out to processes: every example once, and something for each."""

from __future__ import annotations

import numpy as np
import pytest

from mta_framework.data.batches import validation_fault, validation_micro_batches
from mta_framework.types import Example


def examples(count):
    return [Example(np.full(3 + index % 4, index, dtype=np.int32), 1, {}) for index in range(count)]


@pytest.mark.parametrize(("count", "micro", "world_size"), [(7, 3, 2), (3, 8, 3), (5, 2, 1), (2, 16, 1)])
def test_every_example_is_dealt_once_and_every_process_has_a_batch(count, micro, world_size):
    shares = [validation_micro_batches(examples(count), micro, rank, world_size) for rank in range(world_size)]
    assert all(shares)
    assert validation_fault(count, world_size) is None
    dealt = [int(example.input_ids[0]) for share in shares for part in share for example in part]
    assert sorted(dealt) == list(range(count))
    assert max(len(part) for share in shares for part in share) <= micro


def test_fewer_rows_than_processes_are_a_fault():
    assert str(validation_fault(1, 2)) == (
        "data.validation: has fewer rows than there are processes (got 1 for 2); expected at least one row per "
        "process. Add rows or set it to null."
    )
