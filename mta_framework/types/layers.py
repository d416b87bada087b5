"""Layers of models: their shape, and pairs and similarities of layers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelShape:
    """Depth and width of a model.

    Args:
        num_layers: Number of decoder blocks.
        hidden_size: Width of the hidden states.
    """

    num_layers: int
    hidden_size: int


@dataclass(frozen=True, order=True)
class LayerPair:
    """A key layer: a layer of the student, and the layer of the teacher that it is aligned with.

    Args:
        student: 1-based layer of the student.
        teacher: 1-based layer of the teacher.
        granularity: Granularity of the spans that are compared there, e.g. ``words``.
    """

    student: int
    teacher: int
    granularity: str

    def __str__(self) -> str:
        return f"{self.student}->{self.teacher} {self.granularity}"


@dataclass(frozen=True)
class LayerSimilarity:
    """Linear CKA between layers of two models on some texts; 1 for layers that differ by rotation and scale alone.

    Args:
        across: CKA of student and teacher layers: ``across[s - 1][t - 1]`` is that of 1-based layers s and t.
        within: CKA of student layers with each other: ``within[s - 1][r - 1]`` is that of 1-based layers s and r.
    """

    across: tuple[tuple[float, ...], ...]
    within: tuple[tuple[float, ...], ...]
