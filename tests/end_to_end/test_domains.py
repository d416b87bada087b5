"""Runs on code, formulas and both: they train, and what could not be parsed is counted in plan and report."""

from __future__ import annotations

import json
import math

import pytest
from click.testing import CliRunner

from mta_framework.cli import main
from mta_framework.registry import discover
from mta_framework.runs import pipeline
from mta_framework.runs.plugin_binding import bind

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("trained_teacher")]

ROWS = [
    ("Add two numbers.", "Use this:\n```python\ndef add(a, b):\n    return sum([a, b])\n```\nIt takes two."),
    ("How many lamps?", "She has 3 boxes of 4 lamps, so 3 * 4 = 12 lamps. #### 12"),
    ("Solve it.", r"From \( x^2 - 4 = 0 \) we get $x = \pm 2$, so \[ \frac{x}{2} = \pm 1. \]"),
    ("Which command?", "Run `pip install torch`, then `f(x)` with `x = 2 + 3`."),
    ("Sort a list.", "```js\nconst sorted = rows.map(row => row.size).sort();\nconsole.log(sorted, 1 + 2);\n```"),
    ("Say it in Klingon.", "```klingon\nqapla batlh je\n```\nThat is code, and its language has no grammar."),
    ("Say it badly.", r"Here \( a = (b \) is a formula that is not one."),
    ("Nothing special.", "The keeper of the lamp reads a letter."),
]

UNPARSED = {"code": 1, "math": 1, "mixed": 2}


@pytest.fixture
def spec_of(tmp_path, spec_dict, write_spec):
    """Two steps with a span extractor."""

    def spec_of(extractor):
        path = tmp_path / "rows.jsonl"
        rows = [{"instruction": instruction, "output": output} for instruction, output in ROWS]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        data = {"train": {"path": str(path)}, "max_length": 300, "max_prompt_length": 150, "processes": 1}
        training = {**spec_dict["training"], "max_steps": 2, "batch_size": 8}
        changes = {"data": data, "training": training, "evaluation": None}
        return write_spec({**spec_dict, **changes, "alignment": {"spans": {"name": extractor}}})

    return spec_of


@pytest.mark.parametrize("extractor", UNPARSED)
def test_run_trains_with_both_granularities_and_reports_what_was_not_parsed(extractor, spec_of, tmp_path):
    report = pipeline.run(bind(spec_of(extractor), discover()))
    logged = [entry for entry in report.log if "dsa" in entry]
    assert len(logged) == 2
    assert all(math.isfinite(entry["loss"]) and entry["dsa"] > 0 and entry["hid"] > 0 for entry in logged)
    assert {pair.granularity for pair in report.layer_pairs} == {"words", "phrases"}
    assert all(report.spans[granularity].spans > 0 for granularity in ("words", "phrases"))
    assert report.unparsed == UNPARSED[extractor]
    page = (tmp_path / "runs" / "student" / "report.md").read_text()
    assert f"could not be parsed and have no spans: {UNPARSED[extractor]}." in page


@pytest.mark.parametrize("extractor", UNPARSED)
def test_dry_run_says_how_much_cannot_be_parsed_also_with_the_spans_in_the_cache(extractor, spec_of):
    for _ in range(2):
        result = CliRunner().invoke(main, ["run", "--dry-run", str(spec_of(extractor))])
        assert result.exit_code == 0, result.output
        assert f"could not be parsed and have no spans: {UNPARSED[extractor]};" in result.output
