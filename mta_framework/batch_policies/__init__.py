"""What a base loss may train on: the data, or responses that are written during training. No torch.

A base loss takes one of these as an option and returns ``options.create()`` from its ``batch_policy``::

    batches: Batches = Field(FixedBatches(), description="What is trained on.")
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mta_framework.batch_policies.adaptive import AdaptiveBatches
from mta_framework.batch_policies.on_policy import FixedBatches, OnPolicyBatches
from mta_framework.batch_policies.pairs import PairedBatches

Batches = Annotated[FixedBatches | AdaptiveBatches | OnPolicyBatches, Field(discriminator="policy")]
"""The policies that any loss on single responses can take."""

__all__ = ["AdaptiveBatches", "Batches", "FixedBatches", "OnPolicyBatches", "PairedBatches"]
