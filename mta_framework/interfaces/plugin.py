"""The base of all plugin families: a name, options, one instance per run."""

from __future__ import annotations

import json
import sys
from abc import ABC
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

FILE_DIGEST = "__mta_file_digest__"
"""Attribute of the module of a file given by ``-p``: SHA-256 digest of the file."""


class PluginParams(BaseModel):
    """Base of every plugin's options: immutable; unknown options, NaN and infinity are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, allow_inf_nan=False)


class PluginChoice(PluginParams):
    """An option that names another plugin of the same family, which becomes a part of this one."""

    name: str = Field(min_length=1, description="Name of an installed plugin of the same family.")
    params: dict[str, Any] = Field(default_factory=dict, description="Options of that plugin.")


class Plugin(ABC):
    """Base of all plugin families.

    A plugin is created once per run, when the spec is bound. The plugins that its options of type ``PluginChoice`` name
    are created with it and passed as keyword arguments with the names of these options.

    Attributes:
        NAME: Name in a spec: lower-case letters, digits and underscores.
        PACKAGES: Distributions whose versions may change what the plugin computes; the report states them.

    Args:
        params: Validated options, an instance of the class's ``Params``.
    """

    NAME: ClassVar[str]
    PACKAGES: ClassVar[tuple[str, ...]] = ()

    class Params(PluginParams):
        """No options."""

    def __init__(self, params: PluginParams):
        self.params = params

    def require(self) -> str | None:
        """Check whether everything that the plugin needs is installed.

        Returns:
            None if so; otherwise a sentence that says what is missing and how to get it.
        """
        return None


def fingerprint(plugin: Plugin, version: str) -> str:
    """What the results of a plugin depend on besides its inputs, as JSON.

    Args:
        plugin: The plugin.
        version: Its ``VERSION``.

    Returns:
        Name, version and options; of a plugin in a file given by ``-p`` also the file's digest, since that is what its
        author changes.
    """
    entries = {"name": plugin.NAME, "version": version, "params": plugin.params.model_dump(mode="json")}
    digest = getattr(sys.modules.get(type(plugin).__module__), FILE_DIGEST, None)
    return json.dumps(entries | ({"file": digest} if digest else {}), sort_keys=True)
