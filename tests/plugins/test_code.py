"""The extractor code: marked texts, what it cannot read, and its options."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import tree_sitter_language_pack
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mta_framework import PluginChoice, Span, SpanExtractor, SpanSet
from mta_framework.registry import discover
from mta_framework.spans.cache import SpanCache
from mta_framework.spans.segments.languages import LANGUAGES
from mta_plugins.span_extractors import code
from mta_plugins.span_extractors.code import Code

REGISTRY = discover()

MARKED = {
    "compound statements give the parts of their heads": (
        'def f(x, y=1):\n    # add it\'s one\n    if x > 1 and y:\n        print(f"{x} b", g(h(x)))\n    return x\n',
        "def f x y = 1 add it's one if x > 1 and y print x b g h x return x",
        ["(x, y=1)", "x > 1 and y", 'print(f"{x} b", g(h(x)))', "g(h(x))", "h(x)", "return x"],
    ),
    "carriage returns and tabs": (
        "x = 1\r\nif x > 1:\r\n\tprint(x, 'a b')\r\n",
        "x = 1 if x > 1 print x a b",
        ["x = 1", "x > 1", "print(x, 'a b')"],
    ),
    "a tag and prose around": (
        "Use it:\n\n```js\nconst a = (x) => { return x.map(y => y + 1); };\n```\nThen, go on.",
        "Use it const a = x => return x map y => y + 1 Then go on",
        ["return x.map(y => y + 1);", "x.map(y => y + 1)"],
    ),
    "a fence inside of Markdown inside of a fence": (
        "````markdown\nSee:\n```python\nx = f(1)\n```\nDone.\n````\nEnd.",
        "See x = f 1 Done End",
        ["x = f(1)", "f(1)"],
    ),
    "an indented fence in a list": (
        "1. Do this:\n   ```sh\n   pip install foo && ls -l\n   ```\n2. Go.",
        "1 Do this pip install foo && ls -l 2 Go",
        ["pip install foo && ls -l"],
    ),
    "identifiers in any script": (
        "```python\nπ = größe * 变量\ncafé(π)\n```",
        "π = größe * 变量 café π",
        ["π = größe * 变量", "café(π)"],
    ),
    "emoji and CJK in strings and comments": (
        "```python\nx = \"😀 ok\" + 'b'  # 日本語 コメント\n```",
        "x = 😀 ok + b 日本語 コメント",
        ["x = \"😀 ok\" + 'b'"],
    ),
    "any script and emoji in shell": (
        '```bash\nsize=变量; echo "$size 😀" | grep -o 日本\n```',
        "size = 变量 echo $ size 😀 | grep -o 日本",
        ["size=变量", 'echo "$size 😀" | grep -o 日本'],
    ),
    "indented code in prose": (
        "First:\n\n    total = add(1, 2)\n    print(total)\n\nThat is all.",
        "First total = add 1 2 print total That is all",
        ["total = add(1, 2)", "add(1, 2)", "print(total)"],
    ),
    "code behind a prompt, without fences": (
        "Below is an instruction.\n\n### Response:\ndef f(x):\n    return g(x)\n\nprint(f(2))\nThat is all.",
        "Below is an instruction Response def f x return g x print f 2 That is all",
        ["return g(x)", "g(x)", "print(f(2))", "f(2)"],
    ),
    "a fence without tag": (
        '```\nfn main() {\n    let v = vec![1, 2];\n    println!("{}", v.len());\n}\n```',
        "fn main let v = vec ! 1 2 println ! v len",
        ["let v = vec![1, 2];", "vec![1, 2]", 'println!("{}", v.len());'],
    ),
    "C with escapes in a string": (
        '```\n#include <stdio.h>\nint main(void) { printf("%d\\n", 3); return 0; }\n```',
        "#include <stdio.h> int main void printf %d \\n 3 return 0",
        ["#include <stdio.h>", "main(void)", 'printf("%d\\n", 3);', "return 0;"],
    ),
    "Java without fences": (
        'class A {\n  public static void main(String[] args) {\n    System.out.println("hi " + args[0]);\n  }\n}',
        "class A public static void main String args System out println hi + args 0",
        ["(String[] args)", 'System.out.println("hi " + args[0]);'],
    ),
    "a query": (
        "SELECT name, COUNT(*) FROM users WHERE age > 30;",
        "SELECT name COUNT * FROM users WHERE age > 30",
        ["SELECT name, COUNT(*) FROM users WHERE age > 30", "COUNT(*)"],
    ),
    "attributes behind a fence": ("```{.python .numberLines}\nprint(1 + 2)\n```", "print 1 + 2", ["print(1 + 2)"]),
    "some of it wrong": (
        "```python\na = f(1)\nb = = 2\nc = g(3)\nd = h(4)\n```",
        "a = f 1 b = = 2 c = g 3 d = h 4",
        ["a = f(1)", "f(1)", "c = g(3)", "g(3)", "d = h(4)", "h(4)"],
    ),
    "a response that was cut off": (
        "~~~python\ntotal = add(1, 2)\nfor row in rows:\n    print(row)\n    total += wei",
        "total = add 1 2 for row in rows print row total += wei",
        ["total = add(1, 2)", "add(1, 2)", "print(row)", "total += wei"],
    ),
    "a block in a quotation": (
        "She wrote:\n> ```python\n> def f(x):\n>     return g(x > 1)\n> ```\n> and more.",
        "She wrote def f x return g x > 1 and more",
        ["return g(x > 1)", "g(x > 1)"],
    ),
    "a quotation in a quotation, with an empty line": (
        "> > ~~~js\n> > f(1)\n> >\n>> > g(2)\n> > ~~~",
        "f 1 > g 2",
        ["f(1)\n> >\n>> > g(2)", "f(1)", "g(2)"],
    ),
    "a block without tag in no language": (
        "```\npip install torch\n```\nDone.",
        "pip install torch Done",
        [],
    ),
    "an empty fence": ("```js\n\n```\nand ~~~ so on", "and so on", []),
    "a fence that is never closed, and empty": ("so:\n```", "so", []),
    "a fenced text": ("```text\nNot code (at all).\n```", "Not code at all", []),
    "prose with the words of code": (
        "We import goods from France; then we sell them.\nclass of 1990\nfor each one: two",
        "We import goods from France then we sell them class of 1990 for each one two",
        [],
    ),
    "lines that end as in code": ("Dear John,\nI went home;\nthen I slept.", "Dear John I went home then I slept", []),
    "nothing": ("", "", []),
    "white space": (" \r\n\t", "", []),
}

UNREADABLE = {
    "```klingon\nqapla batlh\n```\nprose": (1, "prose"),
    "```python\nThis is prose that somebody has fenced, and it is no Python at all.\n```": (1, ""),
    "```python\ndef f(:\n  x = = 1\n```\nok\n```yaml\na: 1\n```": (2, "ok"),
    "```js\nx = f(1)\n```\n```nosuch\nx\n```": (1, "x = f 1"),
    "```python\n\n```": (0, ""),
}


def create(**options: object) -> SpanExtractor:
    return REGISTRY.create("span_extractors", "code", options)


def spans(text: str, **options: object) -> SpanSet:
    (span_set,) = create(**options).extract([text])
    return span_set


def shown(text: str, span_set: list[Span]) -> list[str]:
    return [text[start:end] for start, end in span_set]


@pytest.mark.parametrize("name", MARKED)
def test_marked_text_gives_its_words_and_phrases(name: str) -> None:
    text, words, phrases = MARKED[name]
    span_set = spans(text)
    assert shown(text, span_set["words"]) == words.split()
    assert shown(text, span_set["phrases"]) == phrases
    assert create().failures([text]) == [0]


@pytest.mark.parametrize("text", UNREADABLE)
def test_a_segment_that_cannot_be_parsed_yields_nothing_and_is_counted(text: str) -> None:
    failures, words = UNREADABLE[text]
    assert shown(text, spans(text)["words"]) == words.split()
    assert create().failures([text, "fine"]) == [failures, 0]


def test_degenerate_text_is_given_up_in_bounded_time() -> None:
    text = "```go\n" + "<!--" * 3000 + "\n```"
    assert create().failures([text]) == [1]
    assert spans(text) == {"words": [], "phrases": []}
    # The parser is as good as new.
    assert spans("```go\nx = f(1)\n```")["phrases"]


def test_deep_nesting_is_no_trouble() -> None:
    depth = 2000
    for text in ("(" * depth + "a + b" + ")" * depth, "```md\n~~~md\n" * depth):
        spans(text, language="python")


def test_a_long_table_gives_way_to_its_rows() -> None:
    rows = ", ".join(f'"key{n}": {n}' for n in range(50))
    span_set = spans(f"```python\ntable = {{{rows}}}\n```")
    assert len(span_set["phrases"]) == 50


PIECES = [
    *("def f(x):\n", "    return x\n", "```", "python\n", "````", "~~~", "\n", "\r\n", "(", ")", "{", "}", '"', "'"),
    *("#", "/*", "a = b", "The cat sat", "é", "😀", "\ud800", "\x00", "\t", " ", "if ", "else:", ";", "md\n", "js\n"),
    *("<p>", "x.y(z)", "1.5e3", "\\", "\u200d", "- "),
]


@settings(max_examples=150, deadline=None)
@given(
    pieces=st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=25),
    language=st.sampled_from([None, "python", "javascript", "bash", "cpp", "html"]),
)
def test_any_text_gives_words_apart_and_phrases_nested(pieces: list[str], language: str | None) -> None:
    text = "".join(pieces)
    extractor = create(language=language)
    (span_set,) = extractor.extract([text])
    assert (span_set,) == tuple(extractor.extract([text]))
    assert all(end <= start for (_, end), (start, _) in pairwise(span_set["words"]))
    for granularity in ("words", "phrases"):
        listed = span_set[granularity]
        assert listed == sorted(set(listed), key=lambda span: (span[0], -span[1]))
        assert all(0 <= start < end <= len(text) for start, end in listed)
        assert all(text[start:end] == text[start:end].strip() for start, end in listed)
    for start, end in span_set["phrases"]:
        inside = [word for word in span_set["words"] if start <= word[0] and word[1] <= end]
        assert 2 <= len(inside) <= 40
        assert not any(start < first < end < last for first, last in span_set["phrases"])


@pytest.mark.skipif(sys.platform != "linux", reason="the name of glibc's table")
def test_no_other_grammar_looks_characters_up_in_a_table_that_ends() -> None:
    packages = Path(tree_sitter_language_pack.__file__).parents[1]
    apart = {"csharp": "tree_sitter_c_sharp/_binding", "yaml": "tree_sitter_yaml/_binding"}
    with_table = set()
    for name in LANGUAGES:
        (library,) = packages.glob(f"{apart.get(name, f'tree_sitter_language_pack/bindings/{name}')}.*so")
        with_table |= {name} if b"__ctype_b_loc" in library.read_bytes() else set()
    assert with_table == code._TABLE_GRAMMARS


def test_shell_code_with_any_character_is_read() -> None:
    for first in range(0x100, 0x110000, 0x1F3):
        character = chr(first)
        spans(f"a{character}=1; /*{character}``` x $({character}", language="bash")


def test_one_text_or_many_at_once_in_one_process_or_two_give_the_same(tmp_path: Path) -> None:
    texts = [text for text, *_ in MARKED.values()] + list(UNREADABLE)
    texts += [f"{text}\n{index}" for index in range(30) for text in texts]
    extractor = create()
    alone = [extractor.extract([text])[0] for text in texts]
    in_batches = [
        span_set for first in range(0, len(texts), 64) for span_set in extractor.extract(texts[first : first + 64])
    ]
    assert alone == in_batches
    for processes in (1, 2):
        cached = SpanCache(tmp_path / str(processes), extractor, processes).spans(texts)
        assert [
            {name: list(map(tuple, array.tolist())) for name, array in span_set.items()} for span_set in cached
        ] == alone


def test_prose_may_have_phrases_and_granularities_of_its_own() -> None:
    text = "The old keeper reads:\n```python\nx = f(1)\n```\nThe broken lamp is here."
    prose = {"name": "spacy_phrases", "params": {"words": "all"}}
    span_set = spans(text, prose=prose)
    assert shown(text, span_set["phrases"]) == ["The old keeper", "reads", "x = f(1)", "f(1)", "The broken lamp"]
    assert create(prose=prose).overlap("phrases") == "any"
    assert (create().overlap("words"), create().overlap("phrases")) == ("none", "nested")

    class Lines(SpanExtractor):
        """All of a text is a line."""

        NAME = "lines"
        VERSION = "1"
        granularities = ("lines",)

        def extract(self, texts: list[str]) -> list[SpanSet]:
            return [{"lines": [(0, len(text))]} for text in texts]

        def failures(self, texts: list[str]) -> list[int]:
            return [1 for _ in texts]

    extractor = Code(Code.Params(prose=PluginChoice(name="lines")), Lines(Lines.Params()))
    assert extractor.granularities == ("words", "phrases", "lines")
    assert shown(text, extractor.extract([text])[0]["lines"]) == ["The old keeper reads:", "The broken lamp is here."]
    assert extractor.failures([text, "```klingon\nx\n```", ""]) == [2, 1, 0]


def test_the_language_given_goes_before_detection_and_behind_the_tag() -> None:
    untagged = "```\nx = f(1); y = g(2)\n```"
    assert spans(untagged, language="sql") == {"words": [], "phrases": []}
    tagged = "```python\nx = f(1); y = g(2)\n```"
    assert spans(tagged, language="sql") == spans(tagged)
    assert shown("ls -l | wc", spans("ls -l | wc", language="bash")["phrases"]) == ["ls -l | wc"]
    with pytest.raises(ValidationError, match="pythn"):
        Code.Params(language="pythn")


def test_every_language_has_a_grammar_that_reads_something() -> None:
    for language in sorted(LANGUAGES):
        text = f"```{language}\nword\n```"
        assert len(create().extract([text])) == 1
    assert len(LANGUAGES) > 40


def test_without_the_grammars_or_with_those_that_are_downloaded_the_extra_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert create().require() is None
    monkeypatch.setattr(code, "_pack_version", lambda: "")
    assert "pip install 'mta-framework[code]'" in str(create().require())
    monkeypatch.setattr(code, "_pack_version", lambda: "1.24.0")
    assert "downloads its grammars" in str(create().require())


def test_the_fingerprint_changes_with_options_versions_and_prose(monkeypatch: pytest.MonkeyPatch) -> None:
    before = create().fingerprint()
    assert before == create().fingerprint()
    assert before != create(language="python").fingerprint()
    assert before != create(prose={"name": "spacy_phrases"}).fingerprint()
    monkeypatch.setattr(code, "version", lambda name: "99.0")
    assert before != create().fingerprint()


def test_asking_what_is_missing_loads_no_parser() -> None:
    script = (
        "import sys; from mta_framework.registry import discover; e = discover().create('span_extractors', 'code');"
        "e.require(); e.fingerprint(); print([m for m in ('tree_sitter', 'spacy', 'torch') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
