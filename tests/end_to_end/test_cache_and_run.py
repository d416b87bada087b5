"""`mta cache` and `mta run` with one another: key layers that are measured, settings that change, absent weights."""

from __future__ import annotations

import shutil

import pytest
from click.testing import CliRunner

from mta_framework.cli import main
from mta_framework.errors import InputError, RunError
from mta_framework.models import run_models
from mta_framework.registry import discover
from mta_framework.runs import pipeline, teacher_setup
from mta_framework.runs.plugin_binding import bind
from mta_framework.runs.resume import require_same

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("trained_teacher", "no_page")]
MEASURED = {"name": "cka", "params": {"texts": 12}}


@pytest.fixture
def bound(spec_dict, write_spec):
    """Binds the spec of a short run, with some fields changed."""

    def make(teacher=None, cache=None, **changes):
        training = {**spec_dict["training"], "max_steps": 2}
        sections = {"teacher": {**(teacher or spec_dict["teacher"]), "cache": cache}, "training": training}
        return bind(write_spec({**spec_dict, "evaluation": None, **sections, **changes}), discover())

    return make


def test_a_run_goes_by_the_cache_that_was_made_before_it_also_where_key_layers_are_measured(bound, spec_dict, capsys):
    run = bound(cache={}, alignment={**spec_dict["alignment"], "layers": MEASURED})
    ((folder, made),) = pipeline.make_cache(run).values()
    assert made
    assert not run.spec.folder.exists()
    assert list((folder / "layers").glob("*.json"))
    pipeline.run(run)
    assert pipeline.make_cache(run) == {"teacher": (folder, 0)}


def test_a_run_without_room_for_its_cache_ends_before_the_teacher_is_loaded(bound, monkeypatch):
    run, usage = bound(cache={}), shutil.disk_usage(".")
    needed = pipeline.plan(run).teacher_caches["teacher"].missing_bytes
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=needed - 1))
    monkeypatch.setattr(run_models, "load_teacher", None)
    assert pipeline.plan(run).teacher_caches["teacher"].free_bytes == needed - 1
    with pytest.raises(RunError, match=r"needs [\d,]+ MiB more, and [\d,]+ MiB are free on its disk\. Make room"):
        pipeline.make_cache(run)


def test_seeds_share_the_similarity_of_layers_where_student_and_texts_are_the_same(bound, spec_dict, monkeypatch):
    layers = {"name": "cka", "params": {"texts": 1000}}  # more than there are
    changes = {"alignment": {**spec_dict["alignment"], "layers": layers}, "student": {"teacher_layers": [1, 2, 4]}}
    measured, compare = [], teacher_setup.similarity

    def counted(*arguments):
        measured.append(arguments)
        return compare(*arguments)

    monkeypatch.setattr(teacher_setup, "similarity", counted)
    for seed in (1, 2):
        pipeline.make_cache(bound(cache={}, seed=seed, **changes))
    assert len(measured) == 1


def test_whatever_check_deletes_is_made_anew_by_the_next_run(bound, spec_dict, tmp_path):
    run = bound(cache={}, alignment={**spec_dict["alignment"], "layers": MEASURED})
    ((folder, _),) = pipeline.make_cache(run).values()
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.suffix != ".arrow")
    for pattern in ("*.json", "*.safetensors", "layers/*.json", "records/*/kind.json", "records/final*/*.arrow"):
        for path in folder.glob(pattern):
            path.write_bytes(path.read_bytes()[:-2])
    check = ["cache", "check", "--folder", str(folder.parent)]
    assert CliRunner().invoke(main, [*check, "--delete"]).exit_code == 0
    assert CliRunner().invoke(main, check).output == f"{folder.parent}: 0 damaged files.\n"
    assert not list(folder.glob("records/*/kind.json"))
    ((_, made),) = pipeline.make_cache(run).values()
    assert made
    assert sorted(path.relative_to(folder) for path in folder.rglob("*") if path.suffix != ".arrow") == files
    assert CliRunner().invoke(main, check).output == f"{folder.parent}: 0 damaged files.\n"
    assert pipeline.make_cache(run) == {"teacher": (folder, 0)}


@pytest.mark.parametrize(("before", "after"), [(None, {"layer_states": "8bit"}), ({"layer_states": "8bit"}, None)])
def test_a_run_is_not_resumed_with_states_of_layers_in_8_bits(before, after, bound):
    pipeline.run(bound(cache=before))
    with pytest.raises(InputError, match=r"^teacher\.cache\.layer_states: is not what the run in "):
        require_same(bound(cache=after))
    require_same(bound(cache=before and {**before, "path": "elsewhere"}))


def test_what_needs_weights_is_refused_at_once_where_the_teacher_has_none(bound, spec_dict, tmp_path):
    ((folder, _),) = pipeline.make_cache(bound(cache={})).values()
    moved = tmp_path / "elsewhere" / "renamed"
    shutil.copytree(folder, moved)
    shutil.rmtree(folder.parent)
    teacher = {"path": str(moved)}
    pipeline.run(bound(teacher, {}, name="by-the-copy"))
    with pytest.raises(InputError, match=r"needed for every step, without teacher\.cache"):
        pipeline.plan(bound(teacher, None, name="live"))
    evaluation = {**spec_dict["evaluation"], "models": ["student", "teacher"]}
    with pytest.raises(InputError, match=r"teacher\.path: has no weights, which are needed for its own evaluation"):
        pipeline.plan(bound(teacher, {}, name="evaluated", evaluation=evaluation))
