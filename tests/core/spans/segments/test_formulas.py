"""Where formulas are, and where there are none."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mta_framework.spans.segments import formula_segments


@pytest.mark.parametrize(
    ("text", "inner"),
    [
        (r"Let \(x + 1\), $\alpha$, $$ y $$ and \[ z \].", ["x + 1", r"\alpha", " y ", " z "]),
        ("the $n$th on the $x$-axis\nand $a\n= b$", ["n", "x", "a\n= b"]),
        (r"\begin{align*} x &= 1 \\ y \end{align*} \begin{itemize} x \end{itemize}", [r" x &= 1 \\ y "]),
        ("```math\nx = 1\n```\n~~~latex\ny\n~~~", ["x = 1\n", "y\n"]),
        ("````math\nx = 1\n```\ny\n``````\nprose\n```", ["x = 1\n```\ny\n"]),
        (r"\\(x\\) and \$5 = \$5", ["x\\", r"\$5 = \$5"]),
        ("costs $5 and $10, between $5-$10, so $5 or 5$ back", []),
        ("$HOME/bin:$PATH and $A${B} then $ x$, $x $, $$$", []),
        (r"$5 \text{ red apples}$", [r"5 \text{ red apples}"]),
        ("$a word or two$", []),
        ("$a\n\nb$", []),
        ("Natalia sold 48/2 = <<48/2=24>>24 clips.", ["48/2 = <<48/2=24>>24"]),
        ("He makes $10*5=$<<10*5=50>>50 a day.", ["$10*5=$<<10*5=50>>50"]),
        ("#### 1,250\n#### Heading 3\n#### -7", ["1,250", "-7"]),
        ("1. 5 + 3 = 8\n- 8 - 1 = 7\nTotal = 15 + 3", ["5 + 3 = 8", "8 - 1 = 7", "= 15 + 3"]),
        ("5 apples * 2 = 10 apples", ["5 apples * 2 = 10"]),
        ("$10/hour * 8 hours = $80", ["$10/hour * 8 hours = $80"]),
        ("(see 2 * (5 + 3 apples) = 16) 7 = 7)", ["2 * (5 + 3 apples) = 16", "7 = 7"]),
        ("2 * (5 + 3", ["5 + 3"]),
        ("5 x 3 = 15, 2x + 3y = 7, 20% of 50 = 10", ["5 x 3 = 15", "2x + 3y = 7", "20% of 50 = 10"]),
        ("f(x) = 2(x+1)^2 - 3, x_1 + x_2, x² + y² = √25", ["f(x) = 2(x+1)^2 - 3", "x_1 + x_2", "x² + y² = √25"]),
        (r"so \boxed{\frac{3}{4}}, \sqrt[3]{8} and \pi", [r"\boxed{\frac{3}{4}}", r"\sqrt[3]{8}", r"\pi"]),
        ("5! = 120! a < b, p ≥ 3", ["5! = 120", "a < b", "p ≥ 3"]),
        ("pages 10-12, B-52, 1/5/2024, n/a, 555-1234, 5-year, v1.2, A and B", []),
        ("http://x.org/a=5&b=6 <b>5</b> C:\\new\\users me@a.org", []),
        ("> 5 quoted\n* 5\n- 5\n+ 5\n> > x", []),
        ("I have 3 lamps, a 2nd one (or 4) and 1,000 more. U.S. 10:30", []),
    ],
)
def test_formulas_and_what_looks_like_them(text: str, inner: list[str]) -> None:
    assert [text[slice(*segment.inner)] for segment in formula_segments(text)] == inner


@pytest.mark.parametrize(
    ("text", "unclosed"),
    [
        (r"so \( x^2 = ", [r"\( x^2 = "]),
        ("$$ x = 1\n\nand prose $$ y_1", ["$$ x = 1", "$$ y_1"]),
        ("\\begin{equation} \\alpha\n \nmore", ["\\begin{equation} \\alpha"]),
        ("```math\nx\n\ny", ["```math\nx\n\ny"]),
        (r"a stray \( and $$ without any sign", []),
    ],
)
def test_a_formula_that_never_ends_is_unclosed_up_to_a_blank_line(text: str, unclosed: list[str]) -> None:
    segments = formula_segments(text)
    assert {segment.notation for segment in segments} <= {"unclosed"}
    assert [text[segment.start : segment.end] for segment in segments] == unclosed


TYPED = "x 12 2.5 $5 % + - * / = < > ( ) [ ] { } ^ _ , ! √ ² << >> #### apples of f( x_1 of X é <b>"
LATEX = r"$ $$ \( \) \[ \] \\ \frac{1}{2} \alpha \begin{align} \end{align} ```math ``` \$"
PIECES = st.sampled_from([*TYPED.split(), *LATEX.split(), " ", "\n", "\n\n"])
TEXTS = st.lists(PIECES, max_size=25).map("".join) | st.lists(PIECES, max_size=25).map(" ".join) | st.text(max_size=30)


@settings(max_examples=300, deadline=None)
@given(text=TEXTS)
def test_segments_are_sorted_and_disjoint_and_a_formula_by_itself_is_the_same_formula(text: str) -> None:
    end = 0
    for segment in formula_segments(text):
        assert end <= segment.start <= segment.inner[0] <= segment.inner[1] <= segment.end <= len(text)
        assert segment.start < segment.end
        end = segment.end
        alone = text[segment.start : segment.end]
        inner = (segment.inner[0] - segment.start, segment.inner[1] - segment.start)
        assert formula_segments(alone) == [segment._replace(start=0, end=len(alone), inner=inner)]


@pytest.mark.parametrize(
    "piece",
    [
        "\\(",
        "\\[ ",
        "$a ",
        "$",
        "{",
        "1+",
        "(1+",
        "1)+",
        "x_",
        "\\frac{",
        "<<",
        "a(b",
        "5 apples pears ",
        "\\begin{align}",
    ],
)
def test_odd_texts_take_time_in_proportion_to_their_length(piece: str) -> None:
    def seconds(count: int) -> float:
        start = time.process_time()
        formula_segments(piece * count + "=1")
        return time.process_time() - start

    # Ten times as long: quadratic time would be a hundred times as much.
    assert seconds(10_000) < 40 * max(seconds(1_000), 0.002)
