"""Rows of conversations, rendered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from mta_framework.data.prompts import Sample, render_prompts
from mta_framework.data.records import read_records
from mta_framework.spec.data import DatasetSection


@pytest.fixture
def rendered(
    write_rows: Callable[[Sequence[object]], Path], chat_tokenizer: PreTrainedTokenizerFast
) -> Callable[..., list[Sample]]:
    """Renders rows of a file by a template."""

    def rendered(template: str, *rows: object, **settings: Any) -> list[Sample]:
        chat_tokenizer.chat_template = template
        records = read_records(DatasetSection(path=str(write_rows(rows))), "data.train")
        return render_prompts(records, "chat", chat_tokenizer, **settings)

    return rendered
