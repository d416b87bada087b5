"""Saves the student: its trained weights in checkpoints, the whole model as a plain transformers folder."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import GENERATION_CONFIG_NAME

from mta_framework.errors import RunError
from mta_framework.models.decoder import base_of
from mta_framework.models.quantization import in_source_orientation, mark_plain, plain_weight, quantized_modules
from mta_framework.models.sharding import sharded_like, whole
from mta_framework.storage import bring_to_disk

WEIGHTS = "student.safetensors"


def save_student(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    stop_ids: Sequence[int],
    folder: Path,
    *,
    untied: bool = False,
) -> None:
    """Export a student as a folder that ``AutoModelForCausalLM`` and ``AutoTokenizer`` load, with safetensors weights.

    Quantised weights are expanded and adapters are merged into them: the sum is formed in float32 and rounded once, to
    the dtype of the model, which all exported weights have. The model itself is left unchanged and can be trained
    further. The folder is complete or absent: it is written under a temporary name, then replaces an earlier one.

    Args:
        model: The student, as a transformers model or a PeftModel, quantised or not.
        tokenizer: Tokenizer that is saved in the same folder.
        stop_ids: Ids of the tokens that end a response, which the generation settings in the folder name.
        folder: Folder to write.
        untied: Whether weights that the model shares, as those of its embeddings and its head, are written once each.
    """
    with _replaced(folder) as partial:
        base, changed = base_of(model), isinstance(model, PeftModel) or any(quantized_modules(model))
        plain, weights = _as_plain(base), _plain_weights(base) if changed else None
        if untied:
            plain, weights = _with_untied_config(plain), _without_sharing(weights or base.state_dict())
        plain.save_pretrained(partial, state_dict=weights)
        _write_stop_ids(partial / GENERATION_CONFIG_NAME, stop_ids)
        tokenizer.save_pretrained(partial)


def save_adapters(model: nn.Module, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Export the adapters of a student alone, as a folder that peft loads onto the model that they were trained on.

    The folder is complete or absent, as that of ``save_student``.

    Args:
        model: The student, a PeftModel.
        tokenizer: Tokenizer that is saved in the same folder.
        folder: Folder to write.
    """
    assert isinstance(model, PeftModel)
    with _replaced(folder) as partial:
        model.save_pretrained(str(partial), save_embedding_layers=False)
        (partial / "README.md").unlink(missing_ok=True)  # a form that peft leaves to be filled in
        tokenizer.save_pretrained(partial)


@contextmanager
def _replaced(folder: Path) -> Iterator[Path]:
    """A folder to write to, which takes the place of ``folder`` unless there is an exception."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        yield partial
        _replace_folder(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # it may be what fills the disk


def save_weights(model: nn.Module, folder: Path, *, write: bool = True) -> None:
    """Save the trainable weights (all weights, or the adapters only) as ``student.safetensors``; tied ones once.

    Args:
        model: The student. Where it is sharded, all processes must call this to gather its weights.
        folder: Folder of the checkpoint, made if missing.
        write: Whether this process writes the file.
    """
    weights = {}
    for name, parameter in trained_weights(model).items():
        weight = whole(parameter.detach())
        if write:
            weights[name] = weight.cpu().contiguous()
    if not write:
        return
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / WEIGHTS)


@torch.no_grad()
def load_weights(model: nn.Module, folder: Path) -> None:
    """Load the weights that ``save_weights`` saved, bit-identical, into the existing parameters.

    Parameters stay on their device and stay registered with their optimiser.

    Args:
        model: The student, built as it was when the weights were saved.
        folder: Folder of the checkpoint.

    Raises:
        RunError: The file belongs to another student: names or shapes of weights differ.
    """
    weights = load_file(folder / WEIGHTS)
    trained = trained_weights(model)
    require_same_shapes(folder / WEIGHTS, _shapes(weights), _shapes(trained))
    for name, parameter in trained.items():
        parameter.copy_(sharded_like(weights[name], parameter))


def _shapes(weights: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: weight.shape for name, weight in weights.items()}


def require_same_shapes(path: Path, saved: Mapping[str, Sequence[int]], expected: Mapping[str, Sequence[int]]) -> None:
    """Refuse weights of another student.

    Args:
        path: File or folder of the weights, for the message.
        saved: Name of each saved weight -> its shape.
        expected: Name of each weight that is going to be replaced -> its shape.

    Raises:
        RunError: Names or shapes differ.
    """
    different = sorted(expected.keys() ^ saved.keys())
    different += [name for name in expected.keys() & saved.keys() if expected[name] != saved[name]]
    if different:
        examples = ", ".join(different[:3])
        raise RunError(f"{path}: is of another student (differs in {len(different)} weights: {examples})")


def trained_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the trained parameters of a model by name, tied ones once."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _as_plain(base: PreTrainedModel) -> PreTrainedModel:
    """The model, or if it is quantised a shallow copy of it that transformers saves as a plain one."""
    if not any(quantized_modules(base)):
        return base
    plain = copy.copy(base)
    plain.config = copy.deepcopy(base.config)
    mark_plain(plain)
    return plain


def _with_untied_config(model: PreTrainedModel) -> PreTrainedModel:
    """A shallow copy of the model that transformers saves as one with a head of its own."""
    untied = copy.copy(model)
    untied.config = copy.deepcopy(model.config)
    for config in (untied.config, untied.config.get_text_config(decoder=True)):
        config.tie_word_embeddings = False
    return untied


def _without_sharing(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights, with a copy of each that has the memory of an earlier one: transformers would leave it out."""
    seen: set[int] = set()
    separate = {}
    for name, weight in weights.items():
        memory = weight.untyped_storage().data_ptr()
        separate[name] = weight.clone() if memory in seen else weight
        seen.add(memory)
    return separate


def _plain_weights(base: PreTrainedModel) -> dict[str, Tensor]:
    """The weights with adapters merged in: merging into the model and out again would not give back the same bits."""
    quantized = dict(quantized_modules(base))
    packed = tuple(f"{name}." for name in quantized)
    weights = {
        _plain(name): tensor.detach()
        for name, tensor in base.state_dict().items()
        if ".lora_" not in name and (name.endswith(".bias") or not name.startswith(packed))
    }
    for name, module in quantized.items():
        weights[f"{_plain(name)}.weight"] = plain_weight(module)
    for name, module in base.named_modules():
        if isinstance(module, LoraLayer):
            # Experts of a mixture keep several weights in one module; each has its own wrapper, nested in one another.
            weight = f"{_plain(name)}.{getattr(module, 'parameter_name', 'weight')}"
            for adapter in module.active_adapters:
                weights[weight] = weights[weight] + module.get_delta_weight(adapter).detach()  # type: ignore[attr-defined]
    for name, module in quantized.items():
        weights[f"{_plain(name)}.weight"] = in_source_orientation(module, weights[f"{_plain(name)}.weight"])
    dtype = base.get_input_embeddings().weight.dtype
    return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in weights.items()}


def _plain(name: str) -> str:
    return name.replace(".base_layer", "")


def _write_stop_ids(path: Path, stop_ids: Sequence[int]) -> None:
    # As JSON: transformers would check all settings that came with the model, and refuse some that are published.
    settings = json.loads(path.read_bytes()) if path.is_file() else {}
    named = settings.get("eos_token_id")
    if set(stop_ids) != set(named if isinstance(named, list) else [named]):
        settings["eos_token_id"] = stop_ids[0] if len(stop_ids) == 1 else list(stop_ids)
        path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")


def _replace_folder(partial: Path, folder: Path) -> None:
    bring_to_disk(partial)
    earlier = folder.with_name(f"{folder.name}.earlier")
    shutil.rmtree(earlier, ignore_errors=True)
    if folder.exists():
        os.replace(folder, earlier)
    os.replace(partial, folder)
    shutil.rmtree(earlier, ignore_errors=True)
