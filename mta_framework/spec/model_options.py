"""Options of teacher and student alike: how a model is held and computed."""

from __future__ import annotations

from typing import Literal

Attention = Literal["sdpa", "eager", "flash_attention_2"]

ATTENTION = (
    "Implementation of attention: torch's fused one, plain matrix products, or the package flash_attn; null: what "
    "transformers chooses for the architecture, which is sdpa where it can be."
)
