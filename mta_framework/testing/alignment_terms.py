"""Contract tests of alignment terms."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, get_args

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mta_framework.alignment import Alignment, WeightedTerm
from mta_framework.errors import RunError
from mta_framework.interfaces import AlignmentTerm, ImportanceEstimator, TeacherNeed
from mta_framework.testing.plugin import PluginContract
from mta_framework.testing.values import batch_of, leaves, random_example, random_states, some_texts, with_garbage
from mta_framework.types import Batch, Example, LayerPair, LossTerms, ModelShape, Span, States

_SPANS: tuple[tuple[Span, ...], ...] = (
    ((0, 2), (1, 4), (4, 7)),
    ((0, 1), (2, 5)),
    (),
    ((0, 1), (1, 2), (2, 4), (3, 4), (4, 6)),
)
"""Spans of the texts, one of which has none."""

_NOT_A_SUM = (
    "the sums over two parts of a batch do not add up to that over the whole: compute must return a sum over texts, "
    "not a mean, and the value of a text must not depend on other texts or on padding"
)

_LENGTHS = (7, 5, 2, 6)

_STUDENT_IDS, _TEACHER_IDS = torch.tensor([0, 2, 3, 7, 10]), torch.tensor([4, 0, 9, 1, 3])
"""The tokens that both vocabularies have, where the teacher has another tokenizer."""


class _FirstEntry(ImportanceEstimator):
    """Weighs a token by the first entry of its state."""

    NAME = "first_entry"

    def weigh(self, states: States, layer: int, mask_BT: Tensor) -> Tensor:
        """Return weight_BT: above 0 on tokens."""
        return (states.layers[layer].detach()[..., 0].abs() + 0.1).float() * mask_BT


class _WithoutWaiting(TorchDispatchMode):
    """Refuses what would wait for an accelerator: reading a value, and tensors whose size depends on values."""

    _WAITING = frozenset({"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "equal"})

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        masks = (
            [index for index in args[1] if index is not None and index.dtype == torch.bool] if name == "index" else []
        )
        if name in self._WAITING or masks:
            raise AssertionError(f"{name} waits for the device; use index_select, torch.where or weights of 0")
        return func(*args, **(kwargs or {}))


class AlignmentTermContract(PluginContract):
    """Tests of an alignment term, which the fixture ``plugin`` returns.

    Attributes:
        PAIRS: Key layers at which it is tested; override them for a term that needs others.
        STUDENT: Shape of the student.
        TEACHER: Shape of the teacher.
    """

    CONTRACT = AlignmentTerm
    PAIRS: ClassVar[tuple[LayerPair, ...]] = tuple(LayerPair(layer, 2 * layer, "words") for layer in (2, 4, 6))
    STUDENT: ClassVar[ModelShape] = ModelShape(6, 8)
    TEACHER: ClassVar[ModelShape] = ModelShape(12, 10)

    def test_its_title_fits_into_a_table(self, plugin: AlignmentTerm) -> None:
        assert plugin.TITLE.strip() == plugin.TITLE
        assert plugin.TITLE.isprintable()
        assert len(plugin.TITLE) <= 30

    def test_it_says_whether_it_has_parameters(self, plugin: AlignmentTerm) -> None:
        module = plugin.make_module(self.STUDENT, self.TEACHER)
        trained = [] if module is None else [one for one in module.parameters() if one.requires_grad]
        assert plugin.has_parameters == bool(trained), "has_parameters must say whether make_module makes parameters"

    def test_it_chooses_some_of_the_key_layers(self, plugin: AlignmentTerm) -> None:
        chosen = plugin.key_layers(self.PAIRS)
        assert chosen
        assert set(chosen) <= set(self.PAIRS)
        assert len({*chosen}) == len(chosen), "a key layer must be chosen once"
        assert plugin.divisor(len(chosen)) >= 1

    def test_sums_are_finite_scalars_in_a_unit_of_the_batch_with_gradient(self, plugin: AlignmentTerm) -> None:
        for texts in _data(plugin):
            alignment, student, batch = self._made(plugin, texts)
            terms = alignment(student, self._teacher(texts), batch)
            assert len(terms) == len(plugin.key_layers(self.PAIRS))
            for term in terms:
                assert term.sum.shape == (), "compute must return a scalar: the sum over the texts"
                assert term.sum.requires_grad, "the sum has no gradient: it is detached from the student"
                assert term.sum.dtype == torch.float32
                assert torch.isfinite(term.sum)
                assert term.unit in batch.counts
            gradients = _gradients(terms, alignment, student)
            assert all(torch.isfinite(gradient).all() for gradient in gradients)
            assert any(gradient.any() for gradient in gradients[: len(leaves(student))])

    def test_without_spans_every_gradient_is_there_and_finite(self, plugin: AlignmentTerm) -> None:
        for texts in _data(plugin):
            bare = [_without_spans(text) for text in texts]
            alignment, student, batch = self._made(plugin, bare, fitted_on=texts)
            terms = alignment(student, self._teacher(bare), batch)
            for term in terms:
                assert term.sum.requires_grad
                assert batch.counts[term.unit] or term.sum.item() == 0
            assert all(torch.isfinite(gradient).all() for gradient in _gradients(terms, alignment, student))

    def test_sums_do_not_depend_on_how_the_batch_is_cut_and_padded(self, plugin: AlignmentTerm) -> None:
        for texts in _data(plugin):
            alignment, student, batch = self._made(plugin, texts)
            whole = alignment(student, self._teacher(texts), batch)
            parts = []
            for part in (slice(0, 1), slice(1, 4)):
                cut = batch_of(*texts[part])
                states = some_texts(student, part, cut.input_ids_BT.shape[1])
                parts.append(alignment(states, self._teacher(texts, part), cut))
            for index, term in enumerate(whole):
                total = parts[0][index].sum + parts[1][index].sum
                torch.testing.assert_close(total, term.sum, msg=lambda text: f"{_NOT_A_SUM}\n{text}")

    def test_what_stands_on_padding_has_no_effect_and_no_gradient(self, plugin: AlignmentTerm) -> None:
        for texts in _data(plugin):
            alignment, student, batch = self._made(plugin, texts)
            teacher = self._teacher(texts)
            clean = alignment(student, teacher, batch)
            masks = batch.attention_mask_BT, (batch.teacher or batch).attention_mask_BT
            dirty = alignment(with_garbage(student, masks[0]), with_garbage(teacher, masks[1]), batch)
            for clean_term, dirty_term in zip(clean, dirty, strict=True):
                torch.testing.assert_close(clean_term.sum, dirty_term.sum)
            for hidden_BTD in (student.layers[pair.student] for pair in self.PAIRS):
                (gradient,) = torch.autograd.grad(_total(clean), hidden_BTD, retain_graph=True, materialize_grads=True)
                assert not gradient[masks[0] == 0].any()

    def test_it_declares_what_it_reads_of_the_teacher_and_nothing_else(self, plugin: AlignmentTerm) -> None:
        for texts in _data(plugin):
            alignment, student, batch = self._made(plugin, texts)
            declared = tuple(plugin.teacher_needs(batch.teacher is None))
            unknown = set(declared) - set(get_args(TeacherNeed))
            assert not unknown, f"teacher_needs names {unknown}; there are {', '.join(get_args(TeacherNeed))}"
            for need in declared:
                alignment.terms[0].term = _declaring(plugin, [one for one in declared if one != need])
                refusal = ""
                try:
                    alignment(student, self._teacher(texts), batch)
                except RunError as error:
                    refusal = str(error)
                unread = f"compute reads nothing that needs {need!r}; leave it out of teacher_needs"
                assert f"must declare '{need}'" in refusal, unread

    def test_it_does_not_wait_for_the_device(self, plugin: AlignmentTerm) -> None:
        for texts in _data(plugin):
            alignment, student, batch = self._made(plugin, texts)
            teacher = self._teacher(texts)
            with _WithoutWaiting():
                _total(alignment(student, teacher, batch)).backward()

    def test_checkpoints_hold_all_that_its_modules_need(self, plugin: AlignmentTerm) -> None:
        for texts in _data(plugin):
            alignment, student, batch = self._made(plugin, texts)
            restored, _, _ = self._made(plugin, texts[:2])
            restored.load_state_dict(alignment.state_dict())
            values = [made(student, self._teacher(texts), batch) for made in (alignment, restored)]
            for term, again in zip(*values, strict=True):
                assert term.sum.item() == again.sum.item()

    def test_it_runs_under_autocast_with_a_teacher_of_inference_tensors(self, plugin: AlignmentTerm) -> None:
        for texts in _data(plugin):
            alignment, student, batch = self._made(plugin, texts)
            with torch.inference_mode():
                teacher = self._teacher(texts)
            with torch.autocast("cpu", torch.bfloat16):
                terms = alignment(student, teacher, batch)
            assert {term.sum.dtype for term in terms} == {torch.float32}
            assert all(torch.isfinite(gradient).all() for gradient in _gradients(terms, alignment, student))

    def _made(
        self, plugin: AlignmentTerm, texts: Sequence[Example], fitted_on: Sequence[Example] | None = None
    ) -> tuple[Alignment, States, Batch]:
        torch.manual_seed(0)
        term, importance = WeightedTerm(copy.copy(plugin), 1.0), _FirstEntry(_FirstEntry.Params())
        batch = batch_of(*texts)
        ids = (_STUDENT_IDS, _TEACHER_IDS) if batch.teacher else None
        alignment = Alignment(self.PAIRS, importance, [term], self.STUDENT, self.TEACHER, shared_vocabulary=ids)
        if plugin.num_texts:
            sample = texts if fitted_on is None else fitted_on
            of_sample = batch_of(*sample)
            states = random_states(of_sample, self.STUDENT), self._teacher(sample)
            alignment.fit(alignment.terms[0], [(*states, of_sample)])
        return alignment, random_states(batch, self.STUDENT, gradient=True), batch

    def _teacher(self, texts: Sequence[Example], part: slice = slice(None)) -> States:
        """The teacher's states on some texts, equal to those on the whole batch."""
        whole, cut = batch_of(*texts), batch_of(*texts[part])
        states = random_states(whole.teacher or whole, self.TEACHER, seed=1)
        return some_texts(states, part, (cut.teacher or cut).input_ids_BT.shape[1])


def _declaring(plugin: AlignmentTerm, needs: Sequence[TeacherNeed]) -> AlignmentTerm:
    """The same term, except that it declares other needs."""
    declaring = copy.copy(plugin)
    declaring.teacher_needs = lambda has_shared_tokenizer: needs  # type: ignore[method-assign]
    return declaring


def _data(plugin: AlignmentTerm) -> list[list[Example]]:
    """Four texts; once more with another tokenizer of the teacher, where the term takes that."""
    texts = [
        random_example(length, 1, seed=index, spans={"words": spans})
        for index, (length, spans) in enumerate(zip(_LENGTHS, _SPANS, strict=True))
    ]
    return [texts] if plugin.needs_shared_tokenizer else [texts, [_retokenised(text) for text in texts]]


def _retokenised(text: Example) -> Example:
    """With a teacher that has two tokens for each of the student's."""
    words = text.spans["words"]
    teacher = replace(text, input_ids=np.repeat(text.input_ids, 2), spans={"words": 2 * words})
    return replace(text, teacher=teacher, matched_R2=np.zeros((0, 2), dtype=np.int32))


def _without_spans(text: Example) -> Example:
    teacher = None if text.teacher is None else _without_spans(text.teacher)
    return replace(text, spans={"words": text.spans["words"][:0]}, teacher=teacher)


def _total(terms: LossTerms) -> Tensor:
    return torch.stack([term.sum for term in terms]).sum()


def _gradients(terms: LossTerms, alignment: Alignment, student: States) -> tuple[Tensor, ...]:
    """Gradients of all states of the student, then of the term's parameters, which must take part."""
    parameters = [parameter for parameter in alignment.parameters() if parameter.requires_grad]
    total = _total(terms)
    states = torch.autograd.grad(total, leaves(student), retain_graph=True, materialize_grads=True)
    return *states, *(torch.autograd.grad(total, parameters) if parameters else ())
