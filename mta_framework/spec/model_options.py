"""Options of teacher and student alike: how a model is held and computed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from mta_framework.spec.section import Contradiction, Section, without_effect

Attention = Literal["sdpa", "eager", "flash_attention_2"]

ATTENTION = (
    "Implementation of attention: torch's fused one, plain matrix products, or the package flash_attn; null: what "
    "transformers chooses for the architecture, which is sdpa where it can be."
)

QUANTIZATION = (
    "Weights of linear modules in 8 or 4 bit, by bitsandbytes; the head, embeddings and norms keep the dtype of the "
    "model. null: plain weights."
)


class QuantizationSection(Section):
    """Frozen weights in 8 or 4 bit (bitsandbytes), quantised while the model is loaded."""

    bits: Literal[4, 8] = Field(4, description="4: NF4, blocks of 64 weights with a scale each; 8: LLM.int8().")
    use_double_quant: bool = Field(
        False, description="Quantise the scales of 4-bit weights in turn, which saves 0.37 bit per weight."
    )

    def contradictions(self) -> Iterator[Contradiction]:
        if self.bits == 8:
            yield from without_effect(self, "use_double_quant", "bits", "where bits is 8")
