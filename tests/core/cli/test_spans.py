"""``mta spans``: texts with brackets under them, statistics, weights of the teacher, and the page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

Mta = Callable[..., Result]
Write = Callable[..., Path]

PLUGINS = '''
from mta_framework import RunError, SpanExtractor, hookimpl


class Vowels(SpanExtractor):
    """Vowels, and runs of letters; cannot parse what is in braces."""

    NAME = "vowels_test"
    VERSION = "1"

    @property
    def granularities(self):
        return ("words", "phrases")

    def extract(self, texts):
        import re

        return [
            {
                "words": [found.span() for found in re.finditer("[aeiou]", text)],
                "phrases": [found.span() for found in re.finditer("[a-z]+", text)],
            }
            for text in texts
        ]

    def failures(self, texts):
        if any("explode" in text for text in texts):
            raise ValueError("no patience")
        return [text.count("{") for text in texts]


@hookimpl
def mta_register_span_extractors():
    return [Vowels]
'''


@pytest.fixture
def plugin_file(tmp_path: Path) -> Path:
    path = tmp_path / "plugins.py"
    path.write_text(PLUGINS)
    return path


@pytest.fixture
def spec(spec_dict: dict[str, Any], write_spec: Write) -> Path:
    spec_dict["alignment"]["spans"] = {"name": "vowels_test"}
    return write_spec(spec_dict)


def test_a_text_is_shown_with_brackets_of_every_granularity(mta: Mta, spec: Path) -> None:
    result = mta("spans", spec, "--text", "so a\nbee")
    assert result.stderr == ""
    assert result.stdout.splitlines() == [
        "text 1",
        "         so a↵",
        "words     ┴ ┴",
        "phrases  ╰╯ ┴",
        "         bee",
        "words     ┴┴",
        "phrases  ╰─╯",
        "",
        "spans    number  per text  characters in them  texts without",
        "words         4       4.0               50.0%       0 (0.0%)",
        "phrases       3       3.0               75.0%       0 (0.0%)",
        "",
        "Counted over 1 text.",
        "Everything could be parsed.",
        result.stdout.splitlines()[-1],
    ]
    assert result.stdout.splitlines()[-1].startswith("Parsing: ")


def test_segments_that_could_not_be_parsed_are_counted(mta: Mta, spec: Path) -> None:
    result = mta("spans", spec, "--text", "a {b} {c}")
    assert "Could not be parsed and have no spans: 2 segments in 1 text." in result.stdout


def test_an_extractor_that_fails_to_count_is_named(mta: Mta, spec: Path) -> None:
    result = mta("spans", spec, "--text", "explode")
    assert result.exit_code == 1
    assert "span extractor 'vowels_test' failed (ValueError: no patience" in result.stderr


def test_the_first_texts_of_the_training_set_are_shown_and_counted(mta: Mta, spec: Path) -> None:
    result = mta("spans", spec, "--limit", 2)
    assert [line for line in result.stdout.splitlines() if line.startswith("text ")] == ["text 1", "text 2"]
    assert "Say what the old keeper did." in result.stdout
    assert "Counted over 2 texts." in result.stdout


def test_all_counts_the_whole_training_set_and_leaves_its_spans_in_the_cache(
    mta: Mta, spec: Path, spec_dict: dict[str, Any], tmp_path: Path
) -> None:
    result = mta("spans", spec, "--limit", 1, "--all", "--set", "data.cache_dir=cache")
    assert "Counted over 36 texts." in result.stdout
    assert "text 2" not in result.stdout
    assert list((tmp_path / "cache").glob("vowels_test-*/*.arrow"))


def test_all_asks_once_what_cannot_be_parsed_and_never_again(
    mta: Mta, spec: Path, plugin_file: Path, tmp_path: Path
) -> None:
    asked = tmp_path / "asked"
    note = f"        open({str(asked)!r}, 'a').write('x' * len(texts))\n"
    plugin_file.write_text(PLUGINS.replace("        return [text.count", f"{note}        return [text.count"))
    for _ in range(2):
        assert "Counted over 36 texts." in mta("spans", spec, "--all").stdout
        assert len(asked.read_text()) <= 36


def test_fields_are_parsed_for_themselves_where_the_spec_says_so(mta: Mta, spec: Path) -> None:
    whole = mta("spans", spec, "--limit", 3, "--set", "data.parse=fields")
    assert "Counted over 3 texts." in whole.stdout


def test_tokens_begin_where_the_students_tokenizer_says(mta: Mta, spec: Path, tokenizer_folder: Path) -> None:
    from transformers import AutoTokenizer

    text = "The old keeper"
    result = mta("spans", spec, "--text", text, "--tokens")
    offsets = AutoTokenizer.from_pretrained(tokenizer_folder)(text, return_offsets_mapping=True)["offset_mapping"]
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("tokens "))
    starts = {start for start, _ in offsets}
    assert line[len("phrases  ") :] == "".join("|" if index in starts else " " for index in range(len(text))).rstrip()
    assert "tokens in them" in result.stdout


def test_tokens_in_spans_are_those_that_training_takes(mta: Mta, spec: Path, tokenizer_folder: Path) -> None:
    def counted(rule: str) -> str:
        settings = f"data.leading_character={rule}", 'alignment.spans={"name": "math"}'
        overrides = [part for setting in settings for part in ("--set", setting)]
        result = mta("spans", spec, "--text", "The old (keeper) has (been)", "--tokens", *overrides)
        return next(line for line in result.stdout.splitlines() if line.startswith("words ") and "%" in line)

    assert counted("any") != counted("space")


def test_weights_need_a_teacher_that_is_there(mta: Mta, spec: Path) -> None:
    result = mta("spans", spec, "--importance", "--limit", 1)
    assert result.exit_code == 2
    assert "teacher.run: has not been trained yet" in result.stderr


@pytest.fixture
def with_teacher(
    spec: Path, spec_dict: dict[str, Any], write_spec: Write, tmp_path: Path, tokenizer_folder: Path
) -> Path:
    """The same with a tiny teacher in a folder."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(**shape, vocab_size=len(tokenizer))).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    spec_dict["teacher"] = {"path": str(tmp_path / "model")}
    return write_spec(spec_dict)


def test_weights_are_shades_of_the_teachers_tokens(mta: Mta, with_teacher: Path) -> None:
    result = mta("spans", with_teacher, "--text", "The old keeper sold a lamp.", "--importance")
    assert result.exit_code == 0, result.stderr
    shades = [line for line in result.stdout.splitlines() if " weight " in line]
    assert [line.split()[0] for line in shades] == ["words", "phrases"]
    assert all("█" in line and set(line.split("weight")[1]) <= set(" ░▒▓█") for line in shades)


def test_key_layers_that_are_yet_to_be_measured_cannot_weigh(mta: Mta, with_teacher: Path) -> None:
    measured = ("--set", 'alignment.layers={"name": "cka"}')
    result = mta("spans", with_teacher, "--text", "The old lamp", "--importance", *measured)
    assert result.exit_code == 2
    assert "alignment.layers: are measured when training starts (got cka" in result.stderr


def test_weights_of_the_page_are_those_of_the_estimator(with_teacher: Path) -> None:
    """A uniform estimator weighs all tokens alike: every character of a token has weight 1."""
    from mta_framework.inspection.inspection import inspect
    from mta_framework.registry import discover
    from mta_framework.runs.plugin_binding import bind

    overrides = ('alignment.spans={"name": "spacy_phrases"}', 'alignment.importance={"name": "uniform"}')
    inspection = inspect(bind(with_teacher, discover(), overrides), text="The old keeper", importance=True)
    assert inspection.texts[0].weights == {"words": [1.0] * 14, "phrases": [1.0] * 14}


def test_the_page_is_written_in_one_go(mta: Mta, spec: Path, tmp_path: Path) -> None:
    result = mta("spans", spec, "--limit", 2, "--html", "out/page.html")
    assert result.stdout == "Written: out/page.html\n"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["page.html"]
    assert "Say what the old keeper did." not in result.stdout


def test_a_page_that_cannot_be_written_is_a_failure_with_its_name(mta: Mta, spec: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = mta("spans", spec, "--text", "a", "--html", "file/page.html")
    assert result.exit_code == 1
    assert "cannot write to file/page.html (File exists); name another file for --html" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--text", ""], "--text: is empty (got '')"),
        (["--text", "a\udce9"], "--text: is not valid UTF-8"),
        (["--set", "alignment=null"], "alignment: must be given to find spans (got null)"),
        (["--text", "a", "--limit", "2"], "--limit and --all have no effect with --text"),
        (["--text", "a", "--all"], "--limit and --all have no effect with --text"),
        (["--limit", "0"], "0 is not in the range"),
    ],
)
def test_what_makes_no_sense_is_refused(mta: Mta, spec: Path, arguments: list[str], message: str) -> None:
    result = mta("spans", spec, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_spec_without_alignment_is_reported_to_add_one(
    mta: Mta, spec_dict: dict[str, Any], write_spec: Write
) -> None:
    spec_dict["alignment"] = None
    result = mta("spans", write_spec(spec_dict), "--text", "a")
    assert result.exit_code == 2
    assert "alignment: must be given" in result.stderr
