"""Batch policies: each step trains on the data set's responses, or on responses written during training. No torch.

A base loss takes the options of one of them as its option ``batches``, from which ``BaseLoss.batch_policy`` creates the
policy::

    batches: Batches = Field(FixedBatches(), description="Texts that each step is trained on.")
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mta_framework.batch_policies.adaptive import AdaptiveBatches
from mta_framework.batch_policies.fixed import FixedBatches
from mta_framework.batch_policies.on_policy import OnPolicyBatches
from mta_framework.batch_policies.pairs import PairedBatches

Batches = Annotated[FixedBatches | AdaptiveBatches | OnPolicyBatches, Field(discriminator="policy")]
"""Options of the policies that suit any loss on single responses."""

__all__ = ["AdaptiveBatches", "Batches", "FixedBatches", "OnPolicyBatches", "PairedBatches"]
