"""The folder of a teacher without weights: what is read from it computes what the model computes, or it is refused."""

from __future__ import annotations

import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from tiny_models import byte_tokenizer, tiny_model
from torch.nn.functional import linear
from transformers import AutoTokenizer

from mta_framework.errors import InputError, RunError
from mta_framework.models.decoder import blocks_of
from mta_framework.models.saved_teacher import read_saved_teacher
from mta_framework.storage import MANIFEST
from mta_framework.teacher_cache import teacher_files
from mta_framework.teacher_cache.teacher_files import load_parts, save_teacher
from mta_framework.teacher_cache.teacher_identity import TeacherIdentity

FAMILIES = ("llama", "llama_tied", "qwen2", "gemma2", "gpt2", "opt", "opt_projected", "opt_350m", "cohere", "granite",
            "phi", "llama4")  # fmt: skip
IDENTITY = TeacherIdentity("some/teacher", {"format": 1, "files": {"commit": "1"}, "dtype": "float32", "settings": {}})


@pytest.fixture
def folder(tmp_path):
    """The folder of a teacher, in a cache."""
    folder = tmp_path / "cache" / IDENTITY.folder_name
    save_teacher(folder, IDENTITY, tiny_model("gemma2"), byte_tokenizer())
    return folder


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def flip(path, offset):
    content = bytearray(path.read_bytes())
    content[offset] ^= 0x10
    path.write_bytes(content)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_head_and_final_layers_compute_what_the_model_computes(family, dtype, tmp_path):
    model = tiny_model(family).to(dtype)
    save_teacher(tmp_path / "teacher", IDENTITY, model, byte_tokenizer())
    head, tail = load_parts(tmp_path / "teacher", "cpu")

    seen = {}
    blocks_of(model)[1][-1].register_forward_hook(lambda _, __, output: seen.update(last=output))
    logits = model(input_ids=torch.arange(30).view(3, 10)).logits
    states = seen["last"][0] if isinstance(seen["last"], tuple) else seen["last"]
    states = states.view(3, 10, -1)
    for module in (tail.norm, tail.projection):
        states = states if module is None else module(states)
    ours = linear(states, head.weight_VD, head.bias_V) * head.scale
    if head.softcap is not None:
        ours = head.softcap * torch.tanh(ours / head.softcap)
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype] * float(logits.abs().max())
    torch.testing.assert_close(ours, logits, rtol=0, atol=tolerance)

    assert (tail.norm is None) == (family == "opt_350m")
    assert (tail.projection is not None) == (family in ("opt_projected", "opt_350m"))
    assert tail.shape == teacher_files.shape_of(model)
    tensors = [head.weight_VD, *(module.weight for module in (tail.norm, tail.projection) if module is not None)]
    assert not any(tensor.requires_grad for tensor in tensors)
    assert {tensor.dtype for tensor in tensors} == {dtype}


def test_a_folder_holds_no_weights_but_those_of_head_and_final_layers(folder):
    tensors = sorted(path.name for path in folder.rglob("*.safetensors"))
    assert tensors == ["head.safetensors", "tail.safetensors"]
    model = tiny_model("gemma2")
    assert (folder / "head.safetensors").stat().st_size < 4 * model.lm_head.weight.numel() + 200
    assert sorted(path.name for path in folder.parent.iterdir()) == [folder.name]


def test_tokenizer_chat_template_and_generation_settings_are_those_of_the_teacher(tmp_path):
    tokenizer, model = byte_tokenizer(), tiny_model("llama")
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    model.generation_config.eos_token_id = [256, 7]
    model.generation_config.temperature = 0.3  # without do_sample: refused by save_pretrained
    save_teacher(tmp_path / "teacher", IDENTITY, model, tokenizer)
    loaded = AutoTokenizer.from_pretrained(tmp_path / "teacher")
    assert loaded.get_vocab() == tokenizer.get_vocab()
    assert loaded.chat_template == tokenizer.chat_template
    assert json.loads((tmp_path / "teacher" / "generation_config.json").read_text())["eos_token_id"] == [256, 7]


def test_identity_and_versions_are_in_the_folder(folder):
    saved = read_saved_teacher(folder, "teacher.path")
    assert (saved.name, saved.digest) == ("some/teacher", IDENTITY.digest)
    assert folder.name == f"teacher-{IDENTITY.digest[:16]}"
    assert (saved.scale, saved.softcap, saved.norm) == (1.0, 2.0, "model.norm")
    assert saved.versions["torch"] == torch.__version__


@pytest.mark.parametrize(
    "name",
    ["head.safetensors", "tail.safetensors", "config.json", "generation_config.json", "tokenizer.json", "teacher.json"],
)
def test_a_flipped_byte_is_found_and_the_file_is_named_and_made_anew(folder, name):
    before = contents(folder)
    (folder / "records").mkdir()
    (folder / "records" / "kept").write_text("a record")
    for offset in (0, len(before[name]) // 2, len(before[name]) - 1):
        flip(folder / name, offset)
        with pytest.raises(InputError, match=rf"{re.escape(str(folder / name))}\); expected the file as it was"):
            load_parts(folder, "cpu")
        save_teacher(folder, IDENTITY, tiny_model("gemma2"), byte_tokenizer())
        assert contents(folder) == before | {"records/kept": b"a record"}
    assert sorted(path.name for path in folder.parent.iterdir()) == [folder.name]


def test_a_missing_file_a_cut_one_and_a_damaged_manifest_are_found_and_made_anew(folder):
    before = contents(folder)
    for damage in (
        lambda: (folder / "head.safetensors").unlink(),
        lambda: (folder / "tail.safetensors").write_bytes(before["tail.safetensors"][:-1]),
        lambda: (folder / MANIFEST).unlink(),
        lambda: (folder / MANIFEST).write_bytes(b"\x00"),
        lambda: flip(folder / MANIFEST, len(before[MANIFEST]) // 2),
    ):
        damage()
        with pytest.raises(InputError, match=re.escape(str(folder))):
            load_parts(folder, "cpu")
        save_teacher(folder, IDENTITY, tiny_model("gemma2"), byte_tokenizer())
        assert contents(folder) == before


def test_nothing_is_written_where_the_folder_is_intact(folder, monkeypatch):
    monkeypatch.setattr(teacher_files, "_write", None)
    save_teacher(folder, IDENTITY, tiny_model("gemma2"), byte_tokenizer())


def test_of_two_processes_that_write_at_once_the_first_wins(tmp_path):
    folder = tmp_path / "teacher"
    with ThreadPoolExecutor(2) as pool:
        for _ in pool.map(lambda _: save_teacher(folder, IDENTITY, tiny_model("llama"), byte_tokenizer()), range(2)):
            pass
    load_parts(folder, "cpu")
    assert [path.name for path in tmp_path.iterdir()] == ["teacher"]


def test_a_folder_without_room_is_reported_and_nothing_is_left(tmp_path, monkeypatch):
    def refuse(*_):
        raise RuntimeError("No space left on device (os error 28)")

    monkeypatch.setattr(teacher_files, "save_file", refuse)
    with pytest.raises(RunError, match=r"teacher: no space left on its disk .*Make room"):
        save_teacher(tmp_path / "teacher", IDENTITY, tiny_model("llama"), byte_tokenizer())
    assert not list(tmp_path.iterdir())


def test_a_config_of_another_architecture_is_refused_where_the_final_norm_is_looked_for(folder, tmp_path):
    save_teacher(tmp_path / "other", IDENTITY, tiny_model("gpt2"), byte_tokenizer())
    shutil.copy(tmp_path / "other" / "config.json", folder / "config.json")
    teacher_files.write_manifest(folder, teacher_files.inner_files(folder))
    with pytest.raises(InputError, match=r"does not fit model.norm of its config.json"):
        load_parts(folder, "cpu")
