"""Contract tests of base losses."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from mta_framework.alignment.unchanged_inputs import unchanged_inputs
from mta_framework.interfaces import BaseLoss
from mta_framework.testing.batch_policies import BatchPolicyContract
from mta_framework.testing.plugin import PluginContract, copied_state
from mta_framework.testing.values import (
    VOCABULARY,
    as_kept,
    batch_of,
    leaves,
    random_example,
    random_states,
    some_texts,
    with_garbage,
)
from mta_framework.training.returned_terms import require_names, terms_of
from mta_framework.types import Batch, Example, LossTerms, ModelShape, Progress, States

_UNDECLARED = "key_layers does not choose it: with teacher.cache it is not there"
_UNKEPT = (
    "compute reads final states of the teacher at positions that are not supervised, or states of padding: with "
    "teacher.cache they are NaN. Select the rows of batch.position_N (of batch.teacher where there is one) first"
)


class BaseLossContract(PluginContract, BatchPolicyContract):
    """Tests of a base loss and of its batch policy; the fixture ``plugin`` returns a new base loss.

    Attributes:
        STUDENT: Shape of the student; override it for options that name layers beyond it.
        TEACHER: Shape of the teacher; override it likewise.
    """

    CONTRACT = BaseLoss
    STUDENT: ClassVar[ModelShape] = ModelShape(6, 8)
    TEACHER: ClassVar[ModelShape] = ModelShape(12, 5)

    def test_its_title_fits_into_a_table(self, plugin: BaseLoss) -> None:
        assert plugin.TITLE.strip() == plugin.TITLE
        assert plugin.TITLE.isprintable()
        assert len(plugin.TITLE) <= 30

    def test_key_layers_lie_within_both_models(self, plugin: BaseLoss) -> None:
        for student_layer, teacher_layer in plugin.key_layers(self.STUDENT, self.TEACHER):
            assert 1 <= student_layer <= self.STUDENT.num_layers
            assert 1 <= teacher_layer <= self.TEACHER.num_layers

    def test_terms_are_finite_scalars_in_a_unit_of_the_batch_with_gradient(self, plugin: BaseLoss) -> None:
        for texts in _data(plugin):
            student, batch = self._student(texts)
            terms = self._terms(plugin, student, batch)
            assert bool(terms) is not plugin.NEEDS_ALIGNMENT
            for term in terms:
                assert term.sum.shape == ()
                assert term.sum.dtype == torch.float32
                assert torch.isfinite(term.sum)
                assert term.unit in batch.counts
            if terms:
                gradients = _gradients(terms, student)
                assert all(torch.isfinite(gradient).all() for gradient in gradients)
                assert any(gradient.any() for gradient in gradients)

    def test_nothing_to_count_gives_zeros_that_hang_on_the_graph(self, plugin: BaseLoss) -> None:
        for texts in _data(plugin):
            student, batch = self._student(_unsupervised(texts))
            terms = self._terms(plugin, student, batch)
            for term in terms:
                if batch.counts[term.unit] == 0:
                    assert term.sum.item() == 0
                    assert term.sum.requires_grad or term.weight == 0
            if terms:
                assert all(torch.isfinite(gradient).all() for gradient in _gradients(terms, student))

    def test_sums_do_not_depend_on_how_the_batch_is_cut_and_padded(self, plugin: BaseLoss) -> None:
        for texts in _data(plugin):
            student, batch = self._student(texts)
            whole = self._terms(copy.deepcopy(plugin), student, batch)
            parts = []
            for part in (slice(0, 1), slice(1, 3)):
                cut = batch_of(*texts[part])
                states = some_texts(student, part, cut.input_ids_BT.shape[1])
                parts.append(self._terms(copy.deepcopy(plugin), states, cut, self._teacher(texts, part)))
            for index, term in enumerate(whole):
                assert term.unit == parts[0][index].unit == parts[1][index].unit
                torch.testing.assert_close(parts[0][index].sum + parts[1][index].sum, term.sum)

    def test_what_stands_on_padding_has_no_effect_and_no_gradient(self, plugin: BaseLoss) -> None:
        for texts in _data(plugin):
            student, batch = self._student(texts)
            clean = self._terms(copy.deepcopy(plugin), student, batch)
            dirty = self._terms(copy.deepcopy(plugin), with_garbage(student, batch.attention_mask_BT), batch)
            for clean_term, dirty_term in zip(clean, dirty, strict=True):
                torch.testing.assert_close(clean_term.sum, dirty_term.sum)
            if clean:
                assert not _gradients(clean, student)[0][batch.attention_mask_BT == 0].any()

    def test_of_the_teacher_it_reads_supervised_positions_and_its_key_layers_alone(self, plugin: BaseLoss) -> None:
        layers = {layer for _, layer in plugin.key_layers(self.STUDENT, self.TEACHER)}
        for texts in _data(plugin) if plugin.NEEDS_TEACHER else ():
            student, batch = self._student(texts)
            live = self._teacher(texts)
            kept = as_kept(live, batch.teacher or batch, layers)
            outcomes = []
            for teacher in (live, kept):
                try:
                    terms = self._terms(copy.deepcopy(plugin), student, batch, teacher)
                except KeyError as error:
                    raise AssertionError(f"compute reads layer {error} of the teacher, but {_UNDECLARED}") from error
                outcomes.append([*(term.sum for term in terms), *(_gradients(terms, student) if terms else ())])
            for expected, actual in zip(*outcomes, strict=True):
                assert torch.allclose(actual, expected), _UNKEPT

    def test_a_teacher_with_a_padded_vocabulary_is_taken(self, plugin: BaseLoss) -> None:
        student, batch = self._student(_data(plugin)[0])
        teacher = random_states(batch, self.TEACHER, vocabulary=VOCABULARY + 5, seed=1)
        for term in self._terms(plugin, student, batch, teacher):
            assert torch.isfinite(term.sum)

    def test_terms_are_the_same_ones_at_every_step_and_whoever_wrote_the_texts(self, plugin: BaseLoss) -> None:
        for texts in _data(plugin):
            by_student = [replace(text, by_student=True) for text in texts]
            batches = [batch_of(*given) for given in (texts, by_student, texts[1:], _unsupervised(texts))]
            batches.append(replace(batches[0], by_student_B=None))
            kinds = []
            for batch in batches:
                for step in (0, 3, 4):
                    terms = self._terms(plugin, random_states(batch, self.STUDENT), batch, step=step)
                    kinds.append([(term.name, term.unit) for term in terms])
            assert kinds == kinds[:1] * len(kinds)

    def test_state_survives_a_checkpoint(self, plugin: BaseLoss) -> None:
        successor = copy.deepcopy(plugin)
        student, batch = self._student(_data(plugin)[0])
        for _ in range(3):
            terms = self._terms(plugin, student, batch)
            values = {term.name: term.sum.item() / max(batch.counts[term.unit], 1) for term in terms}
            plugin.observe({**values, "loss": sum(term.weight * values[term.name] for term in terms)})
        successor.restore(copied_state(plugin.state()))
        assert successor.state() == plugin.state()
        sums = [[term.sum.item() for term in self._terms(loss, student, batch)] for loss in (plugin, successor)]
        assert sums[0] == sums[1]

    def _student(self, texts: Sequence[Example]) -> tuple[States, Batch]:
        batch = batch_of(*texts)
        return random_states(batch, self.STUDENT, gradient=True), batch

    def _teacher(self, texts: Sequence[Example], part: slice = slice(None)) -> States:
        """The teacher's states on some texts, equal to those on the whole batch."""
        whole, cut = batch_of(*texts), batch_of(*texts[part])
        states = random_states(whole.teacher or whole, self.TEACHER, seed=1)
        return some_texts(states, part, (cut.teacher or cut).input_ids_BT.shape[1])

    def _terms(
        self, plugin: BaseLoss, student: States, batch: Batch, teacher: States | None = None, step: int = 3
    ) -> LossTerms:
        if teacher is None:
            teacher = random_states(batch.teacher or batch, self.TEACHER, seed=1)
        given, label = teacher if plugin.NEEDS_TEACHER else None, f"base loss {plugin.NAME!r}"
        with unchanged_inputs(label, student=student, teacher=given, batch=batch):
            terms = terms_of(plugin.compute(student, given, batch, Progress(step, 10, step / 10)), label)
        require_names(terms, label, ())
        return terms


def _data(plugin: BaseLoss) -> Sequence[list[Example]]:
    """Three texts, the first with two answers, the second by the student, the third without response.

    The log-probabilities of the student's first two tokens are known.

    They are also given in two tokenizations where the loss takes them.
    """
    lengths = ((7, 2), (5, 2), (2, 2))
    texts = [
        random_example(
            length,
            prompt,
            seed=index,
            spans={"words": [(0, 1), (1, 2)]},
            by_student=index == 1,
            log_probs=(-2.0, -0.5) if index == 1 else None,
            gap=(4, 5) if index == 0 else None,
        )
        for index, (length, prompt) in enumerate(lengths)
    ]
    if plugin.NEEDS_SHARED_VOCABULARY:
        return [texts]
    return [texts, [_retokenised(text) for text in texts]]


def _retokenised(text: Example) -> Example:
    """The text with the teacher's tokens: one more in the prompt, one more in the response."""
    length, prompt = len(text.input_ids), text.prompt_length
    responds = length > prompt
    teacher = random_example(length + 1 + responds, prompt + 1, seed=length, spans={"words": [(0, 2), (2, 3)]})
    supervised = range(prompt, length) if text.supervised_T is None else np.flatnonzero(text.supervised_T)
    matched_R2 = [[token, token + 1] for token in supervised]
    return replace(text, teacher=teacher, matched_R2=np.array(matched_R2, dtype=np.int32).reshape(-1, 2))


def _unsupervised(texts: Sequence[Example]) -> list[Example]:
    prompts = []
    for text in texts:
        teacher = text.teacher and replace(text.teacher, prompt_length=len(text.teacher.input_ids))
        matched_R2 = None if text.matched_R2 is None else text.matched_R2[:0]
        nothing = replace(text, prompt_length=len(text.input_ids), supervised_T=None)
        prompts.append(replace(nothing, teacher=teacher, matched_R2=matched_R2))
    return prompts


def _gradients(terms: LossTerms, student: States) -> tuple[Tensor, ...]:
    """Gradients of the total; every process must give one to all trained parameters, if only zeros."""
    total = torch.stack([term.weight * term.sum for term in terms if term.weight]).sum()
    final, *others = torch.autograd.grad(total, leaves(student), retain_graph=True, allow_unused=True)
    assert final is not None, "the total does not depend on the student's final states"
    assert others[0] is not None, "the total does not depend on the student's head"
    return final, *(gradient for gradient in others if gradient is not None)
