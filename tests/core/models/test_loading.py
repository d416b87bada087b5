from __future__ import annotations

import json

import pytest
import torch
from peft import PeftModel
from torch import nn

from mta_framework import InputError
from mta_framework.models.configs import read_end_ids
from mta_framework.models.export import save_student
from mta_framework.models.loading import load_student, load_teacher, teacher_dtype
from mta_framework.models.model_summary import summarise_student
from mta_framework.models.sources import ModelSource
from mta_framework.spec.student import StudentSection
from mta_framework.spec.teacher import TeacherSection

SMALL = {
    "model_type": "llama",
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


@pytest.fixture
def folder(tiny, tokenizer, tmp_path):
    save_student(tiny("qwen2"), tokenizer, [256], tmp_path / "model")
    return tmp_path / "model"


def faults_of(raised):
    return [str(fault) for fault in raised.value.faults]


def test_teacher_is_frozen_in_its_dtype_and_in_evaluation_mode(tiny, folder):
    teacher = load_teacher(TeacherSection(path=str(folder)), None, "bfloat16")
    assert not teacher.training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    original = tiny("qwen2").state_dict()
    for name, tensor in teacher.state_dict().items():
        assert torch.equal(tensor, original[name].bfloat16())


def test_teacher_of_a_run_is_its_exported_student(folder):
    teacher = load_teacher(TeacherSection(run="other.json"), folder, "float32")
    assert teacher.config.model_type == "qwen2"


@pytest.mark.parametrize(
    ("dtype", "precision", "expected"),
    [("auto", "bf16", "bfloat16"), ("auto", "fp16", "float16"), ("auto", "fp32", "float32"),
     ("float32", "bf16", "float32")],
)  # fmt: skip
def test_automatic_teacher_dtype_follows_precision(dtype, precision, expected):
    assert teacher_dtype(TeacherSection(path="x", dtype=dtype), precision) == expected


def test_student_is_loaded_in_float32_and_training_mode(tiny, folder, tokenizer):
    tiny("qwen2").bfloat16().save_pretrained(folder)
    student = load_student(StudentSection(path=str(folder)), None, tokenizer, seed=0)
    assert student.training
    assert {parameter.dtype for parameter in student.parameters()} == {torch.float32}
    assert all(parameter.requires_grad for parameter in student.parameters())


def test_fresh_student_takes_vocabulary_and_special_tokens_from_the_tokenizer(tokenizer):
    student = load_student(StudentSection(config=SMALL), None, tokenizer, seed=0)
    config = student.config
    assert (config.vocab_size, config.eos_token_id, config.pad_token_id, config.bos_token_id) == (257, 256, 256, None)
    given = load_student(StudentSection(config=SMALL | {"vocab_size": 320}), None, tokenizer, seed=0)
    assert given.get_input_embeddings().weight.shape == (320, 16)


def test_fresh_weights_follow_the_seed_and_leave_the_global_state_alone(tokenizer):
    section = StudentSection(config=SMALL, lora={"rank": 2})
    before = torch.get_rng_state()
    first, again, other = (load_student(section, None, tokenizer, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    for (name, a), b in zip(first.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b), name
    differing = {
        name for (name, a), b in zip(first.named_parameters(), other.parameters(), strict=True) if (a != b).any()
    }
    assert any("lora_A" in name for name in differing)
    assert any("embed_tokens" in name for name in differing)


def test_unknown_field_of_a_configuration_is_refused_with_the_nearest_name(tokenizer):
    section = StudentSection(config=SMALL | {"num_hiden_layers": 3, "colour": "red"})
    with pytest.raises(InputError) as raised:
        load_student(section, None, tokenizer, seed=0)
    first, second = faults_of(raised)
    assert first.startswith("student.config.num_hiden_layers: is no field of llama")
    assert "Did you mean 'num_hidden_layers'?" in first
    assert second.startswith("student.config.colour")


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": "lama"},
        {"num_hidden_layers": "two"},
        {"hidden_size": 17},
        {"hidden_act": "nonsense"},
        {"vocab_size": "big"},
        {"id2label": 3},
    ],
)
def test_configuration_that_transformers_refuses_is_an_input_error(tokenizer, change):
    with pytest.raises(InputError, match=r"student\.config"):
        load_student(StudentSection(config=SMALL | change), None, tokenizer, seed=0)


def test_alternative_names_of_fields_are_accepted(tokenizer):
    config = {"model_type": "gpt2", "hidden_size": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}
    assert load_student(StudentSection(config=config), None, tokenizer, seed=0).config.n_embd == 16
    rotary = load_student(StudentSection(config=SMALL | {"rope_theta": 5000.0}), None, tokenizer, seed=0)
    assert rotary.config.rope_parameters["rope_theta"] == 5000.0


def test_vocabulary_smaller_than_the_tokenizers_is_refused(tokenizer):
    with pytest.raises(
        InputError, match=r"student\.config\.vocab_size: has fewer embeddings .*got 100\); expected at least 257"
    ):
        load_student(StudentSection(config=SMALL | {"vocab_size": 100}), None, tokenizer, seed=0)


def test_pretrained_student_with_too_few_embeddings_is_refused(tiny, folder, tokenizer):
    tiny("qwen2", vocab_size=200, eos_token_id=None, pad_token_id=None).save_pretrained(folder)
    with pytest.raises(InputError, match=r"student\.path: has fewer embeddings .*got 200\)"):
        load_student(StudentSection(path=str(folder)), None, tokenizer, seed=0)


def test_lora_trains_adapters_only_and_never_the_head(tiny, tokenizer, tmp_path):
    for family in ("llama_tied", "gpt2"):
        tiny(family).save_pretrained(tmp_path / family)
        section = StudentSection(path=str(tmp_path / family), lora={"rank": 3, "alpha": 6, "dropout": 0.1})
        student = load_student(section, None, tokenizer, seed=0)
        assert isinstance(student, PeftModel)
        trained = {name for name, parameter in student.named_parameters() if parameter.requires_grad}
        assert trained == {name for name, _ in student.named_parameters() if ".lora_" in name}
        assert not any("lm_head" in name for name in trained)
        adapted = {name.split(".lora_")[0] for name in trained}
        linear = [m for m in tiny(family).modules() if isinstance(m, nn.Linear) or type(m).__name__ == "Conv1D"]
        assert len(adapted) == len(linear) - 1


def test_lora_targets_are_those_named(tokenizer):
    section = StudentSection(config=SMALL, lora={"rank": 2, "target_modules": ["q_proj", "v_proj"]})
    student = load_student(section, None, tokenizer, seed=0)
    adapted = {name.split(".lora_")[0].rsplit(".", 1)[-1] for name, p in student.named_parameters() if p.requires_grad}
    assert adapted == {"q_proj", "v_proj"}


def test_unknown_lora_targets_are_refused_all_at_once_with_the_names_there_are(tokenizer):
    section = StudentSection(config=SMALL, lora={"target_modules": ["q_proj", "qproj", "lm_head"]})
    with pytest.raises(InputError) as raised:
        load_student(section, None, tokenizer, seed=0)
    unknown, head = faults_of(raised)
    assert "got 'qproj'" in unknown
    assert "q_proj, up_proj, v_proj." in unknown
    assert "Did you mean 'q_proj'?" in unknown
    assert "is the frozen head (got 'lm_head')" in head


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: [file.unlink() for file in folder.iterdir()], "has no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "not JSON"),
        (lambda folder: (folder / "model.safetensors").unlink(), "has no weights"),
        (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), "which can run code"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\x08"), "could not be loaded"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "nonsense"}'), "could not be loaded"),
    ],
)
def test_damaged_folder_is_an_input_error_that_says_what_to_do(folder, tokenizer, damage, message):
    damage(folder)
    with pytest.raises(InputError) as raised:
        load_student(StudentSection(path=str(folder)), None, tokenizer, seed=0)
    (fault,) = faults_of(raised)
    assert fault.startswith("student.path: ")
    assert message in fault
    assert str(folder) in fault


def test_code_that_comes_with_a_model_is_never_run(folder, tokenizer, tmp_path):
    witness = tmp_path / "ran"
    (folder / "evil.py").write_text(f"open({str(witness)!r}, 'w')\nclass C: pass\n")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.C"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"teacher\.path: could not be loaded"):
        load_teacher(TeacherSection(path=str(folder)), None, "float32")
    assert not witness.exists()


@pytest.mark.parametrize(
    "field",
    [
        {"attn_implementation": "kernels-community/flash-attn"},
        {"attn_implementation": "evil/kernel@main:run"},
        {"_attn_implementation": "evil/kernel"},
        {"attn_implementation": "flash_attention_2"},
        {"attn_implementation": "paged|sdpa"},
        {"attn_implementation": ["evil/kernel"]},
        {"attn_implementation": {"": "evil/kernel"}},
    ],
    ids=str,
)
def test_no_configuration_fetches_an_attention_kernel(folder, tokenizer, monkeypatch, field):
    monkeypatch.setattr(
        "transformers.modeling_utils.lazy_import_flash_attention", lambda *_, **__: pytest.fail("fetched")
    )
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **field}))
    with pytest.raises(InputError, match=r"teacher\.path: asks for code that does not come with transformers"):
        load_teacher(TeacherSection(path=str(folder)), None, "float32")
    with pytest.raises(InputError, match=r"student\.path: asks for code .*Remove attn_implementation"):
        summarise_student(StudentSection(path=str(folder)), None, tokenizer)


@pytest.mark.parametrize("attention", ["eager", "sdpa", None])
def test_attention_of_transformers_itself_is_used_as_a_configuration_asks(folder, attention):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "attn_implementation": attention}))
    teacher = load_teacher(TeacherSection(path=str(folder)), None, "float32")
    assert teacher.config._attn_implementation == (attention or "sdpa")


ODD = {
    "heads 0": {"num_attention_heads": 0},
    "no key heads": {"num_key_value_heads": 0},
    "unknown dtype": {"dtype": "floaty"},
    "list of dtypes": {"dtype": ["float32"]},
    "list of model types": {"model_type": ["llama"]},
    "object as model type": {"model_type": {}},
    "width as text": {"hidden_size": "32"},
    "width beyond 64 bits": {"hidden_size": 10**30},
    "more than the memory": {"hidden_size": 10**12},
    "depth without end": {"num_hidden_layers": 10**9},
    "depth as text": {"num_hidden_layers": "two"},
    "no depth": {"num_hidden_layers": 0},
    "deep within": {"text_config": {"num_layers": 10**9}},
    "unknown activation": {"hidden_act": "evil"},
    "list of rotations": {"rope_parameters": [1]},
}


@pytest.mark.parametrize("fields", ODD.values(), ids=ODD)
def test_a_configuration_of_odd_values_is_an_input_error_at_its_field(folder, tokenizer, fields):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **fields}))
    with pytest.raises(InputError) as raised:
        summarise_student(StudentSection(path=str(folder)), None, tokenizer)
    assert faults_of(raised)[0].startswith("student.path: ")


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
@pytest.mark.parametrize("content", ["{", "[]", "null", "[" * 100_000, '{"a":' * 5000 + "1" + "}" * 5000])
def test_a_file_of_settings_that_is_no_json_object_is_an_input_error(folder, tokenizer, name, content):
    (folder / name).write_text(content)
    with pytest.raises(InputError, match=rf"student\.path: has a {name} that is not"):
        summarise_student(StudentSection(path=str(folder)), None, tokenizer)


ODD_SETTINGS = {
    "an end as text": (
        {"eos_token_id": "2"},
        'eos_token_id in its generation_config.json (got "2"); expected the id of',
    ),
    "ends as text": ({"eos_token_id": [2, "3"]}, 'unusable eos_token_id in its generation_config.json (got [2, "3"])'),
    "nested ends": ({"eos_token_id": [[2]]}, "unusable eos_token_id in its generation_config.json (got [[2]])"),
    "an end that is no whole number": ({"eos_token_id": 2.0}, "unusable eos_token_id"),
    "an end that is true": ({"eos_token_id": True}, "unusable eos_token_id"),
    "padding as text": ({"pad_token_id": "x"}, "unusable pad_token_id"),
    "temperature as text": ({"temperature": "hot"}, 'unusable temperature in its generation_config.json (got "hot")'),
    "list of temperatures": ({"temperature": [1]}, "expected a number, or null. Correct "),
    "length as text": ({"max_new_tokens": "5"}, "unusable max_new_tokens"),
    "a switch as text": ({"do_sample": "yes"}, "unusable do_sample"),
    "an unknown cache": ({"cache_implementation": "none such"}, "could not be loaded (got "),
    "a name of the class itself": ({"validate": 3}, "could not be loaded (got "),
}


@pytest.mark.parametrize(("fields", "message"), ODD_SETTINGS.values(), ids=ODD_SETTINGS)
def test_generation_settings_of_odd_values_are_an_input_error_at_the_models_field(folder, tokenizer, fields, message):
    (folder / "generation_config.json").write_text(json.dumps(fields))
    with pytest.raises(InputError) as raised:
        summarise_student(StudentSection(path=str(folder)), None, tokenizer)
    (fault,) = faults_of(raised)
    assert fault.startswith("student.path: ")
    assert message in fault


def test_generation_settings_of_the_hub_are_held_to_the_same(tmp_path, monkeypatch):
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": ["2"]}')
    monkeypatch.setattr(
        "mta_framework.models.configs.cached_file", lambda *_, **__: str(tmp_path / "generation_config.json")
    )
    with pytest.raises(InputError, match=r"^teacher\.hub: has an unusable eos_token_id"):
        read_end_ids(ModelSource("somebody/model", "teacher.hub"), None)


def test_generation_settings_as_they_are_published_are_read(folder, tokenizer):
    published = {"eos_token_id": [2, 5], "pad_token_id": -1, "temperature": 0.6, "top_k": None, "do_sample": True}
    (folder / "generation_config.json").write_text(json.dumps({**published, "_from_model_config": True}))
    assert summarise_student(StudentSection(path=str(folder)), None, tokenizer).end_ids == (2, 5)


def test_missing_weights_are_refused_instead_of_drawn_at_random(folder, tokenizer):
    config = json.loads((folder / "config.json").read_text())
    config |= {"num_hidden_layers": 5, "layer_types": ["full_attention"] * 5}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"lacks weights.*model\.layers\.4"):
        load_student(StudentSection(path=str(folder)), None, tokenizer, seed=0)


@pytest.mark.parametrize("name", ["nowhere", "model.gguf"])
def test_missing_path_is_an_input_error(tokenizer, tmp_path, name):
    with pytest.raises(InputError, match=r"student\.path: does not exist"):
        load_student(StudentSection(path=str(tmp_path / name)), None, tokenizer, seed=0)


def test_a_file_that_is_no_gguf_is_refused(tokenizer, tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match="is a file but no GGUF file"):
        load_student(StudentSection(path=str(tmp_path / "model.gguf")), None, tokenizer, seed=0)


def test_unreachable_hub_id_is_an_input_error(monkeypatch, tokenizer):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"student\.hub: could not be loaded \(got 'nobody/nothing'"):
        load_student(StudentSection(hub="nobody/nothing"), None, tokenizer, seed=0)


MAMBA = {"model_type": "mamba", "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4}


@pytest.mark.parametrize("targets", [["out_proj"], None])
def test_lora_that_peft_refuses_is_a_fault_that_says_what_to_set(tokenizer, targets):
    with pytest.raises(InputError) as raised:
        summarise_student(StudentSection(config=MAMBA, lora={"target_modules": targets}), None, tokenizer)
    (fault,) = faults_of(raised)
    assert fault.startswith("student.lora: is refused by peft for this model (got: ")
    proposed = ["dt_proj", "in_proj", "x_proj"]
    assert fault.endswith(f"Set student.lora.target_modules, e.g. to {json.dumps(proposed)}, or student.lora to null.")
    summarise_student(StudentSection(config=MAMBA, lora={"target_modules": proposed}), None, tokenizer)


def test_lora_adapts_linear_modules_with_a_method_of_their_own_before_and_after_weights_are_read(
    tiny, tokenizer, tmp_path
):
    tiny("falcon").save_pretrained(tmp_path / "falcon")
    section = StudentSection(path=str(tmp_path / "falcon"), lora={"rank": 2})
    student = load_student(section, None, tokenizer, seed=0)
    trained = {name: parameter for name, parameter in student.named_parameters() if parameter.requires_grad}
    adapted = {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in trained}
    assert adapted == {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"}
    summary = summarise_student(section, None, tokenizer)
    assert summary.trainable == sum(parameter.numel() for parameter in trained.values())


def test_lora_has_no_default_where_a_linear_module_computes_something_else(tiny, tokenizer, tmp_path):
    tiny("llama4").save_pretrained(tmp_path / "llama4")
    with pytest.raises(InputError) as raised:
        summarise_student(StudentSection(path=str(tmp_path / "llama4"), lora={}), None, tokenizer)
    names = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    assert faults_of(raised) == [
        "student.lora.target_modules: has no default for this model, since not all of its linear modules can be "
        f"adapted (got router: Llama4Router); expected names among {', '.join(names)}. "
        f"Set student.lora.target_modules, e.g. to {json.dumps(names)}, or student.lora to null."
    ]
    with pytest.raises(InputError, match=r"names no linear module of the student \(got 'router'\)"):
        summarise_student(
            StudentSection(path=str(tmp_path / "llama4"), lora={"target_modules": ["router"]}), None, tokenizer
        )
    section = StudentSection(path=str(tmp_path / "llama4"), lora={"target_modules": names})
    student = load_student(section, None, tokenizer, seed=0)
    logits_BTV = student(input_ids=torch.tensor([[1, 2, 3]]), attention_mask=torch.ones(1, 3)).logits
    logits_BTV.sum().backward()
    assert all(parameter.grad is not None for parameter in student.parameters() if parameter.requires_grad)
