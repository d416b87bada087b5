"""The contracts that plugins fulfil. No torch at run time, so that plugins can be listed at once.

A plugin class has a ``NAME`` (what a spec calls it), a nested ``Params`` (its options; frozen, unknown ones forbidden)
and one contract method. It is created once per run, when the spec is bound.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from mta_framework.types import (
    Answers,
    Batch,
    Example,
    LayerPair,
    LayerSimilarity,
    LossTerms,
    MeanKind,
    ModelShape,
    Overlap,
    Progress,
    Responder,
    ScoreSet,
    SpanSet,
    States,
)

if TYPE_CHECKING:
    from torch import Tensor


class PluginParams(BaseModel):
    """Base of every plugin's options: immutable, and an unknown option is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, allow_inf_nan=False)


class PluginChoice(PluginParams):
    """An option that names another plugin of the same family, which becomes a part of this one."""

    name: str = Field(min_length=1, description="Name of an installed plugin.")
    params: dict[str, Any] = Field(default_factory=dict, description="Its options.")


class Plugin(ABC):
    """What all families share.

    A plugin with options of type ``PluginChoice`` is created with the plugins that they name, as keyword arguments
    called like the options.
    """

    NAME: ClassVar[str]

    class Params(PluginParams):
        """No options."""

    def __init__(self, params: PluginParams):
        self.params = params

    def require(self) -> str | None:
        """What is missing on this machine to run, as a sentence that says how to get it; None if nothing is."""
        return None


class SpanExtractor(Plugin):
    """Finds the spans of a text.

    Attributes:
        VERSION: Part of the cache key: raise it whenever the same text and options give other spans.
    """

    VERSION: ClassVar[str]

    @property
    @abstractmethod
    def granularities(self) -> tuple[str, ...]:
        """The granularities of every span set that ``extract`` returns, e.g. ``("words", "phrases")``."""

    @abstractmethod
    def extract(self, texts: Sequence[str]) -> list[SpanSet]:
        """Find spans.

        Pure: the same text gives the same spans, alone or among others. Called in worker processes, so load parsers
        lazily; batching and processes are the core's business.

        Args:
            texts: Any strings; empty ones, emoji and any script included.

        Returns:
            One span set per text, with every granularity of ``granularities``; half-open ``[start, end)`` character
            offsets, ``0 <= start < end <= len(text)``, sorted by start, without repetition, lying to each other as
            ``overlap`` promises. A text without spans has empty lists.
        """

    def overlap(self, granularity: str) -> Overlap:
        """How any two spans of this granularity may lie to each other in one text; what is promised is checked."""
        return "any"

    def failures(self, texts: Sequence[str]) -> list[int]:
        """How many stretches of each text cannot be parsed, and therefore yield no spans.

        Asked beside ``extract``, for statistics: it may parse anew. Extractors that can parse anything keep the zeros.

        Args:
            texts: As for ``extract``.
        """
        return [0] * len(texts)

    def fingerprint(self) -> str:
        """What the spans depend on besides the text, as JSON: cached spans are used again only where it is the same.

        Override it to add the versions of a parser and its model, reading them without loading either.
        """
        options = self.params.model_dump(mode="json")
        return json.dumps({"name": self.NAME, "version": self.VERSION, "params": options}, sort_keys=True)


class ImportanceEstimator(Plugin):
    """Weighs the tokens of a text.

    Attributes:
        BY_TEACHER: Whether it weighs by what the teacher makes of the text in the end, whatever the key layer: then it
            is asked once for each micro-batch, with the teacher's states, and the student's tokens get the same
            weights. A student with a tokenizer of its own has other tokens, which are weighed by its own states.
    """

    BY_TEACHER: ClassVar[bool] = False

    @abstractmethod
    def weigh(self, states: States, layer: int, mask_BT: Tensor) -> Tensor:
        """Importance of every token.

        Args:
            states: Of the model whose tokens are weighed, student or teacher.
            layer: The 1-based key layer at hand; of no importance with ``BY_TEACHER``.
            mask_BT: 1 on tokens, 0 on padding.

        Returns:
            weight_BT, float32, non-negative, 0 on padding, without gradient. Its scale per text is free: pooling
            normalises.
        """


class LayerMapper(Plugin):
    """Chooses the key layers."""

    @property
    @abstractmethod
    def granularities(self) -> tuple[str, ...]:
        """The granularities that the returned pairs use; binding refuses extractors that lack one."""

    @abstractmethod
    def map(self, student: ModelShape, teacher: ModelShape) -> list[LayerPair]:
        """Choose key layers.

        Returns:
            Pairs, sorted by student layer; layers are 1-based and within the depth of their model.

        Raises:
            ValueError: No such choice exists for these two models; its message reads ``what is wrong; what is
                allowed. What to do.``
        """


class MeasuringLayerMapper(LayerMapper):
    """Chooses the key layers by what the models make of the training texts, before the first step.

    ``map`` is asked as well, before any weights are loaded: it refuses models that are too small, and tells plans what
    to expect: as many pairs, of the same granularities.
    """

    @property
    @abstractmethod
    def texts(self) -> int:
        """On how many texts of the training set the layers are compared."""

    @abstractmethod
    def choose(self, similarity: LayerSimilarity) -> list[LayerPair]:
        """Choose key layers; asked once per run.

        Args:
            similarity: Of the student as it starts and the teacher, by the directions of the vectors of spans of
                ``granularities``.

        Returns:
            As ``map``.

        Raises:
            ValueError: As ``map``.
        """


class Rollouts(ABC):
    """What a batch policy may ask for: responses written during training, and what comes next.

    Every process calls with the same texts and gets the same answers; the work is shared among them.

    Attributes:
        seed: Of the run.
        steps_per_epoch: Optimiser steps.
    """

    seed: int
    steps_per_epoch: int

    @abstractmethod
    def respond(self, prompts: Sequence[Example], by: Responder, temperature: float) -> list[Example]:
        """Responses to these prompts by a model as it is now, drawn anew at every step.

        Args:
            prompts: Texts, of which only the prompts matter.
            by: The model.
            temperature: Of sampling, above 0, from the whole distribution.

        Returns:
            One text per prompt, in their order, with its spans. The response is supervised from its first token on;
            one that came to an end ends with the end-of-text token, once; it may be empty but for that.
        """

    @abstractmethod
    def stored(self, prompts: Sequence[Example], by: Responder, temperature: float, state: str) -> list[Example]:
        """As ``respond``, but kept on disk by model state and prompt: the same prompt gives the same response.

        Args:
            prompts: As above. What is not on disk is generated in bulk.
            by: The model.
            temperature: As above.
            state: What ``model_state`` said of the model when its responses were first asked for.

        Raises:
            RunError: Responses are missing on disk, and the model has changed since.
        """

    @abstractmethod
    def model_state(self, by: Responder) -> str:
        """A digest of a model's weights as they are now."""

    @abstractmethod
    def upcoming(self, steps: int) -> list[Example]:
        """The texts of the data that the next steps will be given, the present one included; each once.

        Args:
            steps: Optimiser steps; those after the end of training are left out.
        """


class BatchPolicy(ABC):
    """Decides what is trained on, step by step: the data, or responses that are written during training.

    Every process has its own copy, and all copies make the same decisions: whatever is random comes from the seed and
    the step alone.

    Attributes:
        RESPONDERS: The models that write responses.
        NEEDS_VALIDATION: Whether ``validated`` is what it lives on.
        TEXTS_PER_PROMPT: How many texts ``draw`` makes of each that it is given; the plan's memory depends on it.
    """

    RESPONDERS: ClassVar[tuple[Responder, ...]] = ("student",)
    NEEDS_VALIDATION: ClassVar[bool] = False
    TEXTS_PER_PROMPT: ClassVar[int] = 1

    @abstractmethod
    def draw(self, batch: Sequence[Example], rollouts: Rollouts, progress: Progress) -> Sequence[Example]:
        """Choose what one step is trained on.

        Args:
            batch: The whole global batch of the data, over all micro-batches and processes.
            rollouts: Writes responses.
            progress: Steps that are done.

        Returns:
            The whole global batch to train on: as many texts, or the same multiple of it at every step.
        """

    def check(self, batch_size: int) -> None:  # noqa: B027
        """Refuse global batches of this many texts before anything slow starts.

        Raises:
            ValueError: The policy can't work with them; its message reads ``what is wrong; what is allowed. What to
                do.``
        """

    def validated(self, cross_entropy: float) -> None:  # noqa: B027
        """The student's cross-entropy on the validation set, before the first step and after each epoch."""

    def state(self) -> JsonValue:
        """All that the next decisions depend on, besides seed and progress; part of every checkpoint."""
        return None

    def restore(self, state: JsonValue) -> None:  # noqa: B027
        """Go on from what ``state`` gave."""


class BaseLoss(Plugin):
    """The loss that spans are added to.

    Attributes:
        NEEDS_TEACHER: Whether ``compute`` uses the teacher.
        NEEDS_SHARED_VOCABULARY: Whether it compares tokens one by one, so that teacher and student must have the same;
            if not, it has to cope with ``batch.teacher``.
    """

    NEEDS_TEACHER: ClassVar[bool] = True
    NEEDS_SHARED_VOCABULARY: ClassVar[bool] = True

    @abstractmethod
    def compute(self, student: States, teacher: States | None, batch: Batch, progress: Progress) -> LossTerms:
        """The loss on one micro-batch, as sums (``mta_framework.chunked_loss`` does it without whole logits).

        Args:
            student: With gradient; ``layers`` has those of ``key_layers``, and perhaps others.
            teacher: Without gradient; None where ``NEEDS_TEACHER`` is false.
            batch: What is supervised, and the counts that the sums are divided by.
            progress: For schedules.

        Returns:
            Terms whose units are keys of ``batch.counts``, the same ones at every call. Where a micro-batch has nothing
            of a term's unit (no supervised token, say), it is a zero that still hangs on the student's graph.
        """

    def key_layers(self, student: ModelShape, teacher: ModelShape) -> Sequence[tuple[int, int]]:
        """Pairs of layers, the student's and the teacher's, from 1, whose states ``compute`` reads.

        Raises:
            ValueError: As ``LayerMapper.map``.
        """
        return ()

    def batch_policy(self) -> BatchPolicy | None:
        """A new policy for one run; None: every step is trained on the data as they are."""
        return None

    def observe(self, values: Mapping[str, float]) -> None:
        """The value of each term over the global batch, by name and without its weight; after every step."""

    def state(self) -> JsonValue:
        """What later steps depend on, besides progress; part of every checkpoint."""
        return None

    def restore(self, state: JsonValue) -> None:
        """Go on from what ``state`` gave."""


class Metric(Plugin):
    """Scores generated text against references.

    Attributes:
        HIGHER_IS_BETTER: Whether a higher score is the better one.
        MEAN: How scores are averaged over prompts; a geometric mean needs scores above 0.
    """

    HIGHER_IS_BETTER: ClassVar[bool] = True
    MEAN: ClassVar[MeanKind] = "arithmetic"

    @abstractmethod
    def score(self, answers: Answers) -> ScoreSet:
        """Score predictions, each for itself.

        Args:
            answers: Predictions, references and what else there is to go by; there may be none at all.

        Returns:
            One finite score per prediction, in their order.
        """

    def spent(self) -> Mapping[str, float]:
        """What scoring has cost since the metric was created, by name, e.g. requests and tokens; for the report."""
        return {}

    def definition(self) -> Mapping[str, JsonValue]:
        """The options that scores depend on: only scores of the same name and definition are compared.

        Override it where some options tell merely how the work is done.
        """
        return self.params.model_dump(mode="json")


class PairwiseMetric(Metric):
    """A metric that can also say which of two responses to a prompt is the better one."""

    @abstractmethod
    def prefer(self, first: Answers, second: Answers) -> ScoreSet:
        """Compare two models' responses to the same prompts.

        Args:
            first: Of one model.
            second: Of the other: the same questions and references, in the same order.

        Returns:
            For each prompt 1 where the second response is better, 0 where the first is, 0.5 where neither is.
        """
