"""The documentation's pages, and the fenced blocks in them."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGES = sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*/*.md")})
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, the line on which it begins, its language and its text."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def is_plugin_file(self) -> bool:
        """Whether it is a whole file for ``mta -p``."""
        return self.language == "python" and "@hookimpl" in self.text

    @property
    def file_name(self) -> str:
        """What a plugin file is called: the name of its plugin."""
        name = re.search(r'NAME = "(\w+)"', self.text)
        assert name is not None, f"{self}: no NAME"
        return f"{name[1]}.py"


def blocks(*languages: str) -> list[Block]:
    """All blocks in these languages."""
    listed = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in _FENCE.finditer(text):
            if match[1] in languages:
                listed.append(Block(page, text.count("\n", 0, match.start()) + 1, match[1], match[2]))
    return listed


def marked_blocks(page: Path) -> dict[str, str]:
    """Shell blocks right below a comment ``<!-- ci: NAME -->``: name -> text, in their order."""
    marked = re.findall(
        r"^<!-- ci: (\S+) -->\n```sh\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    return dict(marked)


def specs() -> list[tuple[Block, dict[str, Any]]]:
    """JSON blocks that are specs."""
    parsed = [(block, json.loads(block.text)) for block in blocks("json")]
    return [(block, value) for block, value in parsed if isinstance(value, dict) and "base_loss" in value]


def plugin_files() -> list[Block]:
    """Python blocks that are plugin files."""
    return [block for block in blocks("python") if block.is_plugin_file]


def mta_commands() -> list[tuple[str, list[str]]]:
    """``mta`` command lines of all shell blocks: where they stand, and the arguments."""
    commands = []
    for block in blocks("sh"):
        for line in block.text.replace("\\\n", " ").splitlines():
            for command in _split(shlex.split(line, comments=True)):
                arguments = _arguments(command)
                if arguments is not None:
                    commands.append((f"{block}: {' '.join(command)}", arguments))
    return commands


def _split(words: list[str]) -> list[list[str]]:
    commands: list[list[str]] = [[]]
    for word in words:
        if word in ("&&", "|", ";"):
            commands.append([])
        else:
            commands[-1].append(word)
    return commands


def _arguments(command: list[str]) -> list[str] | None:
    if command and Path(command[0]).name == "mta":
        return command[1:]
    if "mta_framework" in command and command[command.index("mta_framework") - 1] == "-m":
        return command[command.index("mta_framework") + 1 :]
    return None
