"""Models, texts and the implementations of a training step that ``step.py`` compares."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import naive
import torch
from torch import Tensor, nn

from mta_framework.alignment.objective import Alignment, WeightedTerm
from mta_framework.data.batches import GroupedSampler, collate
from mta_framework.data.prompts import Sample, render_prompts
from mta_framework.data.records import read_records
from mta_framework.data.tokens import SampleTokenizer, encode
from mta_framework.interfaces import BaseLoss, ImportanceEstimator, LayerMapper, SpanExtractor
from mta_framework.models.loading import load_student, load_teacher
from mta_framework.models.state_reader import StateReader, shape_of
from mta_framework.models.teacher_states import Teacher
from mta_framework.models.tokenizers import load_teacher_tokenizer
from mta_framework.models.turn_end import settle_turn_end
from mta_framework.registry import discover
from mta_framework.spec.data import DatasetSection
from mta_framework.spec.student import StudentSection
from mta_framework.spec.teacher import TeacherSection
from mta_framework.training.distiller import Distiller, contribution
from mta_framework.training.train import checkpoint_activations
from mta_framework.types import Batch, Example, Progress, States

PROGRESS = Progress(0, 1, 0.0)
_TERMS = {"dsa": 2.0, "hid": 0.2}
_GROUPED_BATCHES = 50


@dataclass(frozen=True)
class Texts:
    """One batch in both forms: as a run makes it, and padded to the maximal length for the naive implementation."""

    examples: list[Example]
    batch: Batch
    samples: list[Sample]
    input_ids_BT: Tensor
    mask_BT: Tensor
    supervised_BT: Tensor
    offsets_BT2: Tensor


LossFunction = Callable[[Texts], Tensor]
"""Computes the loss of a batch, forward passes included."""


@dataclass(frozen=True)
class Options:
    """Options of ``step.py``.

    Args:
        bases: Names of the base losses.
        steps: Number of measured steps; one more batch warms up.
        batch_size: Texts per batch.
        max_length: Most tokens of a text; the naive implementation pads to it.
        device: Device of the models.
        dtype: ``float32``, ``bfloat16`` or ``float16``: the teacher's dtype and the student's under autocast, with
            scaled gradients for ``float16``.
        spans: Name of the span extractor.
        importance: Name of the importance estimator.
        student: Section ``student`` of a spec; empty: 12 of the teacher's layers, or half of them if it has fewer than
            24.
        gradient_checkpointing: Whether the student's activations are recomputed in the backward pass.
    """

    bases: Sequence[str]
    steps: int
    batch_size: int = 8
    max_length: int = 256
    device: str = "cpu"
    dtype: str = "float32"
    spans: str = "spacy_phrases"
    importance: str = "attention"
    student: Mapping[str, Any] = field(default_factory=dict)
    gradient_checkpointing: bool = False


class Workload:
    """Student and teacher, base losses, alignment and batches.

    Args:
        data: JSON Lines file of rows.
        teacher: ``.gguf`` file or folder.
        options: Other options of ``step.py``.
    """

    def __init__(self, data: Path, teacher: Path, options: Options):
        self.device, self.dtype = options.device, options.dtype
        registry = discover()
        self.extractor: SpanExtractor = registry.create("span_extractors", options.spans)
        layers = {} if "phrases" in self.extractor.granularities else {"words": 3, "phrases": 0}
        mapper: LayerMapper = registry.create("layer_mappers", "proportional", layers)
        weigh: ImportanceEstimator = registry.create("importance_estimators", options.importance)
        self.bases: dict[str, BaseLoss] = {name: registry.create("base_losses", name) for name in options.bases}
        section = TeacherSection(path=str(teacher))
        self.tokenizer = load_teacher_tokenizer(section)
        self.teacher = load_teacher(section, None, options.dtype).to(self.device)
        self.student = self._student(options)
        shapes = shape_of(self.student), shape_of(self.teacher)
        self.pairs = mapper.map(*shapes)
        self._teacher_reader = StateReader(self.teacher, {pair.teacher for pair in self.pairs})
        self.loss_layers = {name: loss.key_layers(*shapes) for name, loss in self.bases.items()}
        torch.manual_seed(0)
        terms = [WeightedTerm(registry.create("alignment_terms", name), weight) for name, weight in _TERMS.items()]
        self.alignment = Alignment(self.pairs, weigh, terms, *shapes).to(self.device)
        self._registry, self._weigh, self._shapes = registry, weigh, shapes
        batches = sorted(self._batches(data, options), key=lambda batch: -len(batch[2].target_N))
        # The largest batch goes first, the others in random order.
        shuffled = [batches[0], *random.Random(0).sample(batches[1:], len(batches) - 1)]
        self.texts = [self._padded(*batch, options.max_length) for batch in shuffled]
        trained = [*self.student.parameters(), *self.alignment.parameters()]
        trained = [parameter for parameter in trained if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=1e-6, fused=True)  # as transformers' trainer does
        self._scaler = torch.amp.GradScaler(self.device, enabled=self.dtype == "float16")

    def _student(self, options: Options) -> nn.Module:
        depth = shape_of(self.teacher).num_layers
        count = 12 if depth >= 24 else max(depth // 2, 3)
        layers = sorted({round(1 + index * (depth - 1) / (count - 1)) for index in range(count)})
        section = StudentSection(**(options.student or {"teacher_layers": layers}))
        student = load_student(section, self.teacher, self.tokenizer, 0).to(self.device)
        if options.gradient_checkpointing:
            checkpoint_activations(student)
        return student

    def _batches(self, data: Path, options: Options) -> list[tuple[list[Sample], list[Example], Batch]]:
        rows = read_records(DatasetSection(path=str(data), limit=2000), "data")
        samples = render_prompts(rows, "alpaca", self.tokenizer)
        random.Random(0).shuffle(samples)
        prompts = self.tokenizer([sample.prompt for sample in samples])["input_ids"]
        samples = [sample for sample, ids in zip(samples, prompts, strict=True) if len(ids) <= options.max_length // 2]
        size, count = options.batch_size, options.steps + 1
        # A run groups texts by length among so many batches, which leaves little padding.
        samples = samples[: max(count, _GROUPED_BATCHES) * size]
        spans = self.extractor.extract([sample.text for sample in samples])
        side = SampleTokenizer(self.tokenizer, settle_turn_end(self.tokenizer, ()), options.max_length)
        encoded = encode(samples, spans, [side], options.max_length // 2).examples
        # For losses on pairs: the student wrote every other response.
        examples = [replace(example, by_student=index % 2 == 1) for index, example in enumerate(encoded)]
        sampler = GroupedSampler([len(e.input_ids) for e in examples], size, size, 1, seed=0)
        pad, granularities = self.tokenizer.pad_token_id, self.extractor.granularities
        batches = [([samples[i] for i in batch], [examples[i] for i in batch]) for batch in sampler]
        return [(*batch, collate(batch[1], pad, granularities).to(self.device)) for batch in batches[:count]]

    def _padded(self, samples: list[Sample], examples: list[Example], batch: Batch, max_length: int) -> Texts:
        rows, length = batch.input_ids_BT.shape
        padding = max_length - length
        supervised_BT = (
            torch.zeros(rows * length, device=self.device).index_fill_(0, batch.position_N, 1.0).view(rows, length)
        )
        offsets_BT2 = torch.zeros(rows, max_length, 2, dtype=torch.int64)
        for row, sample in enumerate(samples):
            tokens = self.tokenizer(sample.text, return_offsets_mapping=True, truncation=True, max_length=max_length)
            offsets_BT2[row, : len(tokens["offset_mapping"])] = torch.tensor(tokens["offset_mapping"])
        grow = lambda tensor, value=0: nn.functional.pad(tensor, (0, padding), value=value)  # noqa: E731
        ids_BT = grow(batch.input_ids_BT, self.tokenizer.pad_token_id)
        return Texts(examples, batch, samples, ids_BT, grow(batch.attention_mask_BT), grow(supervised_BT), offsets_BT2)

    def losses(self) -> Mapping[str, LossFunction]:
        """The loss functions that are compared, by name."""
        losses: dict[str, LossFunction] = {}
        for name in self.bases:
            losses |= {f"{name}, MTA off": self.loss(name), f"{name}, MTA on": self.loss(name, aligned=True)}
        return losses | ({"naive kl, MTA on": self._naive} if "kl" in self.bases else {})

    def loss(self, base: str, aligned: bool = False) -> LossFunction:
        """One base loss, without MTA or with it."""
        alignment, pairs = (self.alignment, self.pairs) if aligned else (None, ())
        layers = self.loss_layers[base]
        return self._ours(Distiller(self.student, Teacher.of(self.teacher), self.bases[base], alignment, pairs, layers))

    def aligned_by(self, terms: Sequence[str]) -> LossFunction:
        """KL with some alignment terms, each of weight 1 and default options; no alignment where there are none."""
        kl = self.bases["kl"]
        if not terms:
            return self._ours(Distiller(self.student, Teacher.of(self.teacher), kl))
        weighted = [WeightedTerm(self._registry.create("alignment_terms", name), 1.0) for name in terms]
        alignment = Alignment(self.pairs, self._weigh, weighted, *self._shapes).to(self.device)
        return self._ours(Distiller(self.student, Teacher.of(self.teacher), kl, alignment, self.pairs))

    def _ours(self, distiller: Distiller) -> LossFunction:
        return lambda texts: contribution(distiller(texts.batch, PROGRESS), dict(texts.batch.counts))

    def step(self, loss_of: LossFunction, texts: Texts) -> None:
        """Run one optimiser step."""
        with self._autocast():
            loss = loss_of(texts)
        self._scaler.scale(loss).backward()
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.optimizer.zero_grad()

    def run_teacher(self, texts: Texts) -> None:
        """Run the teacher's decoder alone, which a step need not do where the teacher's states are known."""
        with torch.inference_mode():
            self._teacher_reader.read(texts.batch.input_ids_BT, texts.batch.attention_mask_BT)

    def _autocast(self) -> torch.autocast:
        reduced = torch.bfloat16 if self.dtype == "float32" else getattr(torch, self.dtype)
        return torch.autocast(self.device, reduced, enabled=self.dtype != "float32")

    def _naive(self, texts: Texts) -> Tensor:
        inputs = {"input_ids": texts.input_ids_BT, "attention_mask": texts.mask_BT, "use_cache": False}
        student = self.student(**inputs, output_hidden_states=True)
        with torch.no_grad():
            teacher = self.teacher(**inputs, output_hidden_states=True)
        spans = self._parsed(texts)
        return self._naive_loss(
            student.logits, teacher.logits, student.hidden_states, teacher.hidden_states, spans, texts
        )

    def _parsed(self, texts: Texts) -> dict[str, list[list[list[int]]]]:
        whole = [sample.text for sample in texts.samples]
        names = {pair.granularity for pair in self.pairs}
        return {name: naive.token_spans(self.extractor, whole, texts.offsets_BT2, name) for name in names}

    def _naive_loss(self, student_BTV, teacher_BTV, student, teacher, spans, texts: Texts) -> Tensor:  # type: ignore[no-untyped-def]
        """Loss from whole logits and from hidden states by layer."""
        projections = self.alignment.term_modules["hid"]
        dsa, hid = naive.alignment(student, teacher, projections, self.pairs, spans, texts.mask_BT)
        return naive.kl(student_BTV, teacher_BTV, texts.supervised_BT) + 2.0 * dsa + 0.2 * hid

    def loss_parts(self, texts: Texts) -> Mapping[str, Callable[[], None]]:
        """The work between the decoders' hidden states and their gradients, forward and backward, by name."""
        read = [(pair.student, pair.teacher) for pair in self.pairs]
        read += [pair for layers in self.loss_layers.values() for pair in layers]
        reader = StateReader(self.student, {layer for layer, _ in read})
        teacher_reader = StateReader(self.teacher, {layer for _, layer in read})
        batch = texts.batch
        with torch.no_grad():
            teacher = teacher_reader.read(batch.input_ids_BT, batch.attention_mask_BT, batch.attended_A)
            with self._autocast():
                student = reader.read(batch.input_ids_BT, batch.attention_mask_BT, batch.attended_A)
        reader.close()
        teacher_reader.close()

        def part(loss: BaseLoss, layers: Sequence[tuple[int, int]], aligned: bool) -> None:
            leaves = _leaves(
                student, {layer for layer, _ in layers} | ({p.student for p in self.pairs} if aligned else set())
            )
            with self._autocast():
                terms = loss.compute(leaves, teacher, batch, PROGRESS)
                terms += self.alignment(leaves, teacher, batch) if aligned else ()
                total = contribution(terms, dict(batch.counts))
            total.backward()
            self.optimizer.zero_grad()

        parts: dict[str, Callable[[], None]] = {}
        for name, loss in self.bases.items():
            for state, aligned in (("off", False), ("on", True)):
                parts[f"{name}, MTA {state}"] = partial(part, loss, self.loss_layers[name], aligned)
        return parts | ({"naive kl, MTA on": self._naive_part(texts)} if "kl" in self.bases else {})

    def _naive_part(self, texts: Texts) -> Callable[[], None]:
        reader = StateReader(self.student, {pair.student for pair in self.pairs})
        teacher_reader = StateReader(self.teacher, {pair.teacher for pair in self.pairs})
        with torch.no_grad():
            teacher = teacher_reader.read(texts.input_ids_BT, texts.mask_BT)
            with self._autocast():
                states = reader.read(texts.input_ids_BT, texts.mask_BT)
        reader.close()
        teacher_reader.close()
        spans = self._parsed(texts)

        def work() -> None:
            student = _leaves(states, states.layers)
            with self._autocast():
                student_BTV = student.final_BTD @ student.head.weight_VD.T
                teacher_BTV = teacher.final_BTD @ teacher.head.weight_VD.T
                loss = self._naive_loss(student_BTV, teacher_BTV, student.layers, teacher.layers, spans, texts)
            loss.backward()
            self.optimizer.zero_grad()

        return work


def _leaves(states: States, layers: Collection[int]) -> States:
    """Copy the states that are used to leaves that require a gradient."""
    chosen = {layer: states.layers[layer] for layer in layers}
    leaf = {id(tensor): tensor.detach().clone().requires_grad_() for tensor in (states.final_BTD, *chosen.values())}
    kept = {layer: leaf[id(tensor)] for layer, tensor in chosen.items()}
    return replace(states, final_BTD=leaf[id(states.final_BTD)], layers=kept)
