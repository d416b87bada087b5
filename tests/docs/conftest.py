"""A folder as a reader of the documentation would have it, and ``blocks`` to import."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Path:
    """The documented plugin files, and what the quick start leaves behind: an exported student and a report."""
    from blocks import plugin_files
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from mta_framework.evaluation.report import Report, ReportedEvaluation, Score
    from mta_framework.reporting.report_files import write_report

    folder = tmp_path_factory.mktemp("workplace")
    for block in plugin_files():
        (folder / block.file_name).write_text(block.text, encoding="utf-8")
    run = folder / "examples" / "quickstart" / "runs" / "student"
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    config = AutoConfig.for_model("llama", vocab_size=len(tokenizer), num_key_value_heads=2, **sizes)
    AutoModelForCausalLM.from_config(config).save_pretrained(run / "student")
    tokenizer.save_pretrained(run / "student")
    scores = (Score("student", "test", "rouge_l", (40.0, 42.0), 41.0, 1.5),)
    write_report(run, Report("student", {}, ReportedEvaluation((10, 20), scores, (), ())))
    return folder
