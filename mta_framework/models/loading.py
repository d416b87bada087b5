"""Loads the frozen teacher and the student."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from mta_framework.errors import Fault, InputError
from mta_framework.models.configs import accepted, fresh_config
from mta_framework.models.layer_selection import shortened
from mta_framework.models.lora import add_lora
from mta_framework.models.sources import ModelSource, loading, local_model, model_source
from mta_framework.models.tokenizers import check_vocabulary
from mta_framework.spec.student import StudentSection
from mta_framework.spec.teacher import TeacherSection
from mta_framework.spec.training import DTYPE_OF_PRECISION


def teacher_dtype(section: TeacherSection, precision: str) -> str:
    """``teacher.dtype``, or what ``training.precision`` makes of ``auto``."""
    return DTYPE_OF_PRECISION[precision] if section.dtype == "auto" else section.dtype


def load_teacher(section: TeacherSection, run_student_folder: Path | None, dtype: str) -> PreTrainedModel:
    """The teacher: in evaluation mode, without gradient, on the CPU.

    Args:
        section: ``teacher``.
        run_student_folder: The student exported by ``teacher.run``; None where that is not given.
        dtype: ``float32``, ``bfloat16`` or ``float16``; see ``teacher_dtype``.

    Raises:
        InputError: It could not be loaded.
    """
    if run_student_folder is not None:
        origin: ModelSource | None = local_model(run_student_folder, "teacher.run")
    else:
        origin = model_source(section, "teacher")
    assert origin is not None, "teacher.run goes with run_student_folder"
    return pretrained(origin, getattr(torch, dtype)).eval().requires_grad_(False)


def load_student(
    section: StudentSection, teacher: PreTrainedModel | None, tokenizer: PreTrainedTokenizerBase, seed: int
) -> nn.Module:
    """The student: float32 weights, in training mode, on the CPU; a PeftModel where ``student.lora`` is given.

    Args:
        section: ``student``.
        teacher: Needed for ``teacher_layers``.
        tokenizer: Gives a fresh configuration its vocabulary size and special tokens.
        seed: Of freshly drawn weights and adapters; the global random state is left alone.

    Raises:
        InputError: It could not be loaded, or has fewer embeddings than the tokenizer has tokens.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _plain_student(section, teacher, tokenizer)
        fault = check_vocabulary(tokenizer, model, student_field(section))
        if fault:
            raise InputError([fault])
        return (add_lora(model, section.lora) if section.lora is not None else model).train()


def student_field(section: StudentSection) -> str:
    """The field that says what the student is, e.g. ``student.path``."""
    return next(f"student.{name}" for name in ("hub", "path", "config", "teacher_layers") if getattr(section, name))


def pretrained(origin: ModelSource, dtype: torch.dtype) -> PreTrainedModel:
    """A pretrained causal language model with plain weights; quantised GGUF weights are expanded.

    Only safetensors and GGUF files are read, and no code that comes with the model is run.

    Raises:
        InputError: It could not be loaded, or lacks weights that transformers would draw at random.
    """
    options: dict[str, Any] = {"dtype": dtype, "use_safetensors": True, "output_loading_info": True}
    if origin.gguf_file is not None:
        del options["use_safetensors"]
        options |= _expanded()
    with loading(origin):
        loaded: Any = AutoModelForCausalLM.from_pretrained(**origin.arguments, **options)
    model, report = loaded
    missing = sorted(report["missing_keys"]) + sorted(str(entry[0]) for entry in report["mismatched_keys"])
    if missing:
        problem = f"lacks weights, or has them in another shape (got {', '.join(missing[:3])}: {len(missing)} in all)"
        expected = "weights for the whole of config.json are allowed"
        raise InputError([Fault(origin.where, problem, expected, "Give the folder of a complete model.")])
    if origin.gguf_file is not None:
        _mark_plain(model)
    return model


def _plain_student(
    section: StudentSection, teacher: PreTrainedModel | None, tokenizer: PreTrainedTokenizerBase
) -> PreTrainedModel:
    if section.config is not None:
        config = fresh_config(section.config, tokenizer)
        with accepted(student_field(section)):
            return AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    if section.teacher_layers is not None:
        assert teacher is not None, "the spec refuses teacher_layers without a teacher"
        return shortened(teacher, section.teacher_layers)
    origin = model_source(section, "student")
    assert origin is not None
    return pretrained(origin, torch.float32)


def _expanded() -> dict[str, object]:
    # Recent versions could keep the weights packed and fetch a kernel for them; older ones always expand.
    config = getattr(transformers, "GgufConfig", None)
    return {} if config is None else {"quantization_config": config(dequantize=True)}


def _mark_plain(model: Any) -> None:
    # transformers goes on calling the expanded model quantised, and would neither train nor save it.
    for owner, name in ((model, "hf_quantizer"), (model, "quantization_method"), (model.config, "quantization_config")):
        if hasattr(owner, name):
            delattr(owner, name)
    model.is_quantized = False
