"""The replay buffer: the latest student responses with their prompts and spans."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable
from dataclasses import replace

from pydantic import BaseModel, JsonValue, TypeAdapter

from mta_framework.types import Example


class _Text(BaseModel):
    input_ids: list[int]
    prompt_length: int
    spans: dict[str, list[tuple[int, int]]]
    log_probs: list[float] | None = None
    teacher_name: str | None = None


_TEXTS = TypeAdapter(list[_Text])


class ReplayBuffer:
    """The latest student responses, oldest first.

    Args:
        capacity: Most responses that it holds; each one more drops the oldest.
    """

    def __init__(self, capacity: int):
        self.capacity = capacity
        self._texts: deque[Example] = deque(maxlen=capacity)

    def __len__(self) -> int:
        return len(self._texts)

    @property
    def full(self) -> bool:
        """Whether it holds ``capacity`` responses."""
        return len(self) == self.capacity

    def add(self, texts: Iterable[Example]) -> None:
        """Add texts, without the fields that only a prompt needs (``prompt_text``, ``prompt_offsets``)."""
        self._texts.extend(replace(text, prompt_text="", prompt_offsets=None) for text in texts)

    def sample(self, size: int, generator: random.Random) -> list[Example]:
        """Sample texts uniformly without replacement.

        Raises:
            ValueError: It holds fewer than ``size`` texts.
        """
        return [self._texts[index] for index in generator.sample(range(len(self)), size)]

    def state(self) -> JsonValue:
        """Return all texts as JSON."""
        texts = [
            _Text(
                input_ids=text.input_ids.tolist(),
                prompt_length=text.prompt_length,
                spans={granularity: ranges_K2.tolist() for granularity, ranges_K2 in text.spans.items()},
                log_probs=None if text.log_probs is None else text.log_probs.tolist(),
                teacher_name=text.teacher_name or None,
            )
            for text in self._texts
        ]
        dumped: JsonValue = _TEXTS.dump_python(texts, mode="json", exclude_none=True)
        return dumped

    def restore(self, state: JsonValue) -> None:
        """Replace all texts by those that ``state`` returned."""
        import numpy as np

        self._texts.clear()
        for text in _TEXTS.validate_python(state):
            spans = {name: np.array(pairs, np.int32).reshape(-1, 2) for name, pairs in text.spans.items()}
            log_probs = None if text.log_probs is None else np.array(text.log_probs, np.float32)
            ids = np.array(text.input_ids, np.int32)
            example = Example(ids, text.prompt_length, spans, by_student=True, log_probs=log_probs)
            self._texts.append(replace(example, teacher_name=text.teacher_name or ""))
