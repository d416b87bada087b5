"""Links lead somewhere, and every page is reached."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from blocks import PAGES, ROOT

LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


def prose(page: Path) -> str:
    """The page without fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def links(page: Path) -> list[tuple[Path, str]]:
    """Files that the page links to, with the heading or an empty string."""
    targets = [target for target in LINK.findall(prose(page)) if "://" not in target]
    split = [target.partition("#") for target in targets]
    return [((page.parent / name).resolve() if name else page, anchor) for name, _, anchor in split]


def anchors(page: Path) -> set[str]:
    """Headings as they appear in links."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_lead_to_files_and_headings_that_exist():
    assert not [
        f"{page.relative_to(ROOT)}: {target}#{anchor}"
        for page in PAGES
        for target, anchor in links(page)
        if not target.exists() or (anchor and anchor not in anchors(target))
    ]


def test_every_page_is_reached_from_the_readme():
    reached: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page.suffix == ".md" and page not in reached:
            reached.add(page)
            waiting += [target for target, _ in links(page)]
    assert [page for page in ROOT.glob("docs/**/*.md") if page not in reached] == []


@pytest.mark.parametrize("pattern", [r"\b(?:mta_framework|benchmarks)/[\w./-]*\w", r"\bmta_framework(?:\.[a-z_]+)+"])
def test_files_and_modules_that_pages_mention_exist(pattern):
    mentioned = {(page, name) for page in PAGES for name in re.findall(pattern, page.read_text(encoding="utf-8"))}
    assert mentioned
    assert not [f"{page.relative_to(ROOT)}: {name}" for page, name in mentioned if not is_known(name)]


def is_known(name: str) -> bool:
    """Whether it is a path, a module, or a name in a module, of the package or of the benchmarks."""
    path = ROOT / (name if "/" in name else name.replace(".", "/"))
    module_of_a_name = path.parent.with_suffix(".py")
    return path.exists() or path.with_suffix(".py").exists() or ("/" not in name and module_of_a_name.exists())
