"""A lack of memory ends a run with what to do about it, and the run goes on from there."""

from __future__ import annotations

import errno
from contextlib import contextmanager

import pytest
import torch
from click.testing import CliRunner

from mta_framework.cli import main
from mta_framework.errors import RunError, as_plugin_error, explain_out_of_memory
from mta_framework.generation.transformers_engine import TransformersEngine
from mta_framework.registry import discover
from mta_framework.runs import pipeline
from mta_framework.runs.plugin_binding import bind

TOO_MANY = 1 << 60


def ask_for_too_much():
    torch.empty(TOO_MANY)


@contextmanager
def in_a_plugin():
    """What runs here is the code of a plugin."""
    with explain_out_of_memory("Do it."), as_plugin_error("base loss 'kl'"):
        yield


@pytest.fixture
def failing(monkeypatch):
    """Has a method ask for more memory than any machine has, after a number of calls."""

    def fail(owner, method, calls):
        original, left = getattr(owner, method), [calls]

        def asking(*arguments, **options):
            left[0] -= 1
            if left[0] < 0:
                ask_for_too_much()
            return original(*arguments, **options)

        monkeypatch.setattr(owner, method, asking)

    return fail


@pytest.fixture
def spec(spec_dict, tokenizer_folder):
    """A student without a teacher, evaluated itself."""
    spec_dict |= {"teacher": None, "base_loss": {"name": "sft"}, "alignment": None}
    spec_dict["student"]["tokenizer"] = str(tokenizer_folder)
    spec_dict["training"] |= {"save_steps": 1}
    spec_dict["evaluation"] |= {"models": ["student"], "seeds": [10]}
    return spec_dict


def test_training_says_what_to_lower_and_goes_on_with_it(spec, write_spec, failing, monkeypatch):
    path = write_spec(spec)
    failing(type(bind(path, discover()).base_loss), "compute", 2)
    with pytest.raises(RunError) as caught:
        pipeline.run(bind(path, discover()))
    monkeypatch.undo()
    said = str(caught.value)
    assert said.startswith("there is too little memory (RuntimeError: ")
    assert f"allocate {4 * TOO_MANY} bytes" in said
    assert "Lower training.micro_batch_size (now 8; a divisor of 8), then continue with --resume." in said
    report = pipeline.run(bind(path, discover(), ["training.micro_batch_size=4"]), resume=True)
    assert report.steps == 4


def test_evaluation_says_what_to_lower(spec, write_spec, failing):
    path = write_spec(spec)
    failing(TransformersEngine, "generate", 0)
    hint = r"Lower evaluation\.batch_tokens \(now 24,576\), then run the command again, mta run with --resume\.$"
    with pytest.raises(RunError, match=rf"^there is too little memory \(.* Complete responses are kept\. {hint}"):
        pipeline.run(bind(path, discover()))


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("unable to mmap 8 bytes from file <x>: Cannot allocate memory (12)"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
    ids=repr,
)
def test_no_plugin_is_blamed_for_a_lack_of_memory(error):
    with pytest.raises(RunError, match=r"^there is too little memory \(.*\)\. Do it\.$") as caught, in_a_plugin():
        raise error
    assert caught.value.__cause__ is error


def test_other_errors_pass():
    with pytest.raises(ValueError, match="memory"), explain_out_of_memory("Do it."):
        raise ValueError("a memory")
    with pytest.raises(RunError, match="base loss 'kl' failed"), in_a_plugin():
        raise ValueError("the shop is out of memory cards")


def test_a_command_that_has_no_run_says_so_as_well(monkeypatch, spec, write_spec):
    monkeypatch.setattr("mta_framework.runs.plugin_binding.bind", lambda *_: ask_for_too_much())
    result = CliRunner().invoke(main, ["check", str(write_spec(spec))])
    assert result.exit_code == 1
    assert "mta check failed: there is too little memory (RuntimeError: " in result.stderr
