"""Contract tests of the batch policy that a base loss creates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mta_framework.interfaces import BaseLoss, BatchPolicy
from mta_framework.testing.plugin import copied_state
from mta_framework.testing.rollouts import ScriptedRollouts
from mta_framework.types import Example

_STEPS = 12


class BatchPolicyContract:
    """Tests of the batch policy of the base loss ``plugin``; they pass where it has none."""

    def test_its_batch_policy_chooses_whole_batches_and_every_copy_the_same(self, plugin: BaseLoss) -> None:
        policy, copy = plugin.batch_policy(), plugin.batch_policy()
        if policy is None or copy is None:
            assert policy is copy
            return
        assert policy is not copy
        rollouts = ScriptedRollouts(_STEPS)
        drawn = _drawn(policy, rollouts, range(_STEPS))
        assert policy.temperature is None or rollouts.temperatures <= {policy.temperature}
        sizes = {len(texts) for texts in drawn}
        assert len(sizes) == 1
        assert sizes.pop() % len(ScriptedRollouts().batch(0)) == 0
        assert [*map(_plain, _drawn(copy, ScriptedRollouts(_STEPS), range(_STEPS)))] == [*map(_plain, drawn)]

    def test_its_batch_policy_goes_on_from_a_checkpoint_as_if_it_had_never_stopped(self, plugin: BaseLoss) -> None:
        straight, first, second = plugin.batch_policy(), plugin.batch_policy(), plugin.batch_policy()
        if straight is None or first is None or second is None:
            return
        whole = _drawn(straight, ScriptedRollouts(_STEPS), range(_STEPS))
        rollouts = ScriptedRollouts(_STEPS)
        before = _drawn(first, rollouts, range(7))
        second.restore(copied_state(first.state()))
        after = _drawn(second, rollouts, range(7, _STEPS))
        assert [*map(_plain, [*before, *after])] == [*map(_plain, whole)]


def _drawn(policy: BatchPolicy, rollouts: ScriptedRollouts, steps: Sequence[int]) -> list[Sequence[Example]]:
    drawn = []
    for step in steps:
        rollouts.step = step
        if step % rollouts.steps_per_epoch == 0:
            policy.observe_validation(2.0 + step % 2)
        drawn.append(policy.draw(rollouts.batch(step), rollouts, rollouts.progress))
    return drawn


def _plain(texts: Sequence[Example]) -> list[Any]:
    return [(text.input_ids.tolist(), text.prompt_length, text.by_student, _listed(text.log_probs)) for text in texts]


def _listed(log_probs: NDArray[np.float32] | None) -> list[float] | None:
    return None if log_probs is None else log_probs.tolist()
