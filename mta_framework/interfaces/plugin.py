"""What the plugin families share: a name, options, one instance per run."""

from __future__ import annotations

from abc import ABC
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field


class PluginParams(BaseModel):
    """Base of every plugin's options: immutable, and an unknown option is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, allow_inf_nan=False)


class PluginChoice(PluginParams):
    """An option that names another plugin of the same family, which becomes a part of this one."""

    name: str = Field(min_length=1, description="Name of an installed plugin.")
    params: dict[str, Any] = Field(default_factory=dict, description="Its options.")


class Plugin(ABC):
    """What all families share.

    A plugin with options of type ``PluginChoice`` is created with the plugins that they name, as keyword arguments
    called like the options.
    """

    NAME: ClassVar[str]

    class Params(PluginParams):
        """No options."""

    def __init__(self, params: PluginParams):
        self.params = params

    def require(self) -> str | None:
        """What is missing on this machine to run, as a sentence that says how to get it; None if nothing is."""
        return None
