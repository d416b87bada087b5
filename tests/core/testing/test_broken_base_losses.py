"""The contract tests fail for base losses that break their contract, each in one way."""

from __future__ import annotations

import pytest
import torch
from pydantic import Field

from mta_framework import TOKENS, BaseLoss, BatchPolicy, LossTerm, PluginParams
from mta_framework.chunked_loss import chunked_sum, forward_kl, select_supervised
from mta_framework.testing import BaseLossContract

from .breaking import breaks


class Bounded(PluginParams):
    """Options."""

    strength: float = Field(1.0, gt=0, description="How much of it.")


class Sound(BaseLoss):
    """KL, on one line."""

    NAME = "sound"
    Params = Bounded

    def terms(self, student, teacher, batch):
        total = chunked_sum(forward_kl, select_supervised(student, batch), select_supervised(teacher, batch))
        return [LossTerm("kl", self.params.strength * total, TOKENS)]

    def compute(self, student, teacher, batch, progress):
        return tuple(self.terms(student, teacher, batch))


class Mean(Sound):
    """Divides."""

    def terms(self, student, teacher, batch):
        (term,) = super().terms(student, teacher, batch)
        return [LossTerm("kl", term.sum / max(batch.counts[TOKENS], 1), TOKENS)]


class Foreign(Sound):
    """Another unit."""

    def terms(self, student, teacher, batch):
        return [LossTerm("kl", super().terms(student, teacher, batch)[0].sum, "sentences")]


class Detached(Sound):
    """Without gradient where nothing is supervised."""

    def terms(self, student, teacher, batch):
        return (
            super().terms(student, teacher, batch)
            if batch.counts[TOKENS]
            else [LossTerm("kl", torch.zeros(()), TOKENS)]
        )


class Capricious(Sound):
    """Another term for what the student wrote."""

    def terms(self, student, teacher, batch):
        (term,) = super().terms(student, teacher, batch)
        mine = batch.by_student_B is not None and bool(batch.by_student_B.any())
        return [LossTerm("on_policy" if mine else "kl", term.sum, TOKENS)]


class Alternating(Sound):
    """Another name in every second step."""

    def compute(self, student, teacher, batch, progress):
        (term,) = self.terms(student, teacher, batch)
        return (LossTerm("kl" if progress.step % 2 else "other", term.sum, TOKENS),)


class Watching(Sound):
    """Follows the total."""

    def observe(self, values):
        self.total = values["loss"]


class Padded(Sound):
    """Reads padding."""

    def terms(self, student, teacher, batch):
        (term,) = super().terms(student, teacher, batch)
        return [LossTerm("kl", term.sum + student.final_BTD.square().sum(), TOKENS)]


class Amnesic(Sound):
    """Does not save what it goes by."""

    steps = 0

    def observe(self, values):
        self.steps += 1

    def terms(self, student, teacher, batch):
        (term,) = super().terms(student, teacher, batch)
        return [LossTerm("kl", term.sum * (1 + self.steps), TOKENS)]


class Deep(Sound):
    """Reads layers that there are not."""

    def key_layers(self, student, teacher):
        return [(student.num_layers + 1, 1)]


def reading(part):
    """A loss that reads more of the teacher, if only to multiply it by 0."""

    def terms(self, student, teacher, batch):
        (term,) = Sound.terms(self, student, teacher, batch)
        return [LossTerm("kl", term.sum + 0 * part(teacher).sum(), TOKENS)]

    return type("Reading", (Sound,), {"__doc__": "Reads more.", "terms": terms})


class Greedy(BatchPolicy):
    """One text too many, at times."""

    def draw(self, batch, rollouts, progress):
        return [*batch, batch[0]] if progress.step == 3 else batch


class Erratic(BatchPolicy):
    """Counts its calls, and does not save the count."""

    calls = 0

    def draw(self, batch, rollouts, progress):
        self.calls += 1
        return batch[:: -1 if self.calls % 3 else 1]


def with_policy(policy):
    """A sound loss that brings it."""
    return type("WithPolicy", (Sound,), {"__doc__": "Brings one.", "batch_policy": lambda self: policy()})


@pytest.mark.parametrize(
    ("loss", "checks"),
    [
        (Sound, []),
        (Mean, ["how_the_batch_is_cut"]),
        (Foreign, ["unit_of_the_batch", "nothing_to_count", "checkpoint"]),
        (Detached, ["nothing_to_count"]),
        (Capricious, ["same_ones"]),
        (Alternating, ["same_ones"]),
        (Watching, []),
        (Padded, ["padding_has_no_effect", "cut_and_padded", "nothing_to_count"]),
        (Amnesic, ["state_survives"]),
        (Deep, ["key_layers"]),
        (reading(lambda teacher: teacher.final_BTD), ["reads_supervised_positions_and_its_key_layers_alone"]),
        (reading(lambda teacher: teacher.layers[2]), ["reads_supervised_positions_and_its_key_layers_alone"]),
        (with_policy(Greedy), ["chooses_whole_batches"]),
        (with_policy(Erratic), ["goes_on_from_a_checkpoint"]),
    ],
)
def test_a_broken_base_loss_fails_where_it_is_broken(loss, checks):
    breaks(BaseLossContract, loss(loss.Params()), *checks, errors=(AssertionError, KeyError, RuntimeError))
