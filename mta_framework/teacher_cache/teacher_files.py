"""The folder of a teacher without weights: head, final norm, configuration and tokenizer, written and read."""

from __future__ import annotations

import json
import logging
import os
import shutil
import uuid
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mta_framework.errors import Fault, InputError, explain_disk_full, writing_to
from mta_framework.models.configs import read_config
from mta_framework.models.decoder import base_of, head_of, shape_of
from mta_framework.models.model_summary import without_weights
from mta_framework.models.saved_teacher import SavedTeacher, read_saved_teacher
from mta_framework.models.sources import ModelSource
from mta_framework.models.state_reader import final_layers_of
from mta_framework.spec.model_files import GENERATION_CONFIG, SAVED_SERVER, SAVED_TEACHER
from mta_framework.storage import MANIFEST, bring_to_disk, inner_files, write_json, write_manifest
from mta_framework.teacher_cache.teacher_identity import TeacherIdentity
from mta_framework.types import FinalLayers, Head

_log = logging.getLogger(__name__)

HEAD = "head.safetensors"
TAIL = "tail.safetensors"
_PACKAGES = ("mta-framework", "torch", "transformers")


def save_teacher(
    folder: Path, identity: TeacherIdentity, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Write what training needs of a teacher besides records: a folder that ``teacher.path`` can name.

    Nothing is done where the folder is there and intact; damaged files are replaced. Each file is complete or absent,
    also where several processes write at once.

    Args:
        folder: Folder to write; records in it stay as they are.
        identity: Identity of the teacher.
        model: The frozen teacher, in its dtype.
        tokenizer: Tokenizer of the teacher, with its chat template.

    Raises:
        RunError: The folder cannot be written to.
    """
    if not _faults(folder):
        return
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.partial")
    try:
        with explain_disk_full(folder), writing_to(folder, "make room, or set teacher.cache"):
            partial.mkdir(parents=True)
            _write(partial, identity, model, tokenizer)
            write_manifest(partial, inner_files(partial))
            bring_to_disk(partial)
            _publish(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def save_server(folder: Path, identity: TeacherIdentity) -> None:
    """Describe a teacher behind a server in its folder; only records are kept of it.

    Args:
        folder: Folder of the teacher.
        identity: Identity of the teacher.

    Raises:
        RunError: The folder cannot be written to.
    """
    if not (folder / MANIFEST).is_file():
        with explain_disk_full(folder), writing_to(folder, "make room, or set teacher.cache"):
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / SAVED_SERVER, {"name": identity.name, "identity": dict(identity.content)})
            write_manifest(folder, {SAVED_SERVER: folder / SAVED_SERVER})


def load_parts(folder: Path, device: torch.device | str) -> tuple[Head, FinalLayers]:
    """Load the head of a teacher and the modules before it, in the teacher's dtype and frozen.

    Args:
        folder: Folder that ``save_teacher`` wrote.
        device: Device of the tensors.

    Raises:
        InputError: Files are missing or damaged; each is named.
    """
    where = str(folder)
    saved = read_saved_teacher(folder, where, contents=True)
    # A process of several has the device cpu:0, which safetensors does not know.
    on = "cpu" if torch.device(device).type == "cpu" else str(device)
    head, tail = (load_file(folder / name, device=on) for name in (HEAD, TAIL))
    config = read_config(ModelSource(str(folder), where, has_weights=False))
    model = without_weights(config)
    norm, projection = (_module(model, name, tail, folder) for name in (saved.norm, saved.projection))
    return (
        Head(head["weight"], head.get("bias"), saved.scale, saved.softcap),
        FinalLayers(shape_of(config), norm, projection),
    )


def is_intact(folder: Path) -> bool:
    """Whether a folder holds all that ``save_teacher`` writes, as it was written; damage is reported by file."""
    faults = _faults(folder)
    if (folder / MANIFEST).is_file():
        for fault in faults:
            _log.warning("teacher cache: %s %s; it is written anew", fault.where, fault.problem)
    return not faults


def _faults(folder: Path) -> Sequence[Fault]:
    try:
        read_saved_teacher(folder, str(folder), contents=True)
    except InputError as error:
        return error.faults
    return ()


def _write(folder: Path, identity: TeacherIdentity, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    head, tail = head_of(model, "teacher"), final_layers_of(model)
    modules = {"norm": tail.norm, "projection": tail.projection}
    names = {role: _name_of(model, module) for role, module in modules.items()}
    weights = {"weight": head.weight_VD} | ({} if head.bias_V is None else {"bias": head.bias_V})
    _save(folder / HEAD, weights)
    _save(
        folder / TAIL,
        {
            f"{names[role]}.{name}": tensor
            for role, module in modules.items()
            if isinstance(module, nn.Module)
            for name, tensor in module.state_dict().items()
        },
    )
    base_of(model).config.save_pretrained(folder)
    if (settings := getattr(model, "generation_config", None)) is not None:
        # As JSON: transformers would check all settings, and refuse some that are published.
        write_json(folder / GENERATION_CONFIG, json.loads(settings.to_json_string()))
    tokenizer.save_pretrained(folder)
    saved = SavedTeacher(
        name=identity.name,
        identity=dict(identity.content),
        dtype=identity.content["dtype"],
        scale=head.scale,
        softcap=head.softcap,
        **names,
        versions={package: version(package) for package in _PACKAGES},
    )
    write_json(folder / SAVED_TEACHER, saved.model_dump())


def _save(path: Path, tensors: dict[str, Tensor]) -> None:
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)


def _name_of(model: nn.Module, module: object) -> str | None:
    return next((name for name, candidate in base_of(model).named_modules() if candidate is module), None)


def _publish(partial: Path, folder: Path) -> None:
    try:
        os.rename(partial, folder)
    except OSError:
        if not folder.is_dir():
            raise
        if not _faults(folder):  # another process was first
            return
        files = inner_files(partial) | {MANIFEST: partial / MANIFEST}  # the manifest last
        for name, path in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, folder / name)


def _module(model: nn.Module, name: str | None, tail: dict[str, Tensor], folder: Path) -> nn.Module | None:
    """The module of a model without weights, with its weights."""
    if name is None:
        return None
    weights = {key.removeprefix(f"{name}."): tensor for key, tensor in tail.items() if key.startswith(f"{name}.")}
    try:
        module = model.get_submodule(name)
        module.load_state_dict(weights, assign=True)
    except (AttributeError, RuntimeError) as error:
        problem = f"does not fit {name} of its config.json ({str(error).splitlines()[0]}; got {folder / TAIL})"
        hint = "Have the folder made again with this version of transformers: mta cache SPEC."
        raise InputError([Fault(str(folder), problem, "the weights of that module", hint)]) from error
    return module.requires_grad_(False).eval()
