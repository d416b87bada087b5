"""Measures what training does to the similarities of spans, on a few texts: teacher, student before and after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from mta_framework.data.batches import Collator
from mta_framework.distributed import processes, run_on_main
from mta_framework.evaluation.report import Geometry
from mta_framework.models.sharding import is_sharded
from mta_framework.storage import read_json, write_json
from mta_framework.training.distiller import Distiller
from mta_framework.training.training_data import TrainingData
from mta_framework.types import Example, LayerPair

_TEXTS = 16
"""Most texts that are measured."""

_SHOWN = 24
"""Most spans of the text that is shown: its last ones, since prompts begin alike."""

_ENOUGH = 8
"""Number of spans of each granularity from which on a text is worth showing."""

_COMPARED = 256
"""Most spans of each text that are compared: its last ones."""

_DIGITS = 4
"""Decimals of the results."""

_MIN_PAIRS = 3
"""Fewest pairs of spans with a correlation: two points always lie on a line."""

_ROUNDING = 1e-9
"""Differences between cosines below which only rounding tells them apart."""


class SpanGeometry:
    """Measures a distiller before and after its training, and keeps the results in a file of the run folder.

    It measures the first texts of the validation set, or of the training set where there is none. With several
    processes the main one measures.

    Args:
        distiller: Student and teacher; without alignment, or with several teachers, there is nothing to measure.
        data: Training data.
        collator: Makes batches of texts whose span vectors of the teacher can be read.
        tokenizer: Tokenizer of the student.
        file: File that the results are written to.
    """

    def __init__(
        self,
        distiller: Distiller,
        data: TrainingData,
        collator: Collator,
        tokenizer: PreTrainedTokenizerBase,
        file: Path,
    ):
        self._distiller = distiller
        self._collator = collator
        self._tokenizer = tokenizer
        self._file = file
        self._pairs = distiller.alignment.pairs if distiller.alignment is not None else ()
        self._texts = measured_texts(data.train, data.validation, self._pairs)

    def before(self) -> None:
        """Measure the student before its first step, unless an earlier attempt did."""
        if not self._texts:
            return
        if not run_on_main(self._file.is_file):
            self._measure(self._write_before)

    def after(self) -> None:
        """Measure the trained student."""
        if not self._texts:
            return
        if run_on_main(self._file.is_file):
            self._measure(self._write_after)

    def _measure(self, write: Callable[[list[_KeyLayer]], None]) -> None:
        """Measure on the main process, and on all of them where they hold a share of the models each."""
        if is_sharded(self._distiller):
            layers = self._measured()
            run_on_main(lambda: write(layers))
        else:
            run_on_main(lambda: write(self._measured()))

    def _write_before(self, layers: list[_KeyLayer]) -> None:
        if not all(layer.is_finite for layer in layers):
            return  # the first step will stop the run with an error
        shown = _richest(self._texts, {pair.granularity for pair in self._pairs})
        entries = [
            {
                "pair": asdict(pair),
                "labels": self._labels(self._texts[shown], pair.granularity),
                "teacher": layer.teacher(shown),
                "before": layer.student(shown),
                "agreement_before": layer.agreement,
            }
            for pair, layer in zip(self._pairs, layers, strict=True)
        ]
        write_json(self._file, {"texts": len(self._texts), "shown": shown, "layers": entries})

    def _write_after(self, layers: list[_KeyLayer]) -> None:
        record = read_json(self._file)
        if all(layer.is_finite for layer in layers):
            for entry, layer in zip(record["layers"], layers, strict=True):
                entry |= {"after": layer.student(record["shown"]), "agreement_after": layer.agreement}
            write_json(self._file, record)

    def _measured(self) -> list[_KeyLayer]:
        layers = [_KeyLayer([], []) for _ in self._pairs]
        device, training = processes().device, self._distiller.training
        self._distiller.to(device).eval()
        for text in self._texts:
            vectors = self._distiller.span_vectors(self._collator([text]).to(device))
            for layer, (student_SD, teacher_SD) in zip(layers, vectors, strict=True):
                layer.student_cosines.append(cosines(student_SD[-_COMPARED:]))
                layer.teacher_cosines.append(cosines(teacher_SD[-_COMPARED:]))
        self._distiller.train(training)
        return layers

    def _labels(self, text: Example, granularity: str) -> list[str]:
        shown = text.spans[granularity][-_SHOWN:].tolist()
        return [" ".join(self._decoded(text, start, end).split()) for start, end in shown]

    def _decoded(self, text: Example, start: int, end: int) -> str:
        return str(self._tokenizer.decode(text.input_ids[start:end].tolist()))


@dataclass(frozen=True)
class _KeyLayer:
    """The cosine similarities of each text's spans at one key layer."""

    student_cosines: list[NDArray[np.float64]]
    teacher_cosines: list[NDArray[np.float64]]

    @property
    def is_finite(self) -> bool:
        return all(np.isfinite(text).all() for text in (*self.student_cosines, *self.teacher_cosines))

    @property
    def agreement(self) -> float | None:
        value = agreement(self.student_cosines, self.teacher_cosines)
        return None if value is None else round(value, _DIGITS)

    def student(self, text: int) -> list[list[float]]:
        return _matrix(self.student_cosines[text])

    def teacher(self, text: int) -> list[list[float]]:
        return _matrix(self.teacher_cosines[text])


def _matrix(cosine_SS: NDArray[np.float64]) -> list[list[float]]:
    rows: list[list[float]] = cosine_SS[-_SHOWN:, -_SHOWN:].round(_DIGITS).tolist()
    return rows


def measured_texts(
    train: Sequence[Example], validation: Sequence[Example], pairs: Sequence[LayerPair]
) -> list[Example]:
    """The texts that are measured: the first validation texts, or training texts, with two spans of a granularity."""
    granularities = {pair.granularity for pair in pairs}
    texts = (text for text in validation or train if max(len(text.spans[name]) for name in granularities) > 1)
    return list(islice(texts, _TEXTS)) if granularities else []


def _richest(texts: Sequence[Example], granularities: set[str]) -> int:
    """The index of the first text that has enough spans of each granularity, or comes closest to it."""
    counts = [min(min(len(text.spans[name]) for name in granularities), _ENOUGH) for text in texts]
    return counts.index(max(counts))


def recorded_geometry(file: Path) -> tuple[Geometry, ...]:
    """The measurements for the report; empty where they were not made or not completed."""
    if not file.is_file():
        return ()
    record: dict[str, Any] = read_json(file)
    entries = [{**entry, "texts": record["texts"]} for entry in record["layers"] if "after" in entry]
    return TypeAdapter(tuple[Geometry, ...]).validate_python(entries)


def cosines(vector_SD: Tensor) -> NDArray[np.float64]:
    """Cosine similarities of the spans of one text.

    Args:
        vector_SD: Span vectors; of a zero vector all similarities are 0.

    Returns:
        cosine_SS, float64.
    """
    direction_SD = functional.normalize(vector_SD.detach().cpu().double(), dim=-1)
    cosine_SS: NDArray[np.float64] = (direction_SD @ direction_SD.T).numpy()
    return cosine_SS


def agreement(student: Sequence[NDArray[np.float64]], teacher: Sequence[NDArray[np.float64]]) -> float | None:
    """Pearson correlation of two models' similarities over all pairs of two spans of one text.

    Args:
        student: Matrix of ``cosines`` of each text in one model.
        teacher: The same in the other model, of the same spans.

    Returns:
        The correlation; None where there are fewer than three pairs, or where a model has all spans alike.
    """
    one, two = (np.concatenate([text[np.triu_indices(len(text), 1)] for text in texts]) for texts in (student, teacher))
    if len(one) < _MIN_PAIRS or min(np.ptp(one), np.ptp(two)) < _ROUNDING:
        return None
    return float(np.corrcoef(one, two)[0, 1])
