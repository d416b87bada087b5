"""Two teachers with the same states have the same identity, and no two others."""

from __future__ import annotations

import json
import shutil

import pytest
from tiny_models import byte_tokenizer, tiny_model

from mta_framework.errors import InputError
from mta_framework.models.fingerprint import model_content
from mta_framework.spec.teacher import TeacherSection
from mta_framework.teacher_cache import teacher_identity as identities
from mta_framework.teacher_cache.teacher_files import save_teacher
from mta_framework.teacher_cache.teacher_identity import TeacherIdentity, teacher_identity


@pytest.fixture
def model_folder(tmp_path):
    """A whole model with its tokenizer."""
    folder = tmp_path / "My teacher v1"
    tiny_model("llama").save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def identity_of(folder, dtype="float32", **settings):
    section = TeacherSection(path=str(folder), **settings)
    return teacher_identity(section, {"teacher.path": model_content(folder)}, dtype)


def test_identity_follows_weights_configuration_and_dtype_and_nothing_else(model_folder, tmp_path):
    identity = identity_of(model_folder)
    assert identity.folder_name == f"My-teacher-v1-{identity.digest[:16]}"
    moved = tmp_path / "elsewhere"
    shutil.copytree(model_folder, moved)
    (moved / "README.md").write_text("A model.")
    (moved / "chat_template.jinja").write_text("{{ messages }}")
    (moved / "tokenizer_config.json").write_text("{}")
    (moved / "generation_config.json").write_text("{}")
    assert identity_of(moved).digest == identity.digest
    assert identity_of(moved, dtype="float32", revision=None).digest == identity.digest

    digests = {identity.digest, identity_of(model_folder, "bfloat16").digest}
    config = json.loads((moved / "config.json").read_text())
    (moved / "config.json").write_text(json.dumps(config | {"rope_theta": 5.0}))
    digests.add(identity_of(moved).digest)
    tiny_model("llama", seed=8).save_pretrained(moved)
    digests.add(identity_of(moved).digest)
    assert len(digests) == 4


def test_the_dtype_counts_as_it_is_resolved(model_folder):
    section = TeacherSection(path=str(model_folder), dtype="bfloat16")
    content = {"teacher.path": model_content(model_folder)}
    assert teacher_identity(section, content, "bfloat16").digest == identity_of(model_folder, "bfloat16").digest


def test_a_model_of_the_hub_is_known_by_its_commit_and_one_of_a_run_by_its_export(model_folder):
    hub = TeacherSection(hub="some/Teacher-7B", revision="main")
    first, second = (teacher_identity(hub, {"teacher.hub": {"commit": commit}}, "float32") for commit in "12")
    assert first.digest != second.digest
    assert first.folder_name == f"Teacher-7B-{first.digest[:16]}"
    run = TeacherSection(run="specs/teacher.json")
    of_run = teacher_identity(run, {"teacher.run": model_content(model_folder)}, "float32")
    assert of_run.digest == identity_of(model_folder).digest
    assert of_run.folder_name.startswith("teacher-")
    with pytest.raises(InputError, match=r"teacher\.hub: cannot be identified, .* \(got some/Teacher-7B\)"):
        teacher_identity(hub, {}, "float32")


def test_a_folder_without_weights_has_the_identity_of_its_teacher(model_folder, tmp_path, monkeypatch):
    identity = identity_of(model_folder)
    folder = tmp_path / "copied"
    save_teacher(folder, identity, tiny_model("llama"), byte_tokenizer())
    saved = teacher_identity(TeacherSection(path=str(folder)), {}, "float32")
    assert saved == TeacherIdentity("My teacher v1", identity.content)
    assert saved.folder_name == identity.folder_name
    monkeypatch.setattr(identities, "FORMAT", 2)
    with pytest.raises(InputError, match=r"teacher\.path: has records of another version .*\(got format 1\)"):
        teacher_identity(TeacherSection(path=str(folder)), {}, "float32")
