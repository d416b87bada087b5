"""A teacher that answers from what was kept of it gives the losses and gradients of the live one."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from tqdm.auto import tqdm
from transformers import LlamaConfig, LlamaForCausalLM

from mta_framework import distributed
from mta_framework.alignment import Alignment, WeightedTerm, pairwise_cosines
from mta_framework.data.batches import Collator, collate
from mta_framework.models.decoder import shape_of
from mta_framework.models.state_reader import StateReader
from mta_framework.models.teacher_states import Teacher
from mta_framework.registry import discover
from mta_framework.teacher_cache import filling, store
from mta_framework.teacher_cache.filling import TeacherCache, WantedRecords
from mta_framework.teacher_cache.kinds import RecordedRun, TeacherWidths, supervised_positions
from mta_framework.training.distiller import Distiller, contribution
from mta_framework.types import Example, LayerPair, Progress

from .records import shards

REGISTRY = discover()
VOCABULARY = 40
PAIRS = (*(LayerPair(layer, 2 * layer, "words") for layer in (1, 2, 3)), LayerPair(3, 6, "phrases"))
BASE_LOSSES = [name for name in REGISTRY.names("base_losses") if name not in ("sft", "none", "policy_gradient")]


def model(layers, width, seed):
    torch.manual_seed(seed)
    sizes = {"hidden_size": width, "intermediate_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = LlamaConfig(vocab_size=VOCABULARY, num_hidden_layers=layers, max_position_embeddings=64, **sizes)
    return LlamaForCausalLM(config).eval()


def text(index, length, prompt, words, phrases):
    ids = np.random.default_rng(index).integers(3, VOCABULARY, length).astype(np.int32)
    spans = {
        name: np.array(pairs, dtype=np.int32).reshape(-1, 2) for name, pairs in (("words", words), ("phrases", phrases))
    }
    return Example(ids, prompt, spans, index=index)


TEXTS = [
    text(0, 12, 4, [(0, 2), (2, 3), (3, 6), (6, 7), (9, 12)], [(0, 3), (2, 7), (9, 12)]),
    replace(text(1, 9, 2, [(1, 4), (4, 5), (5, 9)], [(4, 9)]), supervised_T=np.array([0, 0, 1, 1, 0, 0, 1, 1, 1]) > 0),
    text(2, 5, 5, [(0, 1)], []),
    text(3, 7, 1, [(0, 1), (1, 2), (2, 5), (5, 6), (4, 7)], [(0, 2), (2, 7)]),
]


def retokenised(example):
    """With a teacher that has two tokens for each of the student's."""
    ids = np.repeat(example.input_ids, 2)
    supervised = None if example.supervised_T is None else np.repeat(example.supervised_T, 2)
    spans = {name: 2 * pairs for name, pairs in example.spans.items()}
    teacher = replace(
        example, input_ids=ids, prompt_length=2 * example.prompt_length, spans=spans, supervised_T=supervised
    )
    tokens = supervised_positions(example) + 1
    return replace(example, teacher=teacher, matched_R2=np.stack([tokens, 2 * tokens], axis=1).astype(np.int32))


class Case:
    """A student with a live teacher and with one by its records, on the same texts."""

    def __init__(
        self, folder, loss="kl", terms=(), importance="attention", pooling=None, split=False, dtype=torch.float32
    ):
        self.student, self.live = model(3, 16, 1), model(6, 24, 2).to(dtype).requires_grad_(False)
        self.texts = [retokenised(example) for example in TEXTS] if split else TEXTS
        self.base_loss = REGISTRY.create("base_losses", loss)
        shapes = shape_of(self.student), shape_of(self.live)
        self.loss_layers = tuple(self.base_loss.key_layers(*shapes))
        self.pairs = PAIRS if terms else ()
        self.alignment = None
        estimators = [name and REGISTRY.create("importance_estimators", name) for name in (importance, pooling)]
        if terms:
            torch.manual_seed(3)
            made = [WeightedTerm(REGISTRY.create("alignment_terms", *term), 0.7) for term in terms]
            ids = torch.arange(VOCABULARY)
            shared = (ids, ids) if split else None
            self.alignment = Alignment(self.pairs, estimators[0], made, *shapes, estimators[1], shared)
            if any(placed.term.num_texts for placed in self.alignment.terms):
                self._fit()
        widths = TeacherWidths(24, 24, str(dtype).removeprefix("torch."))
        placed = self.alignment.terms if terms else ()
        weighing = estimators if terms else [None, None]
        self.run = RecordedRun(
            widths, self.base_loss, self.loss_layers, self.pairs, placed, *weighing, has_shared_tokenizer=not split
        )
        self.collator = Collator(0, ("words", "phrases") if terms else (), 0)
        self.cache = TeacherCache(folder, self.run, [WantedRecords(self.texts, self.run.kinds())])

    def _fit(self):
        teacher = Teacher.of(self.live)
        batch = collate(self.texts, 0, ("words", "phrases"))
        reader = StateReader(self.student, {1, 2, 3})
        states = reader.read(batch.input_ids_BT, batch.attention_mask_BT), teacher.states(batch, {2, 4, 6}), batch
        for placed in self.alignment.terms:
            if placed.term.num_texts:
                self.alignment.fit(placed, [states])

    def kept_teacher(self):
        live = Teacher.of(self.live).states(collate(TEXTS[:1], 0, ()), {6})

        def unwanted():
            raise AssertionError("the live teacher was loaded")

        return Teacher(unwanted, lambda: (live.head, live.final_layers))

    def outcome(self, teacher, collator, texts=None):
        """Loss terms and gradients on a batch."""
        student = copy.deepcopy(self.student)
        distiller = Distiller(student, teacher, self.base_loss, self.alignment, self.pairs, self.loss_layers)
        batch = collator(texts or self.texts)
        terms = distiller(batch, Progress(0, 10, 0.0))
        parameters = [*student.parameters()]
        gradients = torch.autograd.grad(contribution(terms, dict(batch.counts)), parameters, allow_unused=True)
        return [(term.name, term.sum.item()) for term in terms], [g for g in gradients if g is not None]


def require_equal(case, rtol=1e-6, gradient=1e-5):
    live = case.outcome(Teacher.of(case.live), case.collator)
    missing = case.cache.missing(verify=True)
    assert len(missing) == len(case.texts)
    case.cache.fill(missing, Teacher.of(case.live), case.collator)
    assert not case.cache.missing(verify=True)
    reading = case.collator.with_teacher_records(case.cache.reader())
    kept = case.outcome(case.kept_teacher(), reading)
    for (name, expected), (_, value) in zip(live[0], kept[0], strict=True):
        assert value == pytest.approx(expected, rel=rtol, abs=rtol), name
    for expected, value in zip(live[1], kept[1], strict=True):
        torch.testing.assert_close(
            value, expected, rtol=10 * gradient, atol=gradient * expected.abs().max().item() + 1e-9
        )


@pytest.mark.parametrize(
    "loss", [name for name in REGISTRY.names("base_losses") if name not in ("sft", "none", "policy_gradient")]
)
def test_every_base_loss_is_that_of_the_live_teacher(loss, tmp_path):
    require_equal(Case(tmp_path, loss))


@pytest.mark.parametrize("term", REGISTRY.names("alignment_terms"))
def test_every_alignment_term_is_that_of_the_live_teacher(term, tmp_path):
    require_equal(Case(tmp_path, "kl", [(term,)]))


@pytest.mark.parametrize("loss", ["uld", "alm"])
def test_losses_across_tokenizers_are_those_of_the_live_teacher(loss, tmp_path):
    require_equal(Case(tmp_path, loss, split=True))


@pytest.mark.parametrize("term", ["dsa", "hid", "trajectory", "span_logits", "cka"])
def test_terms_across_tokenizers_are_those_of_the_live_teacher(term, tmp_path):
    require_equal(Case(tmp_path, "uld", [(term,)], split=True))


@pytest.mark.parametrize("importance", REGISTRY.names("importance_estimators"))
@pytest.mark.parametrize("pooling", [None, "uniform", "entropy"])
def test_every_importance_estimator_weighs_as_that_of_the_live_teacher(importance, pooling, tmp_path):
    require_equal(Case(tmp_path, "kl", [("dsa",), ("hid",), ("trajectory",)], importance, pooling))


def test_texts_are_compared_at_once_as_on_an_accelerator(tmp_path, monkeypatch):
    monkeypatch.setattr(pairwise_cosines, "_TEXT_BY_TEXT", set())
    require_equal(Case(tmp_path, "kl", [("dsa",), ("trajectory",)]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_states_that_are_kept_are_those_of_the_live_teacher_bit_by_bit(dtype, tmp_path):
    case = Case(tmp_path, "fdd", [("hid",)], dtype=dtype)
    case.cache.fill(case.cache.missing(verify=False), Teacher.of(case.live), case.collator)
    longest_first = sorted(case.texts, key=lambda text: -len(text.input_ids))  # the order in which they are recorded
    states = Teacher.of(case.live).states(case.collator(longest_first), range(1, 7))
    records = case.cache.reader()(longest_first)
    quantities = {slot.quantity for slot in records}
    assert quantities == {"final_states", "attended_states", "span_token_states", "token_weights"}
    for slot, kept in records.items():
        hidden_BTD = states.layers[slot.layer] if slot.layer else states.final_BTD
        rows = []
        for row_TD, text in zip(hidden_BTD, longest_first, strict=True):
            chosen = set(range(len(text.input_ids)))
            if slot.quantity == "final_states":
                chosen = set((supervised_positions(text)).tolist())
            elif slot.quantity == "span_token_states":
                chosen = {token for start, end in text.spans[slot.granularity] for token in range(start, end)}
            rows += [row_TD[token] for token in sorted(chosen)]
        if slot.quantity != "token_weights":
            assert kept.dtype == dtype
            assert torch.equal(kept, torch.stack(rows)), slot


@pytest.fixture
def small_files(monkeypatch):
    """The texts are recorded in three batches, each of which is written at once."""
    monkeypatch.setattr(filling, "_BATCH_TOKENS", 20)
    monkeypatch.setattr(filling, "_FLUSH_BYTES", 1)


def filled(case, batches=None):
    """Record what is missing, up to so many batches of the teacher."""
    teacher, calls = Teacher.of(case.live), []

    def collate_some(texts):
        if len(calls) == batches:
            raise KeyboardInterrupt
        calls.append(len(texts))
        return case.collator(texts)

    missing = case.cache.missing(verify=True)
    if batches is None:
        case.cache.fill(missing, teacher, collate_some)
    else:
        with pytest.raises(KeyboardInterrupt):
            case.cache.fill(missing, teacher, collate_some)
    return calls


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize("batches", [0, 1, 2])
@pytest.mark.parametrize("lost", [False, True])
def test_a_filling_that_was_interrupted_ends_in_the_bits_of_a_straight_one(batches, lost, tmp_path):
    straight, stopped = (Case(tmp_path / name, "kl", [("dsa",), ("hid",)]) for name in ("straight", "stopped"))
    assert filled(straight) == [1, 2, 1]
    assert filled(stopped, batches) == [1, 2, 1][:batches]
    if lost and batches:  # as if killed before this kind was written
        next((tmp_path / "stopped" / "records").glob("geometry-layer-4*/*.arrow")).unlink()
        stopped = Case(tmp_path / "stopped", "kl", [("dsa",), ("hid",)])
    filled(stopped)
    assert not stopped.cache.missing(verify=True)
    kept, expected = (case.cache.reader()(case.texts) for case in (stopped, straight))
    assert kept.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[slot]) for slot, tensor in kept.items())


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_the_progress_bar_counts_the_texts_of_all_processes(world_size, tmp_path, monkeypatch):
    class Main:
        num_processes, process_index, is_main_process, device = world_size, 0, True, torch.device("cpu")

        def wait_for_everyone(self):
            """The others are no more than thought of."""

    class Bar(tqdm):
        def close(self):
            shown.append((self.n, self.total))
            super().close()

    case, shown = Case(tmp_path, "kl", []), []
    for module in (filling, distributed):
        monkeypatch.setattr(module, "processes", Main)
    monkeypatch.setattr(filling, "tqdm", Bar)
    calls = filled(case)
    assert calls == [1, 2, 1][::world_size]
    assert set(shown) == {(4, 4)}


@pytest.mark.usefixtures("small_files")
def test_a_filling_ends_with_few_files_of_each_kind(tmp_path, monkeypatch):
    plain, merged = (Case(tmp_path / name, "kl", [("dsa",), ("hid",)]) for name in ("plain", "merged"))
    filled(plain)
    monkeypatch.setattr(store, "_MOST_SMALL", 1)
    filled(merged)
    folders = [path.name for path in (tmp_path / "plain" / "records").iterdir()]
    files = [[len(shards(tmp_path / name / "records" / folder)) for folder in folders] for name in ("plain", "merged")]
    assert files == [[3] * len(folders), [1] * len(folders)]
    kept, expected = (case.cache.reader()(case.texts) for case in (merged, plain))
    assert all(torch.equal(tensor, expected[slot]) for slot, tensor in kept.items())
