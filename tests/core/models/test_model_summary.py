from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mta_framework import InputError
from mta_framework.models.export import save_student
from mta_framework.models.loading import load_student, load_teacher
from mta_framework.models.machine_memory import machine_memory, process_memory
from mta_framework.models.model_summary import summarise_student, summarise_teacher
from mta_framework.models.state_reader import shape_of
from mta_framework.spec.student import StudentSection
from mta_framework.spec.teacher import TeacherSection
from mta_framework.types import ModelShape

CONFIG = {"model_type": "llama", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
          "intermediate_size": 32, "tie_word_embeddings": True}  # fmt: skip


@pytest.fixture
def folder(tiny, tokenizer, tmp_path):
    save_student(tiny("gemma2"), tokenizer, [256], tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("lora", [None, {"rank": 2}, {"rank": 2, "target_modules": ["q_proj"]}])
@pytest.mark.parametrize("kind", ["path", "config", "teacher_layers"])
def test_outline_tells_what_loading_gives(folder, tokenizer, kind, lora):
    value = {"path": str(folder), "config": CONFIG, "teacher_layers": [1, 3]}[kind]
    section = StudentSection(**{kind: value}, lora=lora)
    teacher_section = TeacherSection(path=str(folder))
    teacher = summarise_teacher(teacher_section, None, "bfloat16")
    student = summarise_student(section, teacher, tokenizer)
    loaded_teacher = load_teacher(teacher_section, None, "bfloat16")
    loaded = load_student(section, loaded_teacher, tokenizer, seed=0)
    assert (teacher.shape, teacher.parameters) == (shape_of(loaded_teacher), loaded_teacher.num_parameters())
    assert (teacher.trainable, teacher.dtype) == (0, "bfloat16")
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in loaded.parameters()]
    assert student.parameters == sum(size for size, _ in sizes)
    assert student.trainable == sum(size for size, trained in sizes if trained)
    assert (student.shape, student.dtype) == (shape_of(loaded), "float32")


def test_no_weights_are_read(folder, tokenizer):
    (folder / "model.safetensors").write_bytes(b"not read")
    assert summarise_teacher(TeacherSection(path=str(folder)), None, "float32").shape.num_layers == 4


def test_teacher_of_a_run_is_outlined_by_its_student(folder, tokenizer):
    student = summarise_student(StudentSection(path=str(folder)), None, tokenizer)
    teacher = summarise_teacher(TeacherSection(run="other.json"), student, "float16")
    assert (teacher.shape, teacher.parameters) == (student.shape, student.parameters)


def test_faults_show_without_weights(folder, tokenizer):
    with pytest.raises(InputError, match=r"student\.config\.hidden_sise"):
        summarise_student(StudentSection(config=CONFIG | {"hidden_sise": 8}), None, tokenizer)
    teacher = summarise_teacher(TeacherSection(path=str(folder)), None, "float32")
    with pytest.raises(InputError, match=r"student\.teacher_layers"):
        summarise_student(StudentSection(teacher_layers=[5]), teacher, tokenizer)
    with pytest.raises(InputError, match=r"student\.lora\.target_modules"):
        summarise_student(StudentSection(config=CONFIG, lora={"target_modules": ["none"]}), None, tokenizer)


@pytest.mark.parametrize(
    ("values", "problem"),
    [({"num_hidden_layers": 0}, r"has no decoder blocks \(got 0\); expected a whole number of at least 1"),
     ({"hidden_size": 0}, "is refused by transformers"),
     ({"num_attention_heads": 3}, "not a multiple"),
     ({"num_attention_heads": 0}, "by zero"),
     ({"num_key_value_heads": 3}, "must match"),
     ({"head_dim": 3}, "must match"),
     ({"intermediate_size": 0}, r"gate_proj\.weight is empty"),
     ({"intermediate_size": -1}, "negative dimension"),
     ({"attention_dropout": 2.0}, "between 0 and 1"),
     ({"model_type": "gpt2", "num_hidden_layers": None}, r"got None\)"),
     ({"model_type": "gpt2", "num_hidden_layers": True}, r"got True\)"),
     ({"model_type": "gpt2", "num_attention_heads": -2}, "invalid shape"),
     ({"model_type": "gpt2", "n_positions": 0}, r"wpe\.weight is empty"),
     ({"model_type": "mixtral", "num_experts_per_tok": 9}, "is refused by transformers")],
)  # fmt: skip
def test_values_that_make_no_model_are_faults(tokenizer, values, problem):
    config = {**CONFIG, **values}
    if values.get("model_type") == "gpt2":
        del config["intermediate_size"]
    with pytest.raises(InputError, match=rf"student\.config: .*{problem}"):
        summarise_student(StudentSection(config=config), None, tokenizer)


def test_an_encoder_is_refused_unless_it_is_configured_as_a_decoder(tokenizer):
    fields = {name: value for name, value in CONFIG.items() if name != "num_key_value_heads"}
    bert = fields | {"model_type": "bert"}
    with pytest.raises(InputError, match=r"student\.config: reads texts in both directions \(got bert"):
        summarise_student(StudentSection(config=bert), None, tokenizer)
    assert summarise_student(StudentSection(config=bert | {"is_decoder": True}), None, tokenizer).parameters > 0


@pytest.mark.parametrize("model_type", ["llama", "mixtral"])
def test_the_trial_run_leaves_random_state_and_configuration_alone(tokenizer, model_type):
    before = torch.get_rng_state()
    config = StudentSection(config=CONFIG | {"model_type": model_type, "num_key_value_heads": 2})
    student = summarise_student(config, None, tokenizer)
    assert torch.equal(before, torch.get_rng_state())
    assert student.config._attn_implementation != "eager"


def test_a_config_on_disk_that_makes_no_model_is_reported_at_its_path(folder, tokenizer):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_key_value_heads": 0}))
    with pytest.raises(InputError, match=r"student\.path: is refused by transformers .* Correct config\.json"):
        summarise_student(StudentSection(path=str(folder)), None, tokenizer)
    with pytest.raises(InputError, match=r"teacher\.path: is refused by transformers"):
        summarise_teacher(TeacherSection(path=str(folder)), None, "float32")


def test_a_model_larger_than_the_memory_is_a_fault_before_it_is_built(folder, tokenizer, monkeypatch):
    count = summarise_student(StudentSection(path=str(folder)), None, tokenizer).parameters
    monkeypatch.setattr("mta_framework.models.machine_memory.machine_memory", lambda: 4 * count)
    assert summarise_student(StudentSection(path=str(folder)), None, tokenizer).parameters == count
    monkeypatch.setattr("mta_framework.models.machine_memory.machine_memory", lambda: 4 * count - 1)
    with pytest.raises(InputError, match=r"student\.path: has more weights than this machine has memory"):
        summarise_student(StudentSection(path=str(folder)), None, tokenizer)
    assert summarise_teacher(TeacherSection(path=str(folder)), None, "bfloat16").parameters == count
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(InputError, match=r"teacher\.path: has more weights"):
        summarise_teacher(TeacherSection(path=str(folder)), None, "bfloat16")


def test_the_memory_of_the_machine_is_its_memory_and_swap_within_the_limit_of_its_group(tmp_path, monkeypatch):
    info, limit = tmp_path / "meminfo", tmp_path / "memory.max"
    monkeypatch.setattr("mta_framework.models.machine_memory._MEMINFO", info)
    monkeypatch.setattr("mta_framework.models.machine_memory._CGROUP_LIMIT", limit)
    assert machine_memory() is None
    info.write_text("MemTotal:       1000 kB\nMemFree: 5 kB\nSwapTotal:  24 kB\n")
    limit.write_text("max\n")
    assert machine_memory() == 2**20
    limit.write_text("4096\n")
    assert machine_memory() == 4096


class Formless(nn.Module):
    """A decoder whose output has another form."""

    def forward(self, input_ids, **_):
        return {"states": input_ids}


def test_a_decoder_of_another_form_is_a_fault_at_the_models_field(folder, tokenizer, monkeypatch):
    monkeypatch.setattr("mta_framework.models.forward_check.decoder_of", lambda model: Formless())
    with pytest.raises(InputError, match=r"student\.path: Gemma2ForCausalLM gives no final hidden states .*got dict"):
        summarise_student(StudentSection(path=str(folder)), None, tokenizer)
    with pytest.raises(InputError, match=r"teacher\.path: Gemma2ForCausalLM gives no final hidden states"):
        summarise_teacher(TeacherSection(path=str(folder)), None, "float32")


def test_blocks_that_cannot_be_told_apart_are_noted_for_key_layers(folder, tokenizer, monkeypatch):
    assert summarise_student(StudentSection(path=str(folder)), None, tokenizer).blocks_problem == ""
    monkeypatch.setattr("mta_framework.models.decoder.shape_of", lambda model: ModelShape(7, 16))
    summary = summarise_student(StudentSection(path=str(folder)), None, tokenizer)
    assert (summary.where, summary.blocks_problem) == (
        "student.path",
        "Gemma2ForCausalLM keeps no list of 7 decoder blocks",
    )


def test_processes_share_the_memory_of_the_machine_and_have_that_of_their_accelerators_alone(monkeypatch):
    monkeypatch.setattr("mta_framework.models.machine_memory.machine_memory", lambda: 1001)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert process_memory(torch.device("cpu")) == 500
    module = SimpleNamespace(mem_get_info=lambda device: (10, {"cuda:1": 80}[str(device)]))
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    assert process_memory(torch.device("cuda:1")) == 80
    monkeypatch.setattr(torch, "get_device_module", lambda device: SimpleNamespace())
    assert process_memory(torch.device("mps")) is None
    monkeypatch.setattr("mta_framework.models.machine_memory.machine_memory", lambda: None)
    assert process_memory(torch.device("cpu")) is None
