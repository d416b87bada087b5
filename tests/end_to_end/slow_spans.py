"""A plugin file for tests: words that take their time, so that the processes that look for them can be interrupted."""

import os
import time
from pathlib import Path

from mta_framework import SpanExtractor, hookimpl


class SlowWords(SpanExtractor):
    """One span per text, slowly; the folder STARTED gets an empty file from each process."""

    NAME = "slow_words"
    VERSION = "1"

    @property
    def granularities(self):
        return ("words",)

    def extract(self, texts):
        (Path(os.environ["STARTED"]) / str(os.getpid())).touch()
        time.sleep(3)
        return [{"words": [(0, len(text))] if text else []} for text in texts]


@hookimpl
def mta_register_span_extractors():
    return (SlowWords,)
