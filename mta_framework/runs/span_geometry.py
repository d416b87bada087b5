"""What training does to the geometry of spans: teacher, student before and student after, on the same few texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from mta_framework.distributed import processes, run_on_main
from mta_framework.evaluation.report import Geometry
from mta_framework.storage import read_json, write_json
from mta_framework.training.distiller import Distiller
from mta_framework.training.trainer import TrainingData
from mta_framework.types import Example

_TEXTS = 16

_SHOWN = 24
"""Spans of the text that is shown, at the most: its last ones, since prompts begin alike."""

_ENOUGH = 8
"""Spans of each granularity that make a text worth showing."""

_MOST = 256
"""Spans of each text that are compared, at the most: its last ones."""

_DIGITS = 4


class SpanGeometry:
    """Measures a distiller before and after its training, and keeps both in a file of the run folder.

    It looks at the first texts of the validation set, or of the training set where there is none. With several
    processes the main one measures.

    Args:
        distiller: Without alignment there is nothing to measure.
        data: What it is trained on.
        tokenizer: The student's.
        file: Where to.
    """

    def __init__(self, distiller: Distiller, data: TrainingData, tokenizer: PreTrainedTokenizerBase, file: Path):
        self._distiller = distiller
        self._collator = data.collator
        self._tokenizer = tokenizer
        self._file = file
        self._pairs = distiller.alignment.pairs if distiller.alignment is not None else ()
        self._texts = _chosen(data.validation or data.train, {pair.granularity for pair in self._pairs})

    def before(self) -> None:
        """Measure the student as it is before the first step, unless that was done."""
        if self._texts:
            run_on_main(self._measure_before)

    def after(self) -> None:
        """Measure the trained student."""
        if self._texts:
            run_on_main(self._measure_after)

    def _measure_before(self) -> None:
        layers = [] if self._file.is_file() else self._measured()
        if not layers or not all(layer.is_finite for layer in layers):
            return  # known already; or the first step will stop the run, and say why
        shown = _best(self._texts, {pair.granularity for pair in self._pairs})
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

    def _measure_after(self) -> None:
        if not self._file.is_file():
            return
        kept, layers = read_json(self._file), self._measured()
        if all(layer.is_finite for layer in layers):
            for entry, layer in zip(kept["layers"], layers, strict=True):
                entry |= {"after": layer.student(kept["shown"]), "agreement_after": layer.agreement}
            write_json(self._file, kept)

    def _measured(self) -> list[_KeyLayer]:
        layers = [_KeyLayer([], []) for _ in self._pairs]
        device, training = processes().device, self._distiller.training
        self._distiller.to(device).eval()
        for text in self._texts:
            vectors = self._distiller.span_vectors(self._collator([text]).to(device))
            for layer, (own_SD, other_SD) in zip(layers, vectors, strict=True):
                layer.own.append(cosines(own_SD[-_MOST:]))
                layer.other.append(cosines(other_SD[-_MOST:]))
        self._distiller.train(training)
        return layers

    def _labels(self, text: Example, granularity: str) -> list[str]:
        shown = text.spans[granularity][-_SHOWN:].tolist()
        return [" ".join(self._decoded(text, start, end).split()) for start, end in shown]

    def _decoded(self, text: Example, start: int, end: int) -> str:
        return str(self._tokenizer.decode(text.input_ids[start:end].tolist()))


@dataclass(frozen=True)
class _KeyLayer:
    """The cosines of each text, the student's and the teacher's."""

    own: list[NDArray[np.float64]]
    other: list[NDArray[np.float64]]

    @property
    def is_finite(self) -> bool:
        return all(np.isfinite(text).all() for text in (*self.own, *self.other))

    @property
    def agreement(self) -> float | None:
        found = agreement(self.own, self.other)
        return None if found is None else round(found, _DIGITS)

    def student(self, text: int) -> list[list[float]]:
        return _matrix(self.own[text])

    def teacher(self, text: int) -> list[list[float]]:
        return _matrix(self.other[text])


def _matrix(cosine_SS: NDArray[np.float64]) -> list[list[float]]:
    rows: list[list[float]] = cosine_SS[-_SHOWN:, -_SHOWN:].round(_DIGITS).tolist()
    return rows


def _chosen(examples: Sequence[Example], granularities: set[str]) -> list[Example]:
    """The first texts that have a pair of spans of some granularity."""
    found: list[Example] = []
    for example in examples if granularities else ():
        if max(len(example.spans[name]) for name in granularities) > 1:
            found.append(example)
        if len(found) == _TEXTS:
            break
    return found


def _best(texts: Sequence[Example], granularities: set[str]) -> int:
    """The number of the first text that has enough spans, or of that which comes nearest."""
    counts = [min(min(len(text.spans[name]) for name in granularities), _ENOUGH) for text in texts]
    return counts.index(max(counts))


def recorded_geometry(file: Path) -> tuple[Geometry, ...]:
    """What was measured, for the report; nothing where it was not, or not to the end."""
    if not file.is_file():
        return ()
    kept: dict[str, Any] = read_json(file)
    entries = [{**entry, "texts": kept["texts"]} for entry in kept["layers"] if "after" in entry]
    return TypeAdapter(tuple[Geometry, ...]).validate_python(entries)


_LEAST = 3
"""Pairs of spans: two lie on a line whatever they are."""

_ALIKE = 1e-9
"""Cosines that differ by less differ by rounding."""


def cosines(vector_SD: Tensor) -> NDArray[np.float64]:
    """Cosine similarities of all spans of one text, (S, S); a zero vector is similar to nothing."""
    direction_SD = functional.normalize(vector_SD.detach().double().cpu(), dim=-1)
    found: NDArray[np.float64] = (direction_SD @ direction_SD.T).numpy()
    return found


def agreement(own: Sequence[NDArray[np.float64]], other: Sequence[NDArray[np.float64]]) -> float | None:
    """Pearson correlation of two models' similarities over all pairs of two spans of one text.

    Args:
        own: For each text its cosines, as ``cosines`` gives them.
        other: The other model's, of the same texts and spans.

    Returns:
        None where there are fewer than three pairs, or where one of the models has all spans alike.
    """
    one, two = (np.concatenate([text[np.triu_indices(len(text), 1)] for text in texts]) for texts in (own, other))
    if len(one) < _LEAST or min(np.ptp(one), np.ptp(two)) < _ALIKE:
        return None
    return float(np.corrcoef(one, two)[0, 1])
