"""The data as they are."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mta_framework.interfaces import BatchPolicy, PluginParams


class FixedBatches(PluginParams):
    """Train on the responses of the data set."""

    policy: Literal["fixed"] = Field("fixed", description="The responses of the data set.")

    def create(self) -> BatchPolicy | None:
        """None: there is nothing to decide."""
        return None
