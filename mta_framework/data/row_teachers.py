"""Which of several teachers a row of the data names, and data sets with the texts of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mta_framework.data.rows import RowError
from mta_framework.data.tokens import EncodedSet


@dataclass(frozen=True)
class RowTeachers:
    """Reads the teacher of a row.

    Args:
        names: Names of the teachers.
        key: Key of a row that names its teacher.
        default: Teacher of rows that name none; None: every row must name one.
    """

    names: Sequence[str]
    key: str
    default: str | None

    def name_of(self, row: Mapping[str, Any]) -> str:
        """Return the name of a row's teacher.

        Args:
            row: A sound row.

        Raises:
            RowError: The row names no teacher and there is no default, or it names an unknown one.
        """
        name = row.get(self.key)
        if name in (None, "") and self.default is not None:
            return self.default
        expected = f"one of the teachers {', '.join(self.names)}"
        if name in (None, ""):
            raise RowError(f"the row names no teacher in {self.key}", f"{expected}, or data.default_teacher")
        if name not in self.names:
            raise RowError(f"{self.key} names an unknown teacher (got {name!r})", expected)
        return str(name)


def named_texts(part: EncodedSet, name: str, rows: Sequence[int]) -> EncodedSet:
    """Return the texts of one teacher with its name, and with their positions in the whole data set.

    Args:
        part: The texts, as if they were a data set of their own.
        name: Name of the teacher.
        rows: Row of the whole data set of each sample of the part.
    """
    examples = [replace(text, teacher_name=name, index=rows[text.index]) for text in part.examples]
    return replace(part, examples=examples)


def merge(parts: Sequence[EncodedSet]) -> EncodedSet:
    """Merge the texts of several teachers, in the order of the rows.

    Args:
        parts: Texts of each teacher, at least one part.
    """
    return EncodedSet(
        sorted((text for part in parts for text in part.examples), key=lambda text: text.index),
        sum(part.too_long for part in parts),
        sum(part.truncated for part in parts),
        sum(part.cut_prompts for part in parts),
        parts[0].end_id,
    )


def texts_of(whole: EncodedSet, name: str) -> EncodedSet:
    """Return a data set with the texts of one teacher alone; its counts stay those of the whole.

    Args:
        whole: Texts of several teachers.
        name: Name of the teacher.
    """
    return replace(whole, examples=[text for text in whole.examples if text.teacher_name == name])
