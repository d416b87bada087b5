"""The contract of alignment terms, and the key layers that they compare."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from mta_framework.interfaces.plugin import Plugin
from mta_framework.types import Batch, FinalLayers, Head, LayerPair, ModelShape, SpanIndex, texts_with_spans

if TYPE_CHECKING:
    from torch import Tensor, nn

TeacherNeed = Literal[
    "geometry", "change_geometry", "span_vectors", "span_weights", "token_weights", "span_tokens", "states", "head"
]
"""What an alignment term may read of the teacher: see ``TeacherLayer``."""


class SpanCosines(Protocol):
    """Cosines between all spans of each text, in one model: all that is kept of it where only angles are needed."""

    def select(self, span_K: Tensor) -> SpanCosines:
        """Restrict it to some spans.

        Args:
            span_K: int64, ascending indices of the spans that are kept; they are numbered anew from 0.
        """

    def subtract_from(self, cosine_RS: Tensor, text: slice, rows: slice) -> None:
        """Subtract the cosines of some spans with all spans of their text, in place.

        Args:
            cosine_RS: Matrix to subtract from: one row for each span of ``rows``, one column for each of ``text``.
            text: Spans of one text, or of several, of which the cosines between spans of two texts are ignored.
            rows: Spans of the rows, a part of ``text``.
        """


class StudentLayer(Protocol):
    """The student's side of a key layer. All tensors have a gradient."""

    @property
    def index(self) -> SpanIndex:
        """Spans of the key layer's granularity in the student's tokens."""

    @property
    def hidden_BTD(self) -> Tensor:
        """Hidden states of all tokens, padding included."""

    @property
    def span_token_UD(self) -> Tensor:
        """States of the distinct tokens that lie in a span (``index.token_U``), in at least float32."""

    @property
    def span_vector_SD(self) -> Tensor:
        """Span vectors in at least float32, pooled by the student's token weights."""

    @property
    def head(self) -> Head:
        """Head of the student."""

    @property
    def final_layers(self) -> FinalLayers:
        """Modules between the student's last decoder block and its head."""


class TeacherLayer(StudentLayer, Protocol):
    """The teacher's side of a key layer: without gradient; tensors may be inference tensors.

    A term declares what it reads (``AlignmentTerm.teacher_needs``); reading anything else stops the run. The index is
    free; ``hidden_BTD`` needs ``states``, ``span_token_UD`` needs ``span_tokens``, ``span_vector_SD`` needs
    ``span_vectors``, ``head`` and ``final_layers`` need ``head``. What is declared may be read at each key layer of the
    term, also through ``KeyLayer.previous``; at other key layers nothing of the teacher can be read. Of a term that
    declares ``head`` and has a key layer below a model's last, ``final_layers.norm`` is not None: other models are
    refused before training.
    """

    @property
    def token_weight_U(self) -> Tensor:
        """Weight of each distinct token of a span, times the number of spans that contain it (``token_weights``).

        The weights of a text sum to 1; those of a text whose tokens all have weight 0 are 0.
        """

    @property
    def span_weight_S(self) -> Tensor:
        """Weight of each span, the sum of the weights of its tokens (``span_weights``); those of a text sum to 1.

        Source: MTA (arXiv 2605.01374v2), Eq. 9.
        """

    @property
    def geometry(self) -> SpanCosines:
        """Cosines between the span vectors of each text (``geometry``)."""

    @property
    def change_geometry(self) -> SpanCosines:
        """Cosines between the changes of spans from the previous key layer to this one (``change_geometry``).

        The change of a span is the difference of the directions of its two vectors: ``U' / |U'| - U / |U|``.
        """


class KeyLayer(Protocol):
    """One key layer on one micro-batch, as an alignment term sees it. Everything is computed when it is first read."""

    @property
    def pair(self) -> LayerPair:
        """Layers of student and teacher, and the granularity of their spans."""

    @property
    def student(self) -> StudentLayer:
        """The student's side."""

    @property
    def teacher(self) -> TeacherLayer:
        """The teacher's side, restricted to what the term declared."""

    @property
    def batch(self) -> Batch:
        """The micro-batch in the student's tokens."""

    @property
    def previous(self) -> KeyLayer | None:
        """The key layer of the same granularity below this one; None at the lowest."""

    @property
    def has_shared_tokenizer(self) -> bool:
        """Whether both models read the same tokens, so that token t of one is token t of the other."""

    @property
    def shared_vocabulary(self) -> tuple[Tensor, Tensor] | None:
        """Ids of the tokens that both vocabularies have, int64: the student's and, in the same order, the teacher's.

        None where an id means the same token to both models, apart from ids that only one of them has. It is never
        empty: reading it where the vocabularies share no token stops the run.
        """

    @property
    def spans_per_text(self) -> tuple[int, ...]:
        """Number of spans of each text; span vectors and weights have the rows of one text after another."""


class AlignmentTerm(Plugin):
    """One part of the alignment loss: compares spans or tokens of student and teacher at a key layer.

    The alignment asks for the sum at each of ``key_layers``, divides it by the count of ``unit`` in the global batch
    and by ``divisor``, and multiplies it by the weight in the spec.

    Attributes:
        TITLE: Name of the term in tables of results, as papers print it; empty means ``NAME``.
    """

    TITLE: ClassVar[str] = ""

    @property
    def has_parameters(self) -> bool:
        """Whether ``make_module`` makes parameters to train, with the options of this instance; False by default."""
        return False

    @property
    def needs_shared_tokenizer(self) -> bool:
        """Whether it compares token by token, with the options of this instance; False by default."""
        return False

    @property
    def num_texts(self) -> int:
        """Number of texts of the training set that it is fitted on before the first step; by default 0, not fitted."""
        return 0

    @abstractmethod
    def teacher_needs(self, has_shared_tokenizer: bool) -> Collection[TeacherNeed]:
        """Declare what ``compute`` reads of the teacher; nothing else is computed or kept for it.

        Args:
            has_shared_tokenizer: Whether both models read the same tokens.
        """

    @abstractmethod
    def compute(self, layer: KeyLayer, module: nn.Module | None) -> Tensor:
        """Compute the term at one key layer of one micro-batch, as a sum over the texts.

        The value of a text must not depend on the other texts of the batch, nor on padding. States and batch are
        shared by all terms, and must not be changed in place. No matrix may be as large
        as the product of two sizes of the batch, and nothing may wait for the device (``.item()``, ``nonzero``).

        Args:
            layer: The key layer. On a device, spans and tokens are selected by ``index_select``.
            module: What ``make_module`` returned for this key layer.

        Returns:
            Scalar in at least float32: the sum over the texts, to be divided by the count of ``unit``. Where no text
            has spans it is 0 and still part of the graph, with a gradient for every parameter of ``module``.
        """

    def unit(self, granularity: str) -> str:
        """Name the unit, a key of ``Batch.counts``, that the sum is divided by: by default texts with spans."""
        return texts_with_spans(granularity)

    def key_layers(self, pairs: Sequence[LayerPair]) -> Sequence[LayerPair]:
        """Choose the key layers at which the term is computed, each once; by default all.

        Args:
            pairs: Key layers of the alignment.

        Raises:
            ValueError: It cannot be computed with these key layers. Its message reads ``problem; expected NOUN PHRASE.
                What to do.``
        """
        return pairs

    def divisor(self, num_layers: int) -> int:
        """Return what the sum over key layers is divided by: by default their number, for the mean over them.

        Args:
            num_layers: Number of key layers at which the term is computed.
        """
        return num_layers

    def make_module(self, student: ModelShape, teacher: ModelShape) -> nn.Module | None:
        """Make what the term needs at one key layer besides the states, e.g. a projection; by default None.

        Parameters are trained at ``alignment.projection_learning_rate``; they and the buffers are saved in checkpoints
        and left out of the export. It is called once for each key layer, in their order, after torch was seeded; and
        once on the meta device before any weights are read.

        Args:
            student: Depth and width of the student.
            teacher: Depth and width of the teacher.

        Raises:
            ValueError: It cannot be computed with models of these shapes. Its message is as that of ``key_layers``.
        """
        return None

    def collect(self, layer: KeyLayer, module: nn.Module | None) -> None:
        """Collect what ``fit`` needs of some of the ``num_texts`` texts at one key layer; by default nothing.

        It is called before the first step, on the main process alone, with the texts of the data and an untrained
        student in evaluation mode, without gradient; not for a dry run, and not for a run that resumes from a
        checkpoint. The texts are drawn at random by the seed of the run.

        Args:
            layer: The key layer on a few of the texts. Keep sums of its states, not the states.
            module: What ``make_module`` returned for this key layer, on the device of the states. Sums may be kept in
                an attribute of it.
        """

    def fit(self, module: nn.Module | None) -> None:
        """Set the buffers of ``module`` by what was collected at its key layer; by default nothing.

        Every process gets the buffers of the main process, and checkpoints hold them.

        Args:
            module: What ``make_module`` returned for a key layer.

        Raises:
            ValueError: It cannot be fitted on these texts. Its message is as that of ``key_layers``.
        """
