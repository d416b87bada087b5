"""Frozen weights in 8 or 4 bit, by bitsandbytes through transformers; and the way back to plain weights.

Linear modules of the decoder are quantised when a model is loaded, on the device that it is loaded on. Embeddings,
norms, the head, and experts that are one tensor keep the dtype of the model.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BitsAndBytesConfig, PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.base import HfQuantizer
from transformers.quantizers.quantizers_utils import should_convert_module

from mta_framework.errors import Fault
from mta_framework.spec.model_options import QuantizationSection

_log = logging.getLogger(__name__)

_PACKED = ("Params4bit", "Int8Params")
"""Classes of bitsandbytes for weights in 4 and 8 bit, which are known by name, so that the package is optional."""

WEIGHT_BLOCK, SCALE_BLOCK = 64, 256
"""Number of weights that share a scale in 4 bit, and of scales that share one where they are quantised in turn."""


def quantization_options(section: QuantizationSection | None, dtype: torch.dtype, device: Any) -> dict[str, Any]:
    """Return the arguments of ``from_pretrained`` that quantise a model while it is loaded; empty without a section.

    Args:
        section: Section ``quantization`` of the model; None: plain weights.
        dtype: Dtype that the model computes in, and that its remaining weights have.
        device: Device that the model is loaded on.
    """
    if section is None:
        return {}
    config = BitsAndBytesConfig(
        load_in_4bit=section.bits == 4,
        load_in_8bit=section.bits == 8,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=section.use_double_quant,
        bnb_4bit_compute_dtype=dtype,
    )
    return {"quantization_config": config, "device_map": {"": str(device)}}


def quantization_fault(config: PreTrainedConfig, section: QuantizationSection | None, where: str) -> Fault | None:
    """Return the fault of a model that cannot be quantised, since its files hold quantised weights; None otherwise.

    Args:
        config: Configuration of the model.
        section: Section ``quantization`` of the model; None: nothing is quantised here.
        where: Name of the section of the model, ``teacher`` or ``student``.
    """
    stored = getattr(config, "quantization_config", None)
    if section is None or stored is None:
        return None
    method = stored.get("quant_method") if isinstance(stored, dict) else getattr(stored, "quant_method", stored)
    problem = f"cannot be applied, since the model is quantised already (got {getattr(method, 'value', method)})"
    return Fault(f"{where}.quantization", problem, "null, or a model with plain weights", "Set it to null.")


def is_quantized(module: nn.Module) -> bool:
    """Whether a linear module holds its weight in 8 or 4 bit."""
    # An adapter around it lends its weight, so that attributes say nothing.
    weight = module._parameters.get("weight")
    # Where memory is estimated, tensors have no values and no class of bitsandbytes.
    return weight is not None and (type(weight).__name__ in _PACKED or weight.dtype in (torch.uint8, torch.int8))


def quantized_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield name and module of every linear module in 8 or 4 bit."""
    return ((name, module) for name, module in model.named_modules() if is_quantized(module))


def keep_layout(model: nn.Module) -> None:
    """Keep 4-bit weights in the layout that gradients and export need, and warn where a processor misreads them.

    On processors with AVX512-BF16, bitsandbytes would repack them at the first pass in evaluation mode, for good.
    """
    misread = []
    for name, module in quantized_modules(model):
        module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
        misread += [name] * _is_misread(module)
    if misread:
        rows = f"{misread[0]} and {len(misread) - 1} others" if len(misread) > 1 else misread[0]
        _log.warning(
            "bitsandbytes misreads 4-bit weights on this processor (AVX-512) where their rows have a multiple of 16 "
            "values, but not of 64 (got %s). Load the model on a GPU, in 8 bit, or without quantization.",
            rows,
        )


def _is_misread(module: nn.Module) -> bool:
    """Whether bitsandbytes 0.50 gives wrong values for a weight on a CPU: its AVX-512 code takes scales by row."""
    width = int(module.in_features)  # type: ignore[arg-type]
    packed = type(module.weight).__name__ == "Params4bit" and module.weight.device.type == "cpu"  # type: ignore[union-attr]
    by_row = width % 16 == 0 and width % WEIGHT_BLOCK != 0
    return packed and by_row and torch.backends.cpu.get_cpu_capability() == "AVX512"


def plain_weight(module: nn.Module) -> Tensor:
    """Return the weight that a quantised module computes with, in float32, with the orientation of ``nn.Linear``.

    Args:
        module: Linear module in 8 or 4 bit.
    """
    from transformers.integrations.bitsandbytes import dequantize_bnb_weight

    return dequantize_bnb_weight(module.weight, getattr(module, "state", None)).float()  # type: ignore[arg-type]


def in_source_orientation(module: nn.Module, weight: Tensor) -> Tensor:
    """Turn a weight in the orientation of ``nn.Linear`` to that of the module which was quantised.

    Args:
        module: Quantised module; GPT-2's were a ``Conv1D``, whose weight is transposed.
        weight: Its plain weight.
    """
    return weight.T.contiguous() if getattr(module, "source_cls", None) is Conv1D else weight


def mark_plain(model: Any) -> None:
    """Make transformers treat a model as one that was never quantised: otherwise it would neither train nor save it.

    Args:
        model: Model whose weights are plain, or are saved as such.
    """
    for owner, name in ((model, "hf_quantizer"), (model, "quantization_method"), (model.config, "quantization_config")):
        if hasattr(owner, name):
            delattr(owner, name)
    model.is_quantized = False


def weight_bytes(model: PreTrainedModel, dtype: str, section: QuantizationSection | None) -> int:
    """Count the bytes of the weights that a model will have once it is loaded; tied ones count once.

    Args:
        model: Plain model, usually on the meta device.
        dtype: Dtype that it will be loaded in.
        section: Section ``quantization`` of the model; None: plain weights.
    """
    itemsize = getattr(torch, dtype).itemsize
    total = sum(parameter.numel() for parameter in model.parameters()) * itemsize
    if section is None:
        return int(total)
    for _, module in quantizable_modules(model):
        rows = module.weight.shape[1 if isinstance(module, Conv1D) else 0]
        total += _quantized_bytes(module.weight.numel(), rows, section) - module.weight.numel() * itemsize
    return int(total)


def quantizable_modules(model: PreTrainedModel) -> Iterator[tuple[str, nn.Linear | Conv1D]]:
    """Yield name and module of every linear module that transformers quantises when it loads a model.

    Args:
        model: Plain model, usually without values.
    """
    exact = model._keep_in_fp32_modules
    kept = HfQuantizer.get_modules_to_not_convert(model, None, None if exact is None else list(exact))
    for name, module in model.named_modules():
        if type(module) in (nn.Linear, Conv1D) and should_convert_module(name, kept):
            yield name, module


def _quantized_bytes(weights: int, rows: int, section: QuantizationSection) -> int:
    if section.bits == 8:
        return weights + 4 * rows
    scales = -(-weights // WEIGHT_BLOCK)
    return -(-weights // 2) + (scales + 4 * -(-scales // SCALE_BLOCK) if section.use_double_quant else 4 * scales)
