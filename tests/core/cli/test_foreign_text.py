"""Text of specs, models and libraries on the terminal: shown, never obeyed."""

from __future__ import annotations

import logging
import subprocess
import sys
import warnings

import pytest
from click.testing import CliRunner

from mta_framework.cli import main
from mta_framework.cli.group import say
from mta_framework.cli.visible_records import show_foreign_text

EVIL = "a\x1b[31m\x9b2J\r\u202eb\x07"
SHOWN = "a␛[31m\ufffd2J␍\ufffdb␇"


@pytest.fixture
def shown_foreign_text(monkeypatch):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    factory = logging.getLogRecordFactory()
    show_foreign_text()
    yield
    logging.setLogRecordFactory(factory)


def test_a_fault_shows_control_characters_of_the_spec_as_signs(mta, spec_file):
    spec_file.write_text(spec_file.read_text().replace('"name": "plain"', '"n\\u001b]0;x\\u0007\\u202e": 1'))
    done = mta("check", spec_file)
    assert done.exit_code == 2
    assert "n␛]0;x␇" in done.output
    assert not {"\x1b", "\x07", "\u202e", "\ud800"} & set(done.output)


def test_lines_are_printed_with_signs_unless_they_are_styled_on_purpose(capsys):
    say(EVIL)
    say("\x1b[1mbold\x1b[0m", styled=True)
    assert capsys.readouterr().out in {f"{SHOWN}\n\x1b[1mbold\x1b[0m\n", f"{SHOWN}\nbold\n"}


def test_a_command_prints_escapes_for_what_the_encoding_of_its_output_lacks(spec_file, plugin_file):
    arguments = ["-p", str(plugin_file), "check", str(spec_file), "--set", "output_dir=/±\u2212\u2020"]
    done = CliRunner(charset="latin-1").invoke(main, arguments)
    assert done.exit_code == 0, done.output
    assert "/±\\u2212\\u2020/plain" in done.stdout


def test_logs_of_any_library_show_control_characters_as_signs(shown_foreign_text, caplog):
    logging.getLogger("transformers.some.module").warning("unexpected key %s", EVIL)
    assert caplog.messages == [f"unexpected key {SHOWN}"]


def test_warnings_show_control_characters_as_signs(shown_foreign_text):
    assert SHOWN in warnings.formatwarning(EVIL, UserWarning, "file.py", 1)


def test_tracebacks_show_control_characters_as_signs():
    code = "from mta_framework.cli.visible_records import show_foreign_text as s; s(); raise ValueError('a\\x1b[2Jb')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.endswith("ValueError: a␛[2Jb\n")
    assert done.returncode == 1
