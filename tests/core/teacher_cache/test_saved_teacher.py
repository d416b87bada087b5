"""``teacher.path`` names a folder without weights: all that needs none goes on, the rest is refused in a sentence."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from tiny_models import byte_tokenizer, tiny_model

from mta_framework.cli import main
from mta_framework.errors import InputError
from mta_framework.models.run_models import RunModels
from mta_framework.spec.run import RunSpec
from mta_framework.teacher_cache.store import RecordStore
from mta_framework.teacher_cache.teacher_files import save_teacher
from mta_framework.teacher_cache.teacher_identity import TeacherIdentity

from .records import Numbered, rows, shards


def teacher_model():
    return tiny_model("llama", max_position_embeddings=512).bfloat16()


@pytest.fixture
def saved_teacher(tmp_path):
    """A folder without weights, of a teacher in bfloat16."""
    folder = tmp_path / "saved"
    content = {"format": 1, "files": {"commit": "1"}, "dtype": "bfloat16", "settings": {}}
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    save_teacher(folder, TeacherIdentity("some/teacher", content), teacher_model(), tokenizer)
    return folder


@pytest.fixture
def spec(spec_dict, saved_teacher):
    """A run with that teacher; the student takes its tokenizer from it."""
    evaluation = {**spec_dict["evaluation"], "models": ["student"]}
    alignment = {"spans": {"name": "words"}, "layers": {"name": "proportional", "params": {"words": 2, "phrases": 0}}}
    return {
        **spec_dict,
        "teacher": {"path": str(saved_teacher)},
        "data": {**spec_dict["data"], "max_length": 512, "max_prompt_length": 400},
        "alignment": alignment,
        "evaluation": evaluation,
        "training": {**spec_dict["training"], "precision": "fp32"},
    }


def models_of(spec, **teacher):
    section = {**spec["teacher"], **teacher}
    return RunModels(RunSpec.model_validate({**spec, "teacher": section}))


def test_summary_and_tokenizer_are_those_of_the_teacher(spec, saved_teacher):
    models, whole = models_of(spec), teacher_model()
    summary = models.teacher_summary
    assert summary.parameters == sum(parameter.numel() for parameter in whole.parameters())
    assert (summary.shape.num_layers, summary.shape.hidden_size, summary.dtype) == (4, 16, "bfloat16")
    assert summary.end_ids == (256,)
    assert not summary.has_weights
    assert models.tokenizer.get_vocab() == byte_tokenizer().get_vocab()
    assert models.tokenizer.chat_template is not None


def test_a_teacher_that_does_not_fit_into_memory_is_no_fault_without_its_weights(spec, monkeypatch):
    for module in ("machine_memory", "model_summary"):
        monkeypatch.setattr(f"mta_framework.models.{module}.memory_fault", lambda *_: pytest.fail("not to be asked"))
    assert models_of(spec).teacher_summary is not None


def test_another_dtype_than_that_of_the_records_is_refused(spec):
    assert models_of(spec, dtype="bfloat16").teacher_summary.dtype == "bfloat16"
    with pytest.raises(InputError, match=r"teacher\.dtype: is not .* \(got float16\); expected bfloat16\. Leave"):
        _ = models_of(spec, dtype="float16").teacher_summary


def test_the_live_model_is_refused_with_what_needs_it(spec, saved_teacher):
    with pytest.raises(InputError, match=r"teacher\.path: has no weights, .* for training on .* \(got .*saved\)"):
        models_of(spec).teacher()
    student = {"teacher_layers": [1, 2]}
    with pytest.raises(InputError, match=r"needed for student\.teacher_layers"):
        models_of({**spec, "student": student}).initial_student()


def test_check_and_dry_run_go_through(spec, write_spec):
    path = write_spec({**spec, "teacher": {**spec["teacher"], "cache": {}}})
    done = CliRunner().invoke(main, ["check", str(path)])
    assert done.exit_code == 0, done.output
    done = CliRunner().invoke(main, ["run", str(path), "--dry-run"])
    assert done.exit_code == 0, done.output
    assert "Nothing was trained." in done.output


def test_a_damaged_file_is_named_before_anything_is_computed(spec, write_spec, saved_teacher):
    file = saved_teacher / "tokenizer.json"
    file.write_text(file.read_text().replace('"a"', '"b"', 1))
    done = CliRunner().invoke(main, ["run", str(write_spec(spec)), "--dry-run"])
    assert done.exit_code == 2
    assert f"teacher.path: has another content than was written (got {file})" in done.output.replace("\n", " ")


def test_the_commands_of_a_cache_look_where_the_run_reads(spec, write_spec, saved_teacher):
    path = write_spec({**spec, "teacher": {**spec["teacher"], "cache": {}}})
    assert "some/teacher" not in CliRunner().invoke(main, ["cache", "list", str(path)]).output
    RecordStore(saved_teacher, Numbered()).add(rows(0, 2))  # from now on the run reads these
    (shard,) = shards(saved_teacher)
    assert "some/teacher" in CliRunner().invoke(main, ["cache", "list", str(path)]).output
    assert shard.name not in CliRunner().invoke(main, ["cache", "check", str(path)]).output
    shard.write_bytes(shard.read_bytes()[:-1])
    assert shard.name in CliRunner().invoke(main, ["cache", "check", str(path)]).output


def test_other_fields_take_no_folder_without_weights(spec, write_spec, saved_teacher):
    path = write_spec({**spec, "student": {"path": str(saved_teacher)}})
    done = CliRunner().invoke(main, ["check", str(path)])
    assert done.exit_code == 2
    assert f"student.path: holds the head and the tokenizer of a teacher, and no weights (got {saved_teacher})" in (
        done.output.replace("\n", " ")
    )


def test_teacher_json_of_anything_else_is_a_sentence(spec, write_spec, saved_teacher):
    from mta_framework.storage import inner_files, write_manifest

    for text in ("[]", "{}", '{"name": 3', json.dumps({"name": "x", "dtype": "int8"}), "\x00"):
        (saved_teacher / "teacher.json").write_text(text)
        write_manifest(saved_teacher, inner_files(saved_teacher))
        done = CliRunner().invoke(main, ["run", str(write_spec(spec)), "--dry-run"])
        assert done.exit_code == 2
        assert "teacher.path: is of another version of the framework, or damaged" in done.output.replace("\n", " ")
