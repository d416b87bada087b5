"""What plugins need around them before they can be held to their contracts."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from mta_framework.testing.chat_server import ChatServer


@pytest.fixture(autouse=True)
def parsers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny models where Stanza looks for its own; worker processes look there too."""
    callspec = getattr(request.node, "callspec", None)
    if callspec and callspec.params.get("plugin") == "stanza_phrases":
        monkeypatch.setenv("STANZA_RESOURCES_DIR", str(request.getfixturevalue("tiny_stanza")))


@pytest.fixture(scope="session")
def chat_server() -> Iterator[ChatServer]:
    """A judge that likes a response the better, the more of its words stand in the first reference."""

    def share(references: list[str], answer: str) -> float:
        words = set(answer.split())
        return len(words & set(references[0].split())) / max(1, len(words))

    def judged(question: str) -> str:
        references = re.findall(r"<reference>\n(.*?)\n</reference>", question, re.DOTALL)
        answers = re.findall(r"<answer(?: of [AB])?>\n(.*?)\n</answer", question, re.DOTALL)
        if len(answers) == 1:
            return f"Well, [[{round(1 + 99 * share(references, answers[0]))}]]"
        first, second = (share(references, answer) for answer in answers)
        return f"Hm. [[{'C' if first == second else 'A' if first > second else 'B'}]]"

    with ChatServer(judged) as server:
        yield server
