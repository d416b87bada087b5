"""The responses of the data set at every step."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mta_framework.interfaces import BatchPolicy, BatchPolicyOptions


class FixedBatches(BatchPolicyOptions):
    """Options of the policy that trains on the responses of the data set."""

    policy: Literal["fixed"] = Field("fixed", description="Train on the responses of the data set.")

    def create(self) -> BatchPolicy | None:
        """Return None: every step trains on the data set's responses."""
        return None
