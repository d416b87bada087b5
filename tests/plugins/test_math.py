"""Formulas: hand-marked texts, generated problems, and what holds for any text."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mta_framework import Span, SpanExtractor, SpanSet
from mta_framework.registry import discover
from mta_framework.spans.cache import SpanCache

REGISTRY = discover()


def create(**params: object) -> SpanExtractor:
    made: SpanExtractor = REGISTRY.create("span_extractors", "math", params)
    return made


MATH = create()


def read(text: str) -> SpanSet:
    return MATH.extract([text])[0]


def strings(text: str, spans: object) -> list[str]:
    return [text[start:end] for start, end in spans]  # type: ignore[attr-defined]


MARKED = [
    (
        "Natalia sold 48/2 = <<48/2=24>>24 clips in May.",
        "Natalia|sold|48|2|48|2|24|24|clips|in|May",
        "48/2|48/2|24|24",
    ),
    ("He makes $10*5=$<<10*5=50>>50 a day.\n#### 1,250", "He|makes|$10|5|10|5|50|50|a|day|1,250", "$10*5|10*5|50|50"),
    (
        "It costs $5.50, or 1,234.5 yen; 3.5% off for a 5-year-old.",
        "It|costs|$5.50|or|1,234.5|yen|3.5%|off|for|a|5-year-old",
        "",
    ),
    (r"\$12 - \$5 = \$7", r"\$12|\$5|\$7", r"\$12 - \$5|\$7"),
    (
        r"Let \(x^2 + 3x_1 = 5\) and $\alpha$.",
        r"Let|x|2|3|x_1|5|and|\alpha",
        "x^2 + 3x_1|x^2|3x_1|5",
    ),
    (
        r"\[ x_{1,2} = \frac{-b \pm \sqrt{b^2 - 4ac}}{2a} \]",
        "x_{1,2}|b|b|2|4|a|c|2|a",
        r"x_{1,2}|\frac{-b \pm \sqrt{b^2 - 4ac}}{2a}|-b \pm \sqrt{b^2 - 4ac}|\sqrt{b^2 - 4ac}|b^2 - 4ac|b^2|4ac|2a",
    ),
    ("2 * (5 + 3 apples) = 16", "2|5|3|apples|16", "2 * (5 + 3 apples)|5 + 3 apples|3 apples|16"),
    ("5 apples * 2 = 10 apples", "5|apples|2|10|apples", "5 apples * 2|5 apples|10"),
    (
        "f(x) = 2(x+1)^2 - 3",
        "f|x|2|x|1|2|3",
        "f(x)|2(x+1)^2 - 3|2(x+1)^2|(x+1)^2|x+1",
    ),
    (r"The answer is \boxed{\frac{3}{4}}.", "The|answer|is|3|4", r"\frac{3}{4}"),
    ("20% of 50 = 10", "20%|50|10", "20% of 50|10"),
    ("x² + y² = √25", "x|²|y|²|25", "x² + y²|x²|y²|√25"),
    (
        "\\begin{align*}\nx &= -3y + 1 \\\\\n&= 2\n\\end{align*}",
        "x|3|y|1|2",
        "x|-3y + 1|-3y|2",
    ),
    (
        r"$$\sum_{i=1}^{n} i^2 = \frac{n(n+1)}{6}$$",
        r"\sum|i|1|n|i|2|n|n|1|6",
        r"\sum_{i=1}^{n} i^2|\sum_{i=1}^{n}|i|1|i^2|\frac{n(n+1)}{6}|n(n+1)|n+1",
    ),
    (
        r"$|x-1| \le 2$, $\{x | x>0\}$, $f'(x) = \log_2 (x)$",
        r"x|1|2|x|x|0|f'|x|\log|2|x",
        r"|x-1||x-1|2|x|0|f'(x)|\log_2 (x)|\log_2",
    ),
    (
        r"$x \in \mathbb{R}$, $\left(\frac12\right)^{-n} \leq 5\%$",
        r"x|\mathbb{R}|1|2|n|5\%",
        r"x|\mathbb{R}|\left(\frac12\right)^{-n}|\frac12|5\%",
    ),
    (r"\[ \begin{pmatrix} 1 & -2a \\ x & y \end{pmatrix} \]", "1|2|a|x|y", "-2a"),
    (
        r"$f(x) = \begin{cases} x^2 & \text{if } x > 0 \\ 0 & \text{otherwise} \end{cases}$",
        "f|x|x|2|if|x|0|0|otherwise",
        r"f(x)|\begin{cases} x^2 & \text{if } x > 0 \\ 0 & \text{otherwise} \end{cases}|x^2|x|0",
    ),
    (
        r"$5 \text{ apples} + 3 \times -2$",
        "5|apples|3|2",
        r"5 \text{ apples} + 3 \times -2|5 \text{ apples}|3 \times -2",
    ),
    (
        r"$\overline{AB} = \hat{y} \cdot \vec v \quad \text{and} \quad 1{,}234.5$",
        r"\overline{AB}|\hat{y}|\vec v|and|1{,}234.5",
        r"\overline{AB}|\hat{y} \cdot \vec v",
    ),
    ("$速度=路程/时间$", "速度|路程|时间", "速度|路程/时间"),
    (
        r"$\sin^2 x + \cos 2x$ and \( n! \)",
        r"\sin|2|x|\cos|2|x|and|n",
        r"\sin^2 x + \cos 2x|\sin^2 x|\sin^2|\cos 2x|n!",
    ),
    ("```math\ny = 2x\n```", "y|2|x", "y|2x"),
    ("", "", ""),
    ("😀 $ $$ e\u0301 \\", "e\u0301", ""),
    ("pages 10-12 on 1/5/2024", "pages|10-12|on|1|5|2024", ""),
]


@pytest.mark.parametrize(("text", "words", "phrases"), MARKED, ids=lambda value: value[:20])
def test_marked_texts(text: str, words: str, phrases: str) -> None:
    span_set = read(text)
    assert strings(text, span_set["words"]) == (words.split("|") if words else [])
    # Bars are a sign of formulas, too.
    assert "|".join(strings(text, span_set["phrases"])) == phrases


@pytest.mark.parametrize(
    ("text", "failures", "words"),
    [
        (r"cut \( x^2 + 1 = ", 1, ["cut"]),
        ("so $$ x = \n\nNext $y$", 1, ["so", "Next", "y"]),
        (r"$\frac{1}{2$ and $x+1)$ then $z$", 2, ["and", "then", "z"]),
        (r"$\frac{1}$, $x^$, $\begin{cases} x$, $[1, 2$", 4, []),
        ("$" + "(" * 100 + "x" + ")" * 100 + "$", 1, []),
        ("$" + r"\sqrt" * 5000 + " x$", 1, []),
        ("```latex\nx = 1", 1, []),
        ("nothing $$ at all \\(", 0, ["nothing", "at", "all"]),
    ],
)
def test_what_cannot_be_parsed_yields_no_spans_and_is_counted(text: str, failures: int, words: list[str]) -> None:
    assert MATH.failures([text, "1 + 1 = 2", text]) == [failures, 0, failures]
    assert strings(text, read(text)["words"]) == words


class Problem:
    """A text that marks numbers, symbols and the sides of equations while it is written."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)
        self.text = ""
        self.words: list[Span] = []
        self.sides: list[Span] = []

    def add(self, text: str) -> None:
        self.text += text

    def word(self, text: str) -> None:
        self.words.append((len(self.text), len(self.text) + len(text)))
        self.text += text

    def number(self, prefix: str = "") -> None:
        value = self.random.choice([self.random.randint(0, 99), self.random.randint(1000, 99999), 2.5, 0.75, 1234.5])
        self.word(f"{prefix}{value:,}")

    def side(self, write: object, *arguments: object) -> None:
        start = len(self.text)
        write(*arguments)  # type: ignore[operator]
        self.sides.append((start, len(self.text)))

    def typed(self, terms: int, prefix: str) -> None:
        for term in range(terms):
            self.add(self.random.choice([" * ", " + ", "-", "/", " x ", " × "]) if term else "")
            if terms > 1 and self.random.random() < 0.2:
                self.add("(")
                self.typed(2, prefix)
                self.add(")")
            else:
                self.number(prefix)

    def algebra(self, depth: int) -> None:
        kind = self.random.choice(
            ["atom", "sum", "product", "fraction", "power", "root", "function"] if depth else ["atom"]
        )
        if kind == "atom":
            symbols = ["x", "y", "x_1", r"\alpha", r"\mathbf{v}", r"\theta_{12}", "7", "12", "3.5"]
            self.word(self.random.choice(symbols))
        elif kind in {"sum", "product"}:
            operator = r" \cdot " if kind == "product" else self.random.choice([" + ", " - ", r" \pm "])
            self.add(r"\left(" if kind == "sum" else "")
            self.algebra(depth - 1)
            self.add(operator)
            self.algebra(depth - 1)
            self.add(r"\right)" if kind == "sum" else "")
        else:
            before, between = {
                "fraction": (r"\frac{", "}{"),
                "power": ("{", "}^{"),
                "root": (r"\sqrt{", ""),
                "function": ("", ""),
            }[kind]
            if kind == "function":
                self.word(self.random.choice([r"\sin", r"\log"]))
                before = "{"
            self.add(before)
            self.algebra(depth - 1)
            if between:
                self.add(between)
                self.algebra(depth - 1)
            self.add("}")


def grade_school(seed: int) -> Problem:
    problem = Problem(seed)
    for name in problem.random.sample(["Tom", "Ana", "Wei"], 2):
        prefix = problem.random.choice(["", "$"])
        problem.add(f"{name} has ")
        problem.number(prefix)
        problem.add(" in a box. Now there are ")
        problem.side(problem.typed, problem.random.randint(2, 4), prefix)
        problem.add(" = ")
        if problem.random.random() < 0.5:
            problem.add("<<")
            problem.side(problem.typed, 2, "")
            problem.add("=")
            problem.side(problem.typed, 1, "")
            problem.add(">>")
        problem.side(problem.number, prefix)
        problem.add(" left.\n")
    problem.add("#### ")
    problem.number()
    return problem


def algebraic(seed: int) -> Problem:
    problem = Problem(seed)
    opening, closing = problem.random.choice(
        [(r"\(", r"\)"), ("$", "$"), ("$$\n", "\n$$"), (r"\[ ", r" \]"), (r"\begin{equation}", r"\end{equation}")]
    )
    problem.add("Solve ")
    for turn in range(2):
        problem.add(" and " if turn else "")
        problem.add(opening)
        problem.side(problem.algebra, 3)
        problem.add(problem.random.choice([" = ", r" \leq ", " < "]))
        problem.side(problem.algebra, 3)
        problem.add(closing)
    problem.add(" for all of it.")
    return problem


@pytest.mark.parametrize("write", [grade_school, algebraic])
def test_in_generated_problems_numbers_and_symbols_are_words_and_sides_phrases(write: object) -> None:
    problems = [write(seed) for seed in range(100)]  # type: ignore[operator]
    texts = [problem.text for problem in problems]
    assert MATH.failures(texts) == [0] * 100
    for problem, span_set in zip(problems, MATH.extract(texts), strict=True):
        assert set(problem.words) <= set(span_set["words"]), problem.text
        assert set(problem.sides) <= set(span_set["phrases"]), problem.text
        others = strings(problem.text, sorted(set(span_set["words"]) - set(problem.words)))
        assert all(word.isalpha() for word in others), problem.text


TYPED = r"\boxed{1} x 1 2.5 $5 % + - * / = < ( ) [ ] { } ^ _ , | & ! ' √ ² << >> #### apples of x_1 f( é 😀 数"
LATEX = r"$ $$ \( \) \[ \] \\ \frac \sqrt \left( \right) \alpha \sum \text{a} \begin{align} \end{align} \mathbb{R}"
PIECES = st.sampled_from([*TYPED.split(), *LATEX.split(), " ", "\n", "\n\n"])
TEXTS = st.one_of(st.text(max_size=40), st.lists(PIECES, max_size=25).map("".join), st.lists(PIECES).map(" ".join))


@settings(max_examples=200, deadline=None)
@given(text=TEXTS)
def test_words_lie_apart_and_phrases_nest_or_lie_apart(text: str) -> None:
    for granularity, spans in read(text).items():
        assert all(0 <= start < end <= len(text) for start, end in spans)
        assert spans == sorted(set(spans), key=lambda span: (span[0], -span[1]))
        open_ends: list[int] = []
        for start, end in spans:
            while open_ends and open_ends[-1] <= start:
                open_ends.pop()
            assert not open_ends or (granularity == "phrases" and end <= open_ends[-1])
            open_ends.append(end)
    assert (MATH.overlap("words"), MATH.overlap("phrases")) == ("none", "nested")


@settings(max_examples=30, deadline=None)
@given(texts=st.lists(TEXTS, max_size=5))
def test_texts_do_not_influence_each_other(texts: list[str]) -> None:
    assert MATH.extract(texts) == [read(text) for text in texts]
    assert MATH.failures(texts) == [MATH.failures([text])[0] for text in texts]


def test_one_process_and_two_in_batches_of_one_and_of_64_give_the_same(tmp_path: Path) -> None:
    texts = [grade_school(seed).text + algebraic(seed).text for seed in range(400)]
    single = [{name: list(map(list, spans)) for name, spans in read(text).items()} for text in texts]
    for processes in (1, 2):
        cached = SpanCache(tmp_path / str(processes), MATH, processes).spans(texts)
        assert [{name: spans.tolist() for name, spans in span_set.items()} for span_set in cached] == single
    batched = [span_set for first in range(0, 400, 64) for span_set in MATH.extract(texts[first : first + 64])]
    assert [{name: list(map(list, spans)) for name, spans in span_set.items()} for span_set in batched] == single


def test_prose_goes_to_the_extractor_that_the_option_names() -> None:
    text = "The old keeper sold 5 * 3 = 15 red lamps for $1,234.50."
    extractor = create(prose={"name": "spacy_phrases"})
    (span_set,) = extractor.extract([text])
    assert strings(text, span_set["phrases"]) == ["The old keeper", "sold", "5 * 3", "15", "red lamps"]
    expected = ["The ", "old ", "keeper", "sold", "5", "3", "15", "red ", "lamps", "$1,234.50"]
    assert strings(text, span_set["words"]) == expected
    assert json.loads(extractor.fingerprint())[1] == extractor.prose.fingerprint()  # type: ignore[attr-defined]
    assert extractor.fingerprint() != MATH.fingerprint()
    assert extractor.overlap("phrases") == extractor.prose.overlap("phrases")  # type: ignore[attr-defined]
