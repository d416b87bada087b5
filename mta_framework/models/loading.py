"""Loads the frozen teacher and the student."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from peft import PeftModel
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from mta_framework.errors import Fault, InputError
from mta_framework.models.attention_choice import attention_option
from mta_framework.models.configs import config_faults_at, fresh_config, read_config
from mta_framework.models.layer_selection import select_layers
from mta_framework.models.lora import add_lora
from mta_framework.models.quantization import keep_layout, mark_plain, quantization_options
from mta_framework.models.saved_teacher import saved_dtype
from mta_framework.models.sources import ModelSource, loading_faults_at, local_model, model_source
from mta_framework.models.tokenizers import check_vocabulary
from mta_framework.spec.model_options import Attention, QuantizationSection
from mta_framework.spec.student import StudentSection
from mta_framework.spec.teacher import TeacherSection
from mta_framework.spec.training import DTYPE_OF_PRECISION


def teacher_dtype(section: TeacherSection, precision: str) -> str:
    """Resolve ``teacher.dtype``: ``auto`` means the dtype of ``training.precision``.

    Args:
        section: Section ``teacher`` of the spec.
        precision: Value of ``training.precision``.

    Raises:
        InputError: The teacher is a folder without weights, whose records have another dtype.
    """
    recorded = saved_dtype(section.path, "teacher.path")
    if recorded is not None and section.dtype not in ("auto", recorded):
        problem = f"is not the dtype of the teacher that the records are of (got {section.dtype})"
        raise InputError([Fault("teacher.dtype", problem, recorded, "Leave teacher.dtype out.")])
    if recorded is not None:
        return recorded
    return DTYPE_OF_PRECISION[precision] if section.dtype == "auto" else section.dtype


def student_dtype(section: StudentSection, precision: str) -> str:
    """Resolve the dtype of the student's weights: those below adapters are frozen and as ``training.precision`` says.

    Args:
        section: Section ``student`` of the spec.
        precision: Value of ``training.precision``.
    """
    return "float32" if section.lora is None else DTYPE_OF_PRECISION[precision]


def load_teacher(
    section: TeacherSection, run_student_folder: Path | None, dtype: str, device: torch.device | str = "cpu"
) -> PreTrainedModel:
    """Load the teacher in evaluation mode, without gradients.

    Args:
        section: Section ``teacher`` of the spec.
        run_student_folder: Folder of the student exported by ``teacher.run``; None without ``teacher.run``.
        dtype: ``float32``, ``bfloat16`` or ``float16``; see ``teacher_dtype``.
        device: Device that the teacher is moved to.

    Raises:
        InputError: The teacher could not be loaded.
    """
    if run_student_folder is not None:
        source: ModelSource | None = local_model(run_student_folder, "teacher.run")
    else:
        source = model_source(section, "teacher")
    assert source is not None, "teacher.run goes with run_student_folder"
    return frozen(source, dtype, device, attention=section.attention, quantization=section.quantization)


def load_student(
    section: StudentSection,
    teacher: PreTrainedModel | None,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
    dtype: str = "float32",
    device: torch.device | str = "cpu",
) -> nn.Module:
    """Load or initialise the student in training mode: on the CPU, unless it is quantised.

    Args:
        section: Section ``student`` of the spec.
        teacher: The teacher; required for ``teacher_layers``, otherwise unused.
        tokenizer: Tokenizer of the student, which gives a new configuration its vocabulary size and special tokens.
        seed: Seed of newly initialised weights and adapters. The global random state is left unchanged.
        dtype: Dtype of its weights, see ``student_dtype``; adapters are float32.
        device: Device that a quantised student is loaded on.

    Returns:
        The student, a PeftModel where ``student.lora`` is given.

    Raises:
        InputError: The student could not be loaded, or has fewer embeddings than the tokenizer has tokens.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _without_adapters(section, teacher, tokenizer, getattr(torch, dtype), device)
        fault = check_vocabulary(tokenizer, model, student_field(section))
        if fault:
            raise InputError([fault])
        return (add_lora(model, section.lora) if section.lora is not None else model).train()


def load_adapted(section: StudentSection, folder: Path, dtype: str, device: torch.device | str) -> PeftModel:
    """Load the model that a student was trained from, with its exported adapters.

    Args:
        section: Section ``student`` of the spec, which names the model by ``hub`` or ``path``.
        folder: Folder of the adapters.
        dtype: Dtype of the weights that are not adapters.
        device: Device that a quantised model is loaded on; others are loaded on the CPU.

    Raises:
        InputError: The model could not be loaded.
    """
    source = model_source(section, "student")
    assert source is not None, "the spec asks for hub or path"
    model = pretrained(source, getattr(torch, dtype), section.attention, section.quantization, device)
    adapted = PeftModel.from_pretrained(model, str(folder))
    assert isinstance(adapted, PeftModel)
    return adapted


def student_field(section: StudentSection) -> str:
    """Return the spec field that defines the student, e.g. ``student.path``."""
    return next(f"student.{name}" for name in ("hub", "path", "config", "teacher_layers") if getattr(section, name))


def frozen(
    source: ModelSource,
    dtype: str,
    device: torch.device | str = "cpu",
    *,
    attention: Attention | None = None,
    quantization: QuantizationSection | None = None,
) -> PreTrainedModel:
    """Load a pretrained model in evaluation mode, without gradients.

    Args:
        source: The model.
        dtype: Dtype of the loaded weights, e.g. ``bfloat16``.
        device: Device that the model is moved to.
        attention: Implementation of attention; None: transformers' choice.
        quantization: Section ``quantization`` of the model; None: plain weights.

    Raises:
        InputError: The model could not be loaded, or lacks weights that transformers would initialise at random.
    """
    how = attention, quantization, device
    model = pretrained(source, getattr(torch, dtype), *how).eval().requires_grad_(False)
    return model if quantization else model.to(device)  # type: ignore[arg-type]


def pretrained(
    source: ModelSource,
    dtype: torch.dtype,
    attention: Attention | None = None,
    quantization: QuantizationSection | None = None,
    device: torch.device | str = "cpu",
) -> PreTrainedModel:
    """Load a pretrained causal language model; weights are plain, or quantised as asked for (those of GGUF: expanded).

    Only safetensors and GGUF files are read, and no code that comes with the model is run.

    Args:
        source: The model.
        dtype: Dtype of the loaded weights.
        attention: Implementation of attention; None: transformers' choice.
        quantization: Section ``quantization`` of the model; None: plain weights.
        device: Device that a quantised model is loaded on; others are loaded on the CPU.

    Raises:
        InputError: The model could not be loaded, or lacks weights that transformers would initialise at random.
    """
    options: dict[str, Any] = {"dtype": dtype, "use_safetensors": True, "output_loading_info": True}
    options |= attention_option(attention) | quantization_options(quantization, dtype, device)
    if source.gguf_file is not None:
        del options["use_safetensors"]
        options |= _expanded()
    else:
        options["config"] = read_config(source)  # the one that was checked, whatever else the folder refers to
    with loading_faults_at(source):
        loaded: Any = AutoModelForCausalLM.from_pretrained(**source.arguments, **options)
    model, report = loaded
    missing = sorted(report["missing_keys"]) + sorted(str(entry[0]) for entry in report["mismatched_keys"])
    if missing:
        problem = f"lacks weights, or has them in another shape ({', '.join(missing[:3])}: {len(missing)} in all)"
        expected = "weights for the whole of config.json"
        raise InputError([Fault(source.where, problem, expected, "Give the folder of a complete model.")])
    if source.gguf_file is not None:
        mark_plain(model)
    keep_layout(model)
    return model


def _without_adapters(
    section: StudentSection,
    teacher: PreTrainedModel | None,
    tokenizer: PreTrainedTokenizerBase,
    dtype: torch.dtype,
    device: torch.device | str,
) -> PreTrainedModel:
    if section.config is not None:
        config = fresh_config(section.config, tokenizer)
        with config_faults_at(student_field(section)):
            option = attention_option(section.attention)
            return AutoModelForCausalLM.from_config(config, dtype=torch.float32, **option).to(dtype)
    if section.teacher_layers is not None:
        assert teacher is not None, "the spec refuses teacher_layers without a teacher"
        return select_layers(teacher, section.teacher_layers, section.attention).to(dtype)  # type: ignore[arg-type]
    source = model_source(section, "student")
    assert source is not None
    return pretrained(source, dtype, section.attention, section.quantization, device)


def _expanded() -> dict[str, object]:
    # Recent versions could keep the weights packed and fetch a kernel for them; older ones always expand.
    config = getattr(transformers, "GgufConfig", None)
    return {} if config is None else {"quantization_config": config(dequantize=True)}
