"""Which changes make a metric score again: those of its code, wherever it lies."""

from __future__ import annotations

import importlib
import sys

import pytest

from mta_framework.evaluation import environment
from mta_framework.evaluation.metric_code import code_digest
from mta_framework.registry import discover

METRIC = '''
from mta_framework import Metric, ScoreSet, hookimpl

class Words(Metric):
    """Number of words."""

    NAME = "words_test"
    PACKAGES = ("pluggy",)

    def score(self, generations):
        from {module} import count

        return ScoreSet(tuple(count(text) for text in generations.predictions))

@hookimpl
def mta_register_metrics():
    return [Words]
'''
COUNT = "from split_test import split\n\ndef count(text):\n    return float(len(split(text)))\n"
SPLIT = "def split(text):\n    return text.split()\n"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with a metric, whose words are counted in a module of another folder."""
    folder = tmp_path / "mta_t_words"
    (folder / "texts").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "metric.py").write_text(METRIC.format(module="mta_t_words.texts.counting"))
    (folder / "texts" / "counting.py").write_text("def count(text):\n    return float(len(text.split()))\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "mta_t_words"]:
        del sys.modules[name]


def digest_in(folder):
    metric = importlib.import_module("mta_t_words.metric").Words
    return code_digest(metric(metric.Params()))


@pytest.mark.parametrize("name", ["metric.py", "__init__.py", "texts/counting.py"])
def test_a_change_of_any_module_of_a_package_changes_the_digest(package, name):
    before = digest_in(package)
    assert digest_in(package) == before
    with (package / name).open("a") as file:
        file.write("# corrected\n")
    assert digest_in(package) != before


def test_a_new_module_changes_the_digest_and_other_files_do_not(package):
    before = digest_in(package)
    (package / "notes.txt").write_text("Notes.")
    assert digest_in(package) == before
    (package / "more.py").write_text("")
    assert digest_in(package) != before


@pytest.fixture
def plugin_file(tmp_path):
    """A plugin file with a metric, which imports a file beside it that imports another."""
    path = tmp_path / "words_plugin.py"
    path.write_text(METRIC.format(module="count_test"))
    (tmp_path / "count_test.py").write_text(COUNT)
    (tmp_path / "split_test.py").write_text(SPLIT)
    (tmp_path / "unused_test.py").write_text("")
    return path


def digest_of(path):
    return code_digest(discover([path]).create("metrics", "words_test"))


@pytest.mark.parametrize("name", ["words_plugin.py", "count_test.py", "split_test.py"])
def test_a_change_of_a_plugin_file_or_of_what_it_imports_beside_it_changes_the_digest(plugin_file, name):
    before = digest_of(plugin_file)
    with plugin_file.with_name(name).open("a") as file:
        file.write("# corrected\n")
    assert digest_of(plugin_file) != before


def test_a_file_that_a_plugin_file_does_not_import_changes_nothing(plugin_file):
    before = digest_of(plugin_file)
    plugin_file.with_name("unused_test.py").write_text("VALUE = 1\n")
    assert digest_of(plugin_file) == before


def test_a_file_beside_a_plugin_file_that_is_no_python_counts_by_its_content(plugin_file):
    before = digest_of(plugin_file)
    plugin_file.with_name("split_test.py").write_text("def split(:")
    assert digest_of(plugin_file) != before


def test_a_plugin_file_in_another_folder_has_the_same_digest(plugin_file, tmp_path):
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("words_plugin.py", "count_test.py", "split_test.py"):
        (moved / name).write_text(plugin_file.with_name(name).read_text())
    assert digest_of(moved / "words_plugin.py") == digest_of(plugin_file)


def test_another_version_of_the_framework_or_of_a_package_of_the_metric_changes_the_digest(plugin_file, monkeypatch):
    digests = {digest_of(plugin_file)}
    for other in ("mta-framework", "pluggy"):

        def version(package, other=other):
            return "other" if package == other else "same"

        monkeypatch.setattr(environment, "version", version)
        digests.add(digest_of(plugin_file))
    assert len(digests) == 3


def test_a_metric_that_derives_from_one_of_another_package_depends_on_both(package, plugin_file):
    base = importlib.import_module("mta_t_words.metric").Words
    registered = discover([plugin_file]).find("metrics", "words_test", "x").plugin
    derived = type("Derived", (base,), {"__module__": registered.__module__})
    before = code_digest(derived(derived.Params()))
    for path in (package / "texts" / "counting.py", plugin_file):
        with path.open("a") as file:
            file.write("# corrected\n")
        after = code_digest(derived(derived.Params()))
        assert after != before
        before = after
