"""Linear modules in 8 and 4 bit whose weights have no values: they compute by bitsandbytes, as its own modules do.

Those cannot be made without values. These are subclasses of them, so that peft puts the same adapters onto both.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from mta_framework.models.quantization import SCALE_BLOCK, WEIGHT_BLOCK
from mta_framework.spec.model_options import QuantizationSection

_CODES = 16
"""Values that 4 bits stand for."""


def simulated_linear(module: nn.Linear | Conv1D, section: QuantizationSection, dtype: torch.dtype) -> nn.Module:
    """Make the module that stands in for a linear one once it is quantised.

    Args:
        module: The plain module; only its sizes and its bias are used.
        section: Section ``quantization`` of the model.
        dtype: Dtype that the model computes in.
    """
    rows, columns = module.weight.shape
    sizes = (columns, rows) if isinstance(module, Conv1D) else (rows, columns)
    make = _simulated_4_bit() if section.bits == 4 else _simulated_8_bit()
    return make(sizes, module.bias, section.use_double_quant, dtype)  # type: ignore[no-any-return]


@cache
def _simulated_4_bit() -> Any:
    bitsandbytes: Any = import_module("bitsandbytes")
    base: Any = bitsandbytes.nn.Linear4bit

    class Simulated(base):  # type: ignore[misc]
        def __init__(self, sizes: tuple[int, int], bias: nn.Parameter | None, nested: bool, dtype: torch.dtype):
            nn.Module.__init__(self)
            self.out_features, self.in_features = sizes
            self.compute_dtype, self.bias = dtype, bias
            packed = torch.empty(-(-self.in_features * self.out_features // 2), 1, dtype=torch.uint8)
            weight: Any = nn.Parameter(packed, requires_grad=False)
            weight.compress_statistics, weight.quant_type = nested, "nf4"
            self.weight = weight
            self.quant_state = _scales(sizes, nested, dtype)

        def forward(self, x: Tensor) -> Tensor:
            x, dtype = x.to(self.compute_dtype), x.dtype
            bias = None if self.bias is None else self.bias.to(x.dtype)
            product: Tensor = bitsandbytes.matmul_4bit(x, self.weight.t(), bias=bias, quant_state=self.quant_state)
            return product.to(dtype)

    return Simulated


def _scales(sizes: tuple[int, int], nested: bool, dtype: torch.dtype) -> Any:
    from bitsandbytes.functional import QuantState

    count = -(-sizes[0] * sizes[1] // WEIGHT_BLOCK)
    of_weights = torch.Size(sizes), torch.empty(_CODES), WEIGHT_BLOCK, "nf4", dtype
    if not nested:
        return QuantState(torch.empty(count), *of_weights)
    of_scales = QuantState(
        torch.empty(-(-count // SCALE_BLOCK)), code=torch.empty(256), blocksize=SCALE_BLOCK, dtype=torch.float32
    )
    return QuantState(torch.empty(count, dtype=torch.uint8), *of_weights, torch.empty(()), of_scales)


@cache
def _simulated_8_bit() -> Any:
    bitsandbytes: Any = import_module("bitsandbytes")
    base: Any = bitsandbytes.nn.Linear8bitLt

    class Simulated(base):  # type: ignore[misc]
        def __init__(self, sizes: tuple[int, int], bias: nn.Parameter | None, nested: bool, dtype: torch.dtype):
            nn.Module.__init__(self)
            self.out_features, self.in_features = sizes
            self.index, self.bias = None, bias
            self.weight = nn.Parameter(torch.empty(sizes, dtype=torch.int8), requires_grad=False)
            self.state = bitsandbytes.MatmulLtState()
            # No threshold for inputs that are multiplied in 16 bit: how many there are depends on values.
            self.state.threshold, self.state.has_fp16_weights = 0.0, False
            self.state.CB, self.state.SCB = self.weight.data, torch.empty(sizes[0])

        def forward(self, x: Tensor) -> Tensor:
            self.state.is_training = self.training
            bias = None if self.bias is None else self.bias.to(x.dtype)
            product: Tensor = bitsandbytes.matmul(x, self.weight, bias=bias, state=self.state)
            return product

    return Simulated
