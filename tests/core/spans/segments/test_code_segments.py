"""Where code is: fences and backticks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta_framework.spans.segments import Segment, code_segments


def inner(text: str) -> list[tuple[str, str]]:
    return [(text[slice(*segment.inner)], segment.tag) for segment in code_segments(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("a `b` c", [("b", "")]),
        ("``a`b`` and `` ` ``", [("a`b", ""), (" ` ", "")]),
        ("a ` b\n\nc ` d", []),
        ("``quotes'' and ``more''", []),
        ("x\n```Python title=1\ny\n```\nz", [("y\n", "python")]),
        ("~~~\n```\n~~~", [("```\n", "")]),
        ("````\n```\nx\n```\n````", [("```\nx\n```\n", "")]),
        ("```py\nno end", [("no end", "py")]),
        ("```", [("", "")]),
        ("```\n```", [("", "")]),
        ("```math\nx\n```\n`y`", [("y", "")]),
        ("- ```sh\n  ls\n  ```\n> text", [("  ls\n", "sh")]),
        ("1. ```sh\n   ls\n   ```\n`a`", [("   ls\n", "sh"), ("a", "")]),
        ("> ```sh\n> ls\n> ```\n\n`a`", [("> ls\n", "sh"), ("a", "")]),
        ("> ```sh\n> no end\n`a`", [("> no end", "sh"), ("a", "")]),
        ("> ```\n`a`", [("", ""), ("a", "")]),
        ("> > 1. ~~~\n> > x\n> > ~~~", [("> > x\n", "")]),
        ("```\n> ```\n```", [("> ```\n", "")]),
        ("```c\r\nint x;\r\n```\r\n`a`", [("int x;\r\n", "c"), ("a", "")]),
        ("```a`b``` c", [("a`b", "")]),
        ("`a` ```\ncode\n``` `b`\n```", [("a", ""), ("\ncode\n", ""), ("b", ""), ("", "")]),
    ],
)
def test_fenced_and_inline_code(text: str, expected: list[tuple[str, str]]) -> None:
    assert inner(text) == expected


def test_a_segment_covers_its_fences() -> None:
    assert code_segments("a `b`\n```c\nd\n```\ne") == [
        Segment("inline code", 2, 5, (3, 4)),
        Segment("fenced code", 6, 16, (11, 13), "c"),
    ]


PARTS = ["`", "```", "~~~", "\n", "x", " ", "''", "math", "- ", "> ", "1. "]


@given(text=st.lists(st.sampled_from(PARTS), max_size=25).map("".join))
def test_segments_are_sorted_and_disjoint(text: str) -> None:
    end = 0
    for segment in code_segments(text):
        assert end <= segment.start <= segment.inner[0] <= segment.inner[1] <= segment.end <= len(text)
        end = segment.end
