"""The teacher cache of a run: what it reads of its teacher, on which texts, and the teacher that answers by it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import cast

from transformers import PreTrainedModel

from mta_framework.alignment.objective import Alignment
from mta_framework.data.batches import Collator
from mta_framework.distributed import processes, run_on_main, shard
from mta_framework.endpoints.asker import Asker
from mta_framework.endpoints.server import Server
from mta_framework.errors import RunError, counted
from mta_framework.interfaces import MeasuringLayerMapper
from mta_framework.models.fingerprint import Content, fingerprints
from mta_framework.models.model_summary import ModelSummary
from mta_framework.models.run_models import RunModels
from mta_framework.models.teacher_states import Teacher
from mta_framework.runs.build import sampled_texts
from mta_framework.runs.model_checks import live_teacher_uses
from mta_framework.runs.plugin_binding import BoundRun
from mta_framework.runs.preparation import RunInputs
from mta_framework.runs.span_geometry import measured_texts
from mta_framework.spec.model_files import kept_records
from mta_framework.spec.several_teachers import teacher_field
from mta_framework.spec.teacher import TeacherServerSection
from mta_framework.teacher_cache.cache_plan import CachePlan, cache_plan, require_room
from mta_framework.teacher_cache.filling import TeacherCache, WantedRecords, filling_lock
from mta_framework.teacher_cache.kept_folders import given_teacher
from mta_framework.teacher_cache.kept_similarity import kept_similarity
from mta_framework.teacher_cache.kinds import ITEM_BYTES, RecordedRun, TeacherWidths
from mta_framework.teacher_cache.teacher_files import is_intact, load_parts, save_server, save_teacher
from mta_framework.teacher_cache.teacher_identity import TeacherIdentity, teacher_identity
from mta_framework.teacher_server.completions import Completions
from mta_framework.teacher_server.served_teacher import ServedTeacher
from mta_framework.training.train import total_steps
from mta_framework.types import Example, LayerPair, LayerSimilarity


def recorded_run(
    bound: BoundRun, inputs: RunInputs, run_models: RunModels, aligner: Alignment | None, pairs: Sequence[LayerPair]
) -> RecordedRun:
    """The parts of a run that decide what is kept of its teacher."""
    summary, section = run_models.teacher_summary, bound.spec.teacher
    assert summary is not None
    assert section is not None
    return RecordedRun(
        widths=TeacherWidths(summary.shape.hidden_size, _final_width(summary), summary.dtype),
        base_loss=bound.base_loss,
        loss_layers=inputs.loss_layers,
        pairs=pairs,
        terms=() if aligner is None else aligner.terms,
        importance=bound.importance,
        pooling=bound.pooling,
        has_shared_tokenizer=run_models.teacher_tokenizer is None,
        layer_states_in_8_bits=section.cache is not None and section.cache.layer_states == "8bit",
        top_logprobs=0 if section.server is None else section.server.top_logprobs,
    )


def _final_width(teacher: ModelSummary) -> int:
    """Width of the states that the teacher's head is applied to."""
    config = teacher.config.get_text_config(decoder=True)
    return getattr(config, "word_embed_proj_dim", teacher.shape.hidden_size)


def wanted_records(bound: BoundRun, inputs: RunInputs, run: RecordedRun) -> list[WantedRecords]:
    """The texts that training, validation, fitting and report read, with what they read of each."""
    validation = inputs.data.validation.examples if inputs.data.validation else []
    train = inputs.data.train.examples
    texts = [*_drawn_texts(bound, inputs), *validation]
    texts += [train[index] for index in sampled_texts(len(train), bound.spec.seed, _num_fitted(bound))]
    # With several teachers no similarities are measured for the report.
    measured = [] if bound.teacher_name else measured_texts(train, validation, run.pairs)
    return [WantedRecords(texts, run.kinds()), WantedRecords(measured, (*run.kinds(), *run.reported_kinds()))]


def _num_fitted(bound: BoundRun) -> int:
    return max((term.num_texts for term in bound.terms), default=0)


def _drawn_texts(bound: BoundRun, inputs: RunInputs) -> list[Example]:
    """The training texts whose responses some step trains on, each once."""
    policy, sampler = bound.base_loss.batch_policy(), inputs.sampler
    if policy is not None and not policy.USES_DATA_RESPONSES:
        return []
    steps, drawn = total_steps(bound.spec.training, sampler), dict[int, None]()
    for epoch in range(-(-steps // sampler.steps_per_epoch)):
        remaining = steps - epoch * sampler.steps_per_epoch
        drawn |= dict.fromkeys(sampler.global_batches(epoch)[:remaining].ravel().tolist())
    texts = [(inputs.all_train or inputs.data.train.examples)[index] for index in sorted(drawn)]
    return [text for text in texts if text.teacher_name == bound.teacher_name]


class RunCache:
    """The teacher cache of one run.

    Args:
        bound: The run, with ``teacher.cache`` or ``teacher.server``.
        inputs: What was prepared for it.
        run_models: Loads the teacher.
        known: Content of the inputs by dotted field, on the main process.
    """

    def __init__(self, bound: BoundRun, inputs: RunInputs, run_models: RunModels, known: Mapping[str, Content]):
        self._bound = bound
        self._inputs = inputs
        self._run_models = run_models
        self._known = known
        section = bound.spec.teacher
        assert section is not None
        self._section = section
        self._given = given_teacher(bound.spec)
        self._field = teacher_field(bound.teacher_name)
        self._of = f" of {self._field}" if bound.teacher_name else ""  # which of several

    @cached_property
    def _identity(self) -> TeacherIdentity:
        summary = self._run_models.teacher_summary
        assert summary is not None
        return run_on_main(lambda: teacher_identity(self._section, self._known, summary.dtype))

    @property
    def folder(self) -> Path:
        """Folder of the teacher in the cache."""
        return kept_records(self._given) or self._identity.folder_in(self._bound.spec.teacher_cache)

    def make_teacher(self) -> Teacher:
        """Make the teacher: it answers from the cache, and is run, or asked, for texts alone that are not there."""
        folder = self.folder  # on all processes alike, before what the main one does alone
        if self._section.server is not None:
            return self._served(self._section.server, folder)
        return Teacher(self._run_models.teacher, lambda: load_parts(self._given or folder, processes().device))

    def similarity(self, mapper: MeasuringLayerMapper, compare: Callable[[], LayerSimilarity]) -> LayerSimilarity:
        """The similarity of all layers: as it was measured before for equal models and texts, or measured now.

        Args:
            mapper: Layer mapper that asks for it.
            compare: Measures it.
        """
        train, seed = self._inputs.data.train.examples, self._bound.spec.seed
        texts = [train[index] for index in sampled_texts(len(train), seed, mapper.num_texts)]
        student = fingerprints(self._bound.spec, self._known, {})["initial_student"]
        with filling_lock(self.folder):
            return kept_similarity(self.folder, [student, sorted(mapper.granularities)], texts, compare)

    def opened(self, aligner: Alignment | None, pairs: Sequence[LayerPair]) -> TeacherCache:
        """Open what the run reads of the cache; nothing is made.

        Args:
            aligner: The alignment; None without one.
            pairs: Key layers of the alignment.
        """
        return self._opened_at(self.folder, aligner, pairs)

    def fill(self, cache: TeacherCache, teacher: Teacher, collator: Collator) -> int:
        """Make what the run reads and the cache lacks.

        Args:
            cache: What ``opened`` returned.
            teacher: The teacher; its model is loaded if anything is missing.
            collator: Makes batches without records.

        Returns:
            Number of texts that the teacher was run on.

        Raises:
            RunError: The teacher's weights are needed and not there, the disk has too little room, or the cache cannot
                be written to.
        """
        with filling_lock(self.folder):
            missing = run_on_main(lambda: cache.missing(verify=True))
            if missing and self._given is not None:
                lacking = counted(len(missing), "text")
                problem = f"lacks {lacking} of this run, and {self._given} holds no weights to make them"
                where = f"teacher cache{self._of}: {self.folder}"
                raise RunError(f"{where} {problem}. Run mta cache SPEC where the teacher is.")
            has_parts = run_on_main(lambda: not self._keeps_head or is_intact(self.folder))
            size = sum(kind.num_bytes(text) for text, kinds in missing for kind in kinds)
            size += 0 if has_parts else self._head_bytes
            run_on_main(partial(require_room, self.folder, size, self._field))
            if missing and processes().is_main_process:
                source = "" if self._section.server is None else f", from {self._section.server.url}"
                made = f"{counted(len(missing), 'text')}, {size / 2**20:,.0f} MiB{source}, to {self.folder}"
                print(f"Teacher cache{self._of}: {made}")
            if isinstance(teacher, ServedTeacher):
                self._ask(cache, teacher, [text for text, _ in missing])
                return len(missing)
            cache.fill(missing, teacher, collator, self._field if self._of else "Teacher")
            if not has_parts and processes().is_main_process:
                tokenizer = self._run_models.teacher_tokenizer or self._run_models.tokenizer
                save_teacher(self.folder, self._identity, cast(PreTrainedModel, teacher.model), tokenizer)
        processes().wait_for_everyone()
        return len(missing)

    def _served(self, section: TeacherServerSection, folder: Path) -> ServedTeacher:
        summary, models = self._run_models.teacher_summary, self._run_models
        assert summary is not None
        server = Server(section.url, section.key_env, section.timeout)
        share = max(1, section.concurrency // processes().num_processes)
        asker = Asker(self._field, server, section.max_requests, share, section.retries)
        vocabulary = summary.config.get_text_config(decoder=True).vocab_size
        completions = Completions(server, section.model, section.top_logprobs, vocabulary, self._field)
        return ServedTeacher(completions, asker, models.teacher_tokenizer or models.tokenizer, folder)

    def _ask(self, cache: TeacherCache, teacher: ServedTeacher, missing: Sequence[Example]) -> None:
        """Ask the server for this process's share of the texts, shortest and longest alike."""
        if processes().is_main_process:
            save_server(self.folder, self._identity)
        mine = shard(sorted(missing, key=lambda text: -len(text.input_ids)))
        teacher.ask(mine, cache.kept_text(missing), "text" if processes().is_main_process else "")
        processes().wait_for_everyone()
        cache.refresh()

    def plan(self, aligner: Alignment | None, pairs: Sequence[LayerPair]) -> CachePlan:
        """Plan what ``fill`` would make; nothing is read but the keys of what is there."""
        summary = self._run_models.teacher_summary
        assert summary is not None
        known = self._section.run is None or "teacher.run" in self._known
        cache = self._opened_at(self.folder if known else self._bound.spec.teacher_cache, aligner, pairs)
        server = "" if self._section.server is None else self._section.server.url
        live = live_teacher_uses(self._bound)
        return cache_plan(cache, summary.parameters, summary.dtype, self._head_bytes, live, server)

    @property
    def _keeps_head(self) -> bool:
        """Whether the head is kept beside the records; not of a folder that is the teacher, nor of one at a server."""
        return self._given is None and self._section.server is None

    @property
    def _head_bytes(self) -> int:
        summary = self._run_models.teacher_summary
        assert summary is not None
        if self._section.server is not None:
            return 0
        vocabulary = summary.config.get_text_config(decoder=True).vocab_size
        return vocabulary * _final_width(summary) * ITEM_BYTES[summary.dtype]

    def _opened_at(self, folder: Path, aligner: Alignment | None, pairs: Sequence[LayerPair]) -> TeacherCache:
        run = recorded_run(self._bound, self._inputs, self._run_models, aligner, pairs)
        return TeacherCache(folder, run, wanted_records(self._bound, self._inputs, run), self._given is None)
