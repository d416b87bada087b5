from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mta_framework import InputError
from mta_framework.registry import describe, discover, noun_of

GOOD = '''
from mta_framework import BaseLoss, hookimpl

class Plain(BaseLoss):
    """Nothing, plainly.

    More lines.
    """

    NAME = "plain"

    def compute(self, student, teacher, batch, progress):
        return ()

@hookimpl
def mta_register_base_losses():
    return [Plain]
'''

Install = Callable[[str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts a distribution with one module and an entry point on the path."""
    monkeypatch.syspath_prepend(str(tmp_path))
    modules = set(sys.modules)

    def put(name: str, source: str) -> None:
        module = name.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[mta_framework]\n{module} = {module}\n")

    yield put
    for module in set(sys.modules) - modules:
        if module.startswith("mta_t_"):
            del sys.modules[module]


def reasons(provider: str) -> list[str]:
    return [failure.reason for failure in discover().failures if failure.provider.startswith(provider)]


def test_an_installed_distribution_is_found_with_its_version(install: Install) -> None:
    install("mta-t-good", GOOD)
    registered = discover().find("base_losses", "plain", "base_loss.name")
    assert registered.provider == "mta-t-good 1.0 (mta_t_good)"
    assert describe(registered.plugin) == "Nothing, plainly."


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import not_there_at_all", "ModuleNotFoundError: No module named 'not_there_at_all'"),
        ("def broken(:", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("class Odd(BaseException): ...\nraise Odd('no reason')", "Odd: no reason"),
        (
            "class Mute(Exception):\n    def __str__(self): raise self\nraise Mute",
            "Mute: a Mute without a readable message",
        ),
        ("x = 1", "it implements no hook"),
    ],
)
def test_a_provider_that_fails_to_import_is_named_and_the_others_are_there(
    install: Install, source: str, reason: str
) -> None:
    install("mta-t-bad", source)
    install("mta-t-good", GOOD)
    assert reasons("mta-t-bad 1.0")[0].startswith(reason)
    assert "plain" in discover().names("base_losses")


def test_a_misspelt_hook_is_named_with_the_right_one_and_the_rest_is_registered(install: Install) -> None:
    install("mta-t-bad", GOOD + "\n@hookimpl\ndef mta_register_metric():\n    return []\n")
    assert reasons("mta-t-bad") == ["mta_register_metric is not a hook. Did you mean 'mta_register_metrics'?"]
    assert "plain" in discover().names("base_losses")


def test_a_hook_without_its_mark_is_named(install: Install) -> None:
    install("mta-t-bad", GOOD.replace("@hookimpl\n", ""))
    assert reasons("mta-t-bad") == ["mta_register_base_losses is not marked @hookimpl"]


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ("def compute", "def comput", "base_losses: Plain does not define compute"),
        ('NAME = "plain"', "", "base_losses: Plain.NAME must be lower case letters, digits and _ (got None)"),
        (
            'NAME = "plain"',
            'NAME, PACKAGES = "plain", "a"',
            "base_losses: Plain.PACKAGES must be a tuple of names of distributions",
        ),
        ('"plain"', '"Plain!"', "base_losses: Plain.NAME must be lower case letters, digits and _ (got 'Plain!')"),
        ("    NAME", "    Params = dict\n    NAME", "base_losses: Plain.Params must derive from PluginParams"),
        ("[Plain]", "[int]", "base_losses: <class 'int'> is not a subclass of BaseLoss"),
        ("[Plain]", "Plain", "mta_register_base_losses: TypeError: "),
        ("return [Plain]", "raise OSError('disk')", "mta_register_base_losses: OSError: disk"),
    ],
)
def test_a_broken_class_is_named_with_what_it_lacks(install: Install, before: str, after: str, reason: str) -> None:
    install("mta-t-bad", GOOD.replace(before, after))
    (given,) = reasons("mta-t-bad")
    assert given.startswith(reason)


def test_a_span_extractor_needs_a_version(install: Install) -> None:
    source = GOOD.replace("BaseLoss", "SpanExtractor").replace("base_losses", "span_extractors")
    methods = "    granularities = ()\n    def extract(self, texts):"
    install("mta-t-bad", source.replace("    def compute(self, student, teacher, batch, progress):", methods))
    (given,) = reasons("mta-t-bad")
    assert "Plain.VERSION must be a string" in given


def test_a_name_with_two_providers_is_refused_naming_both(install: Install) -> None:
    install("mta-t-one", GOOD)
    install("mta-t-two", GOOD)
    with pytest.raises(InputError) as refusal:
        discover().find("base_losses", "plain", "base_loss.name")
    assert "mta-t-one 1.0 (mta_t_one) and mta-t-two 1.0 (mta_t_two)" in str(refusal.value)


def test_an_unknown_name_gets_the_nearest_and_the_providers_that_failed(install: Install) -> None:
    install("mta-t-good", GOOD)
    install("mta-t-bad", "raise ValueError('oh')")
    with pytest.raises(InputError) as refusal:
        discover().find("base_losses", "plan", "base_loss.name")
    message = str(refusal.value)
    assert message.startswith(
        "base_loss.name: no base loss is called 'plan'; expected one of the installed base losses: "
    )
    assert "Did you mean 'plain'?" in message
    assert "mta-t-bad 1.0 (mta_t_bad) could not be loaded (ValueError: oh): see `mta plugins`." in message


def test_a_plugin_file_is_loaded_once_however_often_it_is_named(tmp_path: Path) -> None:
    path = tmp_path / "my_loss.py"
    path.write_text(GOOD)
    registered = discover([path, tmp_path / "." / "my_loss.py"]).find("base_losses", "plain", "x")
    assert registered.provider == str(path)


def test_classes_of_plugin_files_can_be_pickled_by_reference(tmp_path: Path) -> None:
    path = tmp_path / "my_loss.py"
    path.write_text(GOOD)
    plugin = discover([path]).find("base_losses", "plain", "x").plugin
    assert getattr(sys.modules[plugin.__module__], plugin.__qualname__) is plugin


@pytest.mark.parametrize(
    ("name", "source", "reason"),
    [
        ("none.py", None, "no such file"),
        ("broken.py", "def broken(:", "SyntaxError"),
        ("notes.txt", "words", "does not end in .py"),
        ("misspelt.py", GOOD.replace("base_losses", "base_lossez"), "Did you mean 'mta_register_base_losses'?"),
    ],
)
def test_a_plugin_file_that_cannot_be_loaded_is_a_fault(
    tmp_path: Path, name: str, source: str | None, reason: str
) -> None:
    path = tmp_path / name
    if source is not None:
        path.write_text(source)
    modules = set(sys.modules)
    with pytest.raises(InputError) as refusal:
        discover([path])
    (fault,) = refusal.value.faults
    assert fault.where == f"-p {path}"
    assert reason in fault.problem
    assert not {module for module in set(sys.modules) - modules if "broken" in module}


def test_families_have_names_for_sentences() -> None:
    assert [noun_of(family) for family in ("base_losses", "span_extractors", "metrics")] == [
        "base loss",
        "span extractor",
        "metric",
    ]
