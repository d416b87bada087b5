from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mta_framework import InputError
from mta_framework.interfaces import Plugin
from mta_framework.registry import describe, discover, missing_fault, noun_of

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
            "base_losses: Plain.PACKAGES must be a valid tuple (got 'a')",
        ),
        (
            'NAME = "plain"',
            'NAME, PACKAGES = "plain", ("torch", 2)',
            "base_losses: Plain.PACKAGES[1] must be a valid string (got 2)",
        ),
        (
            'NAME = "plain"',
            'NAME, NEEDS_TEACHER = "plain", None',
            "base_losses: Plain.NEEDS_TEACHER must be a valid boolean (got None)",
        ),
        ('"plain"', '"Plain!"', "base_losses: Plain.NAME must be lower case letters, digits and _ (got 'Plain!')"),
        ("    NAME", "    Params = dict\n    NAME", "base_losses: Plain.Params must derive from PluginParams"),
        (
            "    NAME",
            "    Params = type('Params', (BaseLoss.Params,), {}, extra='ignore')\n    NAME",
            "base_losses: Plain.Params must not accept unknown options",
        ),
        ("[Plain]", "[int]", "base_losses: <class 'int'> is not a subclass of BaseLoss"),
        ("[Plain]", "Plain", "mta_register_base_losses: TypeError: it returned the class Plain; expected a list"),
        ("return [Plain]", "[Plain]", "mta_register_base_losses: TypeError: it returned None; expected a list"),
        ("return [Plain]", "return 3", "mta_register_base_losses: TypeError: 'int' object is not iterable"),
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
    assert given == "span_extractors: Plain.VERSION must be a valid string (got None)"


METRIC = (
    GOOD.replace("BaseLoss", "Metric")
    .replace("base_losses", "metrics")
    .replace("compute(self, student, teacher, batch, progress)", "score(self, generations)")
)


@pytest.mark.parametrize(
    ("attribute", "requirement"),
    [
        ("MEAN = 'harmonic'", "must be 'arithmetic' or 'geometric' (got 'harmonic')"),
        ("HIGHER_IS_BETTER = None", "must be a valid boolean (got None)"),
        ("HIGHER_IS_BETTER = 1", "must be a valid boolean (got 1)"),
        ("NEEDS_LIKELIHOODS = 'yes'", "must be a valid boolean (got 'yes')"),
        ("HUB_NAME = 3", "must be a valid string (got 3)"),
    ],
)
def test_an_attribute_of_a_metric_that_no_table_can_show_is_named(
    install: Install, attribute: str, requirement: str
) -> None:
    install("mta-t-bad", METRIC.replace("    NAME", f"    {attribute}\n    NAME"))
    assert reasons("mta-t-bad") == [f"metrics: Plain.{attribute.split()[0]} {requirement}"]


OPTIONS = """
    class Params(PluginParams):
        {option}

    NAME"""


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("count: 'Path'", "Plain.Params has no JSON schema (PydanticUserError: "),
        ("choose: Callable[[int], int]", "Plain.Params has no JSON schema (PydanticInvalidForJsonSchema: "),
        ("what: Any = object()", "Plain.Params has no JSON schema (PydanticJsonSchemaWarning: "),
        ("count: int = Field('x')", "the default of Plain.Params.count must be a valid integer, unable"),
        (
            "count: int = Field(-1, ge=0)",
            "the default of Plain.Params.count must be greater than or equal to 0 (got -1)",
        ),
        ("counts: list[int] = [1, None]", "the default of Plain.Params.counts.1 must be a valid integer (got None)"),
    ],
)
def test_options_that_a_spec_could_not_hold_are_named_in_one_line_and_disable_no_other_plugin(
    install: Install, option: str, reason: str
) -> None:
    header = "from collections.abc import Callable\nfrom typing import Any\nfrom pydantic import Field\n"
    source = GOOD.replace("\n    NAME", OPTIONS.format(option=option)).replace(
        "import BaseLoss", "import PluginParams, BaseLoss"
    )
    install("mta-t-bad", header + source)
    install("mta-t-good", GOOD)
    (given,) = reasons("mta-t-bad")
    assert given.startswith(f"base_losses: {reason}")
    assert "\n" not in given
    assert "http" not in given
    assert discover().find("base_losses", "plain", "x").provider.startswith("mta-t-good")


@pytest.mark.parametrize(
    "option",
    [
        "count: int",
        "counts: tuple[int, ...] = ()",
        "counts: list[int] = Field(default_factory=list)",
        "count: int = Field(2, alias='number')",
    ],
)
def test_options_with_sound_defaults_or_none_are_registered(install: Install, option: str) -> None:
    source = GOOD.replace("\n    NAME", OPTIONS.format(option=option)).replace(
        "import BaseLoss", "import PluginParams, BaseLoss"
    )
    install("mta-t-good", "from pydantic import Field\n" + source)
    assert reasons("mta-t-good") == []
    assert "plain" in discover().names("base_losses")


def test_a_class_that_is_returned_twice_counts_once(install: Install) -> None:
    install("mta-t-good", GOOD.replace("[Plain]", "[Plain, Plain]"))
    assert discover().find("base_losses", "plain", "x").plugin.__name__ == "Plain"


def test_two_classes_of_one_name_in_one_provider_are_named_without_advice_to_uninstall_it(install: Install) -> None:
    install("mta-t-bad", GOOD.replace("[Plain]", "[Plain, type('Other', (Plain,), {})]"))
    with pytest.raises(InputError) as refusal:
        discover().find("base_losses", "plain", "x")
    (fault,) = refusal.value.faults
    assert "is called 'plain' (Plain and Other of mta-t-bad 1.0 (mta_t_bad))" in fault.problem
    assert fault.hint == "Rename one of them."


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


def test_what_is_kept_of_a_plugin_file_is_not_used_after_the_file_changed(tmp_path: Path) -> None:
    path = tmp_path / "my_spans.py"
    source = """
from mta_framework import SpanExtractor, hookimpl

class Lines(SpanExtractor):
    NAME = "lines"
    VERSION = "1"
    granularities = ("words",)

    def extract(self, texts):
        return [{"words": []} for _ in texts]

@hookimpl
def mta_register_span_extractors():
    return [Lines]
"""

    def fingerprint(text: str) -> str:
        path.write_text(text)
        return discover([path]).create("span_extractors", "lines").fingerprint()

    first = fingerprint(source)
    assert fingerprint(f"{source}# corrected\n") != first
    assert fingerprint(source) == first
    assert "file" not in discover().create("span_extractors", "words").fingerprint()


def test_an_option_for_a_batch_policy_of_another_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "my_loss.py"
    path.write_text("""
from pydantic import Field
from mta_framework import BaseLoss, PluginParams
from mta_framework.batch_policies import Batches, FixedBatches

class Mine(BaseLoss):
    NAME = "mine"

    class Params(PluginParams):
        policy: Batches = Field(FixedBatches(), description="Texts.")
""")
    with pytest.raises(InputError, match=r"Mine.Params: a batch policy's option must be called batches \(got policy\)"):
        discover([path])


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


def made(install: Install, method: str) -> object:
    """A plugin whose class has one more method."""
    install("mta-t-good", GOOD + f"\n{method}\n")
    return discover().create("base_losses", "plain")


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("pass", "plain of mta-t-good 1.0 (mta_t_good) does not keep its options; expected an __init__ that calls"),
        ("raise ValueError('needs a licence')", "plain cannot be created (got ValueError: needs a licence)"),
    ],
)
def test_a_plugin_whose_init_fails_or_forgets_its_base_class_is_named_when_it_is_created(
    install: Install, body: str, problem: str
) -> None:
    with pytest.raises(InputError) as refusal:
        made(install, f"def init(self, params): {body}\nPlain.__init__ = init")
    assert str(refusal.value).startswith(f"plain: {problem}")


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("import not_there", r"require\(\) of plain failed \(ModuleNotFoundError: .*, in mta_t_good.py:\d+\)"),
        ("return True", r"require\(\) of plain returned something else \(got True\)"),
        ("return 'Install it.'", "plain cannot run here"),
    ],
)
def test_what_a_plugin_lacks_or_fails_to_say_is_a_fault_that_names_it(
    install: Install, body: str, problem: str
) -> None:
    plugin = made(install, f"def require(self):\n    {body}\nPlain.require = require")
    assert isinstance(plugin, Plugin)
    fault = missing_fault(plugin, "base_loss")
    assert fault is not None
    assert fault.where == "base_loss"
    assert re.fullmatch(problem, fault.problem)


def test_a_plugin_that_lacks_nothing_has_no_fault(install: Install) -> None:
    plugin = made(install, "")
    assert isinstance(plugin, Plugin)
    assert missing_fault(plugin, "base_loss") is None
