"""``mta cache list``, ``check`` and ``prune``: what is there, what is damaged, and nothing deleted that is in use."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from dataclasses import dataclass

import pytest
from click.testing import CliRunner
from filelock import FileLock
from tiny_models import byte_tokenizer, tiny_model

from mta_framework.cli import main
from mta_framework.runs import pipeline
from mta_framework.teacher_cache.kept_similarity import kept_similarity
from mta_framework.teacher_cache.store import RecordStore
from mta_framework.teacher_cache.teacher_files import save_teacher
from mta_framework.teacher_cache.teacher_identity import TeacherIdentity
from mta_framework.types import LayerSimilarity

from .records import data, rows, shards

DAY = 86_400
SET = ("--set", "seed=7")


@dataclass(frozen=True)
class Described:
    """A kind of records with the description of a real one."""

    quantity: str
    layer: int = 0
    granularity: str = ""
    bits: int = 16

    @property
    def description(self):
        return {"quantity": self.quantity, "layer": self.layer, "granularity": self.granularity, "bits": self.bits}

    @property
    def folder_name(self):
        digest = hashlib.sha256(json.dumps(self.description, sort_keys=True).encode()).hexdigest()
        return f"{self.quantity}-{digest[:16]}"


FINAL, COSINES = Described("final_states"), Described("geometry", 24, "phrases", 8)


@pytest.fixture
def cache(tmp_path):
    """Two teachers; the first has two kinds of records and a similarity of layers, the second one kind."""
    folder = tmp_path / "cache"
    for name, kinds in (("some/first", (FINAL, COSINES)), ("some/second", (FINAL,))):
        identity = TeacherIdentity(name, {"format": 1, "name": name, "dtype": "float32"})
        save_teacher(folder / identity.folder_name, identity, tiny_model("llama"), byte_tokenizer())
        for kind in kinds:
            RecordStore(folder / identity.folder_name, kind).add(rows(0, 3, size=2000))
    first = next(folder.glob("first-*"))
    kept_similarity(first, {"student": "x"}, [], lambda: LayerSimilarity(((0.5,),), ((1.0,),)))
    RecordStore(first, FINAL).add(rows(2, 5))  # one of them twice
    return folder


def mta(*arguments, input=None):
    done = CliRunner().invoke(main, ["cache", *map(str, arguments)], input=input)
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return done


def folders(cache):
    return sorted(path.relative_to(cache).as_posix() for path in cache.rglob("*") if path.is_dir())


def of(cache, teacher, kind=None):
    folder = next(cache.glob(f"{teacher}-*"))
    return folder if kind is None else folder / "records" / kind.folder_name


def age(folder, days):
    for path in folder.rglob("*"):
        os.utime(path, (time.time() - days * DAY,) * 2)


def flip(path, offset):
    content = bytearray(path.read_bytes())
    content[offset] ^= 0x10
    path.write_bytes(content)


def test_list_shows_teachers_what_is_kept_in_words_texts_size_and_last_use(cache):
    age(of(cache, "first", COSINES), 40)
    done = mta("list", "--folder", cache)
    assert done.exit_code == 0
    lines = done.output.splitlines()
    today, earlier = (time.strftime("%Y-%m-%d", time.localtime(time.time() - days * DAY)) for days in (0, 40))
    assert re.search(rf"^some/first, float32 +\d.* [KM]iB +{today}", lines[1])
    assert re.search(rf"^  final states at supervised positions +5 .* KiB +{today}", lines[2])
    assert re.search(rf"^  cosines of spans of layer 24, phrases, in 8 bits +3 .* KiB +{earlier}", lines[3])
    assert lines[4].startswith("some/second, float32 ")
    assert f"in {cache}." in lines[-1]


def test_the_folder_is_given_or_named_by_a_spec(cache, spec_dict, write_spec, tmp_path):
    spec = write_spec({**spec_dict, "teacher": {"run": "teacher.json", "cache": {"path": str(cache)}}})
    assert "some/second" in mta("list", spec).output
    other = write_spec({**spec_dict, "output_dir": str(tmp_path / "out")}, "other.json")
    assert mta("list", other).output == f"{tmp_path / 'out' / 'teacher-cache'} holds no teacher.\n"
    assert mta("list").exit_code == mta("list", spec, "--folder", cache).exit_code == 2
    assert "--folder: is not a folder" in mta("check", "--folder", cache / "absent").output


def test_check_of_a_whole_cache_says_so(cache):
    done = mta("check", "--folder", cache)
    assert (done.exit_code, done.output) == (0, f"{cache}: 0 damaged files.\n")


@pytest.mark.parametrize(
    "name",
    ["head.safetensors", "tail.safetensors", "config.json", "tokenizer.json", "teacher.json", "files.json",
     "layers/*.json", "records/final*/*.arrow", "records/geometry*/*.arrow", "records/geometry*/kind.json"],
)  # fmt: skip
def test_check_names_each_damaged_file_and_removes_it_on_demand(cache, name):
    path = next(of(cache, "first").glob(name))
    content = path.read_bytes()
    for offset in (0, len(content) // 2, len(content) - 2):
        flip(path, offset)
        done = mta("check", "--folder", cache)
        assert done.exit_code == 1, offset
        # What a damaged manifest says of another file is that file's damage.
        assert str(path.parent if name == "files.json" else path) in done.output
        path.write_bytes(content)
    flip(path, len(content) // 2)
    assert mta("check", "--folder", cache, "--delete").exit_code == 0
    assert not path.exists()
    assert mta("check", "--folder", cache).output == f"{cache}: 0 damaged files.\n"


@pytest.mark.parametrize(
    "name", ["../../victim", "{outside}/victim", "", "records", "records/..", "link/victim", "link"]
)
def test_a_manifest_that_names_anything_else_than_files_of_its_folder_deletes_nothing_but_itself(cache, tmp_path, name):
    folder = next(cache.glob("first-*"))
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "file").write_text("kept")
    (folder / "link").symlink_to(tmp_path)
    manifest = json.loads((folder / "files.json").read_text())
    manifest[name.format(outside=tmp_path)] = {"bytes": 1, "sha256": "0" * 64}
    (folder / "files.json").write_text(json.dumps(manifest))
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    done = mta("check", "--folder", cache, "--delete")
    assert "no file in this folder" in done.output
    assert before - {path for path in tmp_path.rglob("*") if path.is_file()} == {
        folder / "files.json",
        folder / "teacher.json",
    }
    assert mta("check", "--folder", cache).exit_code == 0


def test_the_folder_of_one_teacher_is_checked_as_the_cache_is(cache):
    folder = next(cache.glob("first-*"))
    damaged = next(folder.rglob("*.arrow"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert damaged.name in mta("check", "--folder", folder).output
    assert "some/first" in mta("list", "--folder", folder).output


def test_files_that_are_missing_are_damage_until_nothing_stands_for_them(cache):
    folder = of(cache, "first")
    (folder / "head.safetensors").unlink()
    assert f"{folder / 'head.safetensors'}: is missing" in mta("check", "--folder", cache).output
    assert mta("check", "--folder", cache, "--delete").exit_code == 0
    assert not (folder / "teacher.json").exists()
    assert (folder / "config.json").exists()
    assert mta("check", "--folder", cache).exit_code == 0
    (of(cache, "second") / "files.json").unlink()
    assert f"{of(cache, 'second') / 'files.json'}: is missing" in mta("check", "--folder", cache).output


def test_records_whose_teacher_was_not_written_yet_are_whole(cache):
    folder = of(cache, "second")
    for path in folder.iterdir():
        if path.is_file():
            path.unlink()
    assert mta("check", "--folder", cache).output == f"{cache}: 0 damaged files.\n"


def test_check_finds_a_damaged_key_and_what_killed_processes_left(cache):
    path = shards(of(cache, "second"))[0]
    flip(path, path.read_bytes().index(data(0)) - 150)
    leftover = of(cache, "second", FINAL) / ".killed.part"
    leftover.write_bytes(b"half")
    (cache / ".third.partial").mkdir()
    assert mta("check", "--folder", cache).output.count("damaged file") == 1
    for old in (leftover, cache / ".third.partial"):
        os.utime(old, (0, 0))
    done = mta("check", "--folder", cache)
    assert f"{leftover}: was left by a process that was killed" in done.output
    assert "3 damaged files." in done.output
    assert mta("check", "--folder", cache, "--delete").output.endswith("3 damaged files deleted.\n")
    assert mta("check", "--folder", cache).exit_code == 0


def test_check_finds_what_killed_processes_left_below_the_folder_of_a_teacher(cache):
    kind = of(cache, "second") / "records" / ".kind.0123.partial"
    layers = of(cache, "first") / "layers" / ".similarity.json.0123.part"
    kind.mkdir()
    layers.write_bytes(b"half")
    for old in (kind, layers):
        os.utime(old, (0, 0))
    done = mta("check", "--folder", cache, "--delete")
    assert all(f"{old}: was left by a process that was killed" in done.output for old in (kind, layers))
    assert not kind.exists()
    assert not layers.exists()


@pytest.mark.parametrize("text", ["", "[]", "{}", "\x00", '{"quantity": [1]}', "[" * 100_000])
def test_descriptions_that_are_damaged_are_no_tracebacks(cache, text):
    (of(cache, "first") / "teacher.json").write_text(text)
    (of(cache, "first", COSINES) / "kind.json").write_text(text)
    done = mta("list", "--folder", cache)
    assert done.exit_code == 0
    assert "(no intact teacher.json)" in done.output
    assert f"  {COSINES.folder_name}" in done.output
    assert mta("check", "--folder", cache).exit_code == 1
    assert mta("prune", "--folder", cache, "--unused-for", "1").output == "Nothing to delete.\n"


def test_prune_by_age_shows_what_it_frees_and_asks(cache):
    age(of(cache, "first", COSINES), 40)
    age(of(cache, "second"), 40)
    before = folders(cache)
    done = mta("prune", "--folder", cache, "--unused-for", "30", input="n\n")
    assert done.exit_code == 1
    assert of(cache, "second").name in done.output
    assert f"{of(cache, 'first').name}/records/{COSINES.folder_name}" in done.output
    assert re.search(r"Delete them, which frees \d.* KiB\? \[y/N\]", done.output)
    assert folders(cache) == before
    done = mta("prune", "--folder", cache, "--unused-for", "30", "--yes")
    assert done.exit_code == 0
    assert not list(cache.glob("*second*"))
    assert [path.name for path in (of(cache, "first") / "records").iterdir()] == [FINAL.folder_name]
    assert mta("check", "--folder", cache).exit_code == 0


def test_prune_by_name_deletes_that_teacher_alone(cache):
    done = mta("prune", "--folder", cache, "--teacher", "some/frist")
    assert done.exit_code == 2
    assert "Did you mean 'some/first'?" in done.output
    assert mta("prune", "--folder", cache, "--teacher", "some/first", "--unused-for", "1", "--yes").exit_code == 0
    assert list(cache.glob("first-*"))
    assert mta("prune", "--folder", cache, "--teacher", "some/first", input="y\n").exit_code == 0
    assert [path.name.partition("-")[0] for path in cache.iterdir()] == ["second"]
    assert "Give --unused-for" in mta("prune", "--folder", cache).output


def test_prune_leaves_what_a_process_is_filling(cache):
    before = folders(cache)
    (of(cache, "second", FINAL) / ".recent.part").write_bytes(b"half")
    with FileLock(of(cache, "first") / "filling.lock"):
        done = mta("prune", "--folder", cache, "--unused-for", "0", "--yes")
    assert done.output.count("is being filled, and is left as it is.") == 2
    assert folders(cache) == before


@pytest.mark.parametrize(
    "words", [("SPEC",), ("SPEC", *SET), (*SET, "SPEC"), ("make", "SPEC", *SET), ("make", *SET, "SPEC"),
              (*SET, "SPEC", "--set", "alignment=null")],
)  # fmt: skip
def test_options_stand_before_or_after_the_spec_whose_cache_is_made(words, spec_dict, write_spec, monkeypatch):
    made = []

    def make(bound):
        made.append(bound.spec)
        return {"teacher": (bound.spec.teacher_cache, 3)}

    monkeypatch.setattr(pipeline, "make_cache", make)
    spec = write_spec({**spec_dict, "alignment": None, "teacher": {"run": "teacher.json", "cache": {}}})
    done = mta(*(spec if word == "SPEC" else word for word in words))
    assert done.exit_code == 0, done.output
    assert done.output.startswith("The teacher was run on 3 texts.")
    assert [spec.seed for spec in made] == [1 if len(words) < 3 else 7]


@pytest.mark.parametrize("command", [["list"], ["check", "--delete"], ["prune", "--unused-for", "1", "--yes"]])
def test_commands_take_spec_and_options_in_any_order(command, cache, spec_dict, write_spec):
    spec, change = write_spec(spec_dict), ("--set", f'teacher.cache={{"path": "{cache}"}}')
    name, *options = command
    orders = (*options, spec, *change), (*change, spec, *options), (spec, *change, *options)
    outputs = [mta(name, *words).output for words in orders]
    assert outputs == [mta(name, *options, "--folder", cache).output] * 3
    assert "--set changes a spec" in mta(name, *options, "--folder", cache, *change).output


def test_help_names_the_commands_and_the_spec():
    for words in (["--help"], []):
        text = mta(*words).output
        assert re.search(r"Usage: .*cache \[OPTIONS\] SPEC \| COMMAND \[ARGS\]", text)
        assert all(name in text for name in ("make", "list", "check", "prune"))


def test_an_unknown_word_is_the_spec_whose_cache_is_made(tmp_path, spec_dict, write_spec):
    done = mta(tmp_path / "absent.json")
    assert done.exit_code == 2
    assert "absent.json: does not exist; expected a spec file" in done.output
    done = mta(write_spec({**spec_dict, "alignment": {"spans": {"name": "words"}}}), "--set", "alignment=null")
    assert done.exit_code == 2
    assert "teacher.cache: is null, so that the run keeps nothing; expected a section" in done.output
