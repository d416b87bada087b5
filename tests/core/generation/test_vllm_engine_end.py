"""The end of an engine whose vLLMs live in processes of their own."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mta_framework.errors import RunError
from mta_framework.generation.vllm_engine import VllmEngine


def test_a_vllm_that_fails_to_end_keeps_neither_the_others_nor_the_exports(tmp_path):
    ended = []

    def stop(by):
        ended.append(by)
        if by == "student":
            raise RunError("does not end")

    engine = VllmEngine({}, None, (), tmp_path / "exports", 8)
    (tmp_path / "exports" / "teacher").mkdir(parents=True)
    names = ("teacher", "student", "initial_student")
    engine._running = {by: SimpleNamespace(stop=lambda by=by: stop(by)) for by in names}
    engine._exported = {"teacher": 0}
    with pytest.raises(RunError, match="does not end"):
        engine.close()
    assert sorted(ended) == sorted(names)
    assert not (tmp_path / "exports").exists()
    engine.close()  # nothing is left to end
    assert len(ended) == 3
