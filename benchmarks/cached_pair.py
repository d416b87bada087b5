"""A student and its teacher, live and by a teacher cache, for ``cache.py``."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from workload import Workload

from mta_framework.alignment.objective import Alignment, WeightedTerm
from mta_framework.data.batches import Collator
from mta_framework.interfaces import BaseLoss, ImportanceEstimator
from mta_framework.models.decoder import shape_of
from mta_framework.models.state_reader import StateReader
from mta_framework.models.teacher_states import Teacher
from mta_framework.registry import discover
from mta_framework.teacher_cache.cache_plan import cache_plan
from mta_framework.teacher_cache.filling import TeacherCache, WantedRecords
from mta_framework.teacher_cache.kinds import RecordedRun, TeacherWidths
from mta_framework.teacher_cache.teacher_files import load_parts, save_teacher
from mta_framework.teacher_cache.teacher_identity import TeacherIdentity
from mta_framework.training.distiller import Distiller, contribution
from mta_framework.types import Batch, Example, Progress

PROGRESS = Progress(0, 1, 0.0)
TERMS = {"dsa": 2.0, "hid": 0.2}
XL = {"n_layer": 48, "n_embd": 1600, "n_head": 25}
SMALL = {"n_layer": 12, "n_embd": 768, "n_head": 12}
"""Shapes of GPT-2 XL and GPT-2, of 1.5 billion and 120 million parameters."""

TEACHER, STUDENT, KEPT = "teacher", "student", "teacher-without-weights"
"""Folders of a pair that ``write_pair`` wrote."""

_IDENTITY = TeacherIdentity("teacher", {"format": 1, "files": {}, "dtype": "float32", "settings": {}})


@dataclass(frozen=True)
class Texts:
    """Texts of each batch, and what makes batches of them.

    Args:
        batches: Texts of each batch.
        pad_token_id: Token used for padding.
        granularities: Granularities of the spans.
    """

    batches: list[list[Example]]
    pad_token_id: int
    granularities: tuple[str, ...]

    @property
    def all(self) -> list[Example]:
        """The texts of all batches."""
        return [text for batch in self.batches for text in batch]


class Pair:
    """KL with MTA of a student and a teacher in float32.

    Args:
        student: The student.
        live: The live teacher.
        recorded: The teacher without its weights.
        config: Configuration of the teacher.
        texts: Training texts.
        folder: Folder of the cache.
        is_8_bit: Whether states of layers are kept as 8-bit integers.
    """

    def __init__(
        self,
        student: nn.Module,
        live: Teacher,
        recorded: Teacher,
        config: Any,
        texts: Texts,
        folder: Path,
        is_8_bit: bool = False,
    ):
        registry, shapes = discover(), (shape_of(student), shape_of(config))
        self.student, self.live, self.texts, self.folder = student, live, texts, folder
        layers = {} if "phrases" in texts.granularities else {"words": 3, "phrases": 0}
        pairs = registry.create("layer_mappers", "proportional", layers).map(*shapes)
        importance: ImportanceEstimator = registry.create("importance_estimators", "attention")
        base_loss: BaseLoss = registry.create("base_losses", "kl")
        torch.manual_seed(0)
        terms = [WeightedTerm(registry.create("alignment_terms", name), weight) for name, weight in TERMS.items()]
        alignment = Alignment(pairs, importance, terms, *shapes)
        widths = TeacherWidths(shapes[1].hidden_size, shapes[1].hidden_size, "float32")
        run = RecordedRun(widths, base_loss, (), pairs, alignment.terms, importance, layer_states_in_8_bits=is_8_bit)
        self.cache = TeacherCache(folder, run, [WantedRecords(texts.all, run.kinds())])
        self._collator = Collator(texts.pad_token_id, texts.granularities)
        self._parameters = [*student.parameters(), *alignment.parameters()]
        self._optimizer = torch.optim.AdamW(self._parameters, lr=1e-6, fused=True)
        self._distillers = {
            cached: Distiller(student, teacher, base_loss, alignment, pairs)
            for cached, teacher in ((False, live), (True, recorded))
        }

    def make(self) -> tuple[float, list[Batch]]:
        """Make the cache; gives processor seconds, and the batches that the teacher was run on."""
        batches: list[Batch] = []

        def collate(texts: Sequence[Example]) -> Batch:
            batches.append(self._collator(texts))
            return batches[-1]

        begin = time.process_time()
        self.cache.fill(self.cache.missing(verify=True), self.live, collate)
        return time.process_time() - begin, batches

    def forward_seconds(self, batches: Sequence[Batch]) -> float:
        """Processor seconds of the teacher's decoder alone on some batches."""
        reader, begin = StateReader(self.live.model), time.process_time()
        with torch.inference_mode():
            for batch in batches:
                reader.read(batch.input_ids_BT, batch.attention_mask_BT)
        seconds = time.process_time() - begin
        reader.close()
        return seconds

    def collator(self, cached: bool) -> Collator:
        """The collator of a step; by the cache it reads what is on disk now."""
        self.cache.refresh()
        return self._collator.with_teacher_records(self.cache.reader() if cached else None)

    def step(self, texts: Sequence[Example], collator: Collator, cached: bool) -> tuple[float, float]:
        """Take a step; gives the processor seconds of making its batch, and of all of it."""
        begin = time.process_time()
        batch = collator(texts)
        collated = time.process_time()
        self._loss(batch, cached).backward()
        self._optimizer.step()
        self._optimizer.zero_grad()
        return collated - begin, time.process_time() - begin

    def steps(self) -> Iterator[dict[bool, tuple[float, float]]]:
        """Take the steps of all batches, live and by the cache in turn; the first warms up."""
        collators = {cached: self.collator(cached) for cached in (False, True)}
        for index, texts in enumerate(self.texts.batches):
            seconds = {cached: self.step(texts, collator, cached) for cached, collator in collators.items()}
            if index:
                yield seconds

    def gradient(self, texts: Sequence[Example], cached: bool) -> tuple[float, Tensor]:
        """The loss on some texts, and its gradient as one vector."""
        loss = self._loss(self.collator(cached)(texts), cached)
        loss.backward()
        gradient = torch.cat([it.grad.flatten() for it in self._parameters if it.grad is not None])
        self._optimizer.zero_grad()
        return loss.item(), gradient

    def sizes(self) -> tuple[int, int]:
        """Bytes of the records on disk, and those that the plan estimates."""
        on_disk = sum(path.stat().st_size for path in self.folder.rglob("*.arrow"))
        return on_disk, cache_plan(self.cache, 0, "float32", 0, ()).num_bytes

    def _loss(self, batch: Batch, cached: bool) -> Tensor:
        return contribution(self._distillers[cached](batch, PROGRESS), dict(batch.counts))


def live_pair(student: nn.Module, teacher: PreTrainedModel, texts: Texts, folder: Path, is_8_bit: bool = False) -> Pair:
    """The pair of two loaded models; the head that it has without the teacher's weights is that of the live one."""
    live = Teacher.of(teacher)
    states = live.states(Collator(texts.pad_token_id, ())(texts.all[:1]), ())
    assert states.final_layers is not None
    parts = states.head, states.final_layers
    return Pair(student, live, Teacher(_refuse, lambda: parts), teacher.config, texts, folder, is_8_bit)


def write_pair(workload: Workload, folder: Path) -> None:
    """Write both models of a workload, and the folder of the teacher without weights, for ``stored_pair``."""
    teacher, student = workload.teacher, workload.student
    assert isinstance(teacher, PreTrainedModel)
    assert isinstance(student, PreTrainedModel)
    teacher.save_pretrained(folder / TEACHER)
    student.save_pretrained(folder / STUDENT)
    save_teacher(folder / KEPT, _IDENTITY, teacher, workload.tokenizer)


def stored_pair(folder: Path, texts: Texts, cache: Path) -> Pair:
    """The pair that ``write_pair`` wrote; its live teacher is loaded when it is needed."""
    student = AutoModelForCausalLM.from_pretrained(folder / STUDENT).train()
    load = lambda: AutoModelForCausalLM.from_pretrained(folder / TEACHER).eval().requires_grad_(False)  # noqa: E731
    recorded = Teacher(_refuse, lambda: load_parts(folder / KEPT, "cpu"))
    return Pair(student, Teacher(load), recorded, AutoConfig.from_pretrained(folder / TEACHER), texts, cache)


def made_up_model(shape: dict[str, int], vocabulary: int) -> PreTrainedModel:
    """GPT-2 of a shape with random weights."""
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2", vocab_size=vocabulary, **shape))


def made_up_texts(vocabulary: int, batches: int, size: int) -> Texts:
    """Random texts of 40 to 90 tokens with words and phrases."""
    draw = np.random.default_rng(0)
    texts = [[_made_up_text(draw, vocabulary) for _ in range(size)] for _ in range(batches)]
    return Texts(texts, 0, ("words", "phrases"))


def _made_up_text(draw: np.random.Generator, vocabulary: int) -> Example:
    length = int(draw.integers(40, 90))
    cuts = np.unique(draw.integers(1, length, length)).astype(np.int32)
    spans = {name: np.stack([ends[:-1], ends[1:]], axis=1) for name, ends in (("words", cuts), ("phrases", cuts[::2]))}
    return Example(draw.integers(0, vocabulary, length).astype(np.int32), length // 3, spans)


def _refuse() -> nn.Module:
    raise AssertionError("the live teacher was loaded")
