"""The values that travel between the stages. No torch at run time: annotations only.

Shape suffixes, used throughout the project:

    B  texts of a batch          T  tokens, padded            D  width of the hidden states
    V  vocabulary                N  supervised positions      S  spans of one granularity in a batch
    M  (token, span) memberships U  distinct tokens that lie in some span
    A  attended tokens: all but padding             R  matched positions of two tokenizations
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

Span = tuple[int, int]
"""Half-open ``[start, end)`` range of character offsets into a text."""

SpanSet = Mapping[str, Sequence[Span]]
"""The spans of one text by granularity, e.g. ``{"words": [(0, 3)], "phrases": []}``."""

Overlap = Literal["none", "nested", "any"]
"""How two spans may lie to each other: apart; apart or one inside the other; in any way."""

TOKENS = "tokens"
"""Unit of counting: supervised positions of the batch."""

TEXTS = "texts"
"""Unit of counting: texts of the batch with at least one supervised position."""

ATTENDED = "attended tokens"
"""Unit of counting: tokens of the batch that are no padding, prompts included."""

MATCHED = "matched positions"
"""Unit of counting: positions of a response at which teacher and student, with tokenizers of their own, have read the
same text and are about to go on."""

TEXTS_BY_STUDENT = "texts by the student"
"""Unit of counting: texts with at least one supervised position whose response the student wrote."""

TEXTS_BY_OTHERS = "texts by others"
"""Unit of counting: the other texts with a supervised position: responses of the data set or of the teacher."""

SHARE_BY_STUDENT = "share_by_student"
"""In the log: which share of the texts of the last steps the student wrote."""

Responder = Literal["student", "teacher"]
"""Who writes responses during training."""


def texts_with_spans(granularity: str) -> str:
    """Unit of counting: texts with at least one span of ``granularity`` (Hid averages over these)."""
    return f"texts with {granularity}"


def texts_with_pairs(granularity: str) -> str:
    """Unit of counting: texts with at least two spans of ``granularity`` (DSA averages over these)."""
    return f"texts with pairs of {granularity}"


@dataclass(frozen=True)
class ModelShape:
    """What a layer mapper needs to know of a model: number of decoder blocks and width of the hidden states."""

    num_layers: int
    hidden_size: int


@dataclass(frozen=True, order=True)
class LayerPair:
    """A key layer: the student's layer, the teacher's layer that it is compared to (both 1-based), the granularity."""

    student: int
    teacher: int
    granularity: str

    def __str__(self) -> str:
        return f"{self.student}->{self.teacher} {self.granularity}"


@dataclass(frozen=True)
class LayerSimilarity:
    """How alike the layers of two models are on some texts: linear CKA, 1 where one is the other turned and scaled.

    Args:
        across: ``across[s - 1][t - 1]``: the student's layer s and the teacher's layer t.
        within: ``within[s - 1][r - 1]``: two layers of the student.
    """

    across: tuple[tuple[float, ...], ...]
    within: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Head:
    """The map from final hidden states to next-token logits: ``cap(scale * (h W^T + b))``.

    Args:
        weight_VD: Output embedding; it gets a gradient only where ``requires_grad`` is set.
        bias_V: Bias, or None.
        scale: Factor on the logits (1 for most models).
        softcap: ``c`` in ``c * tanh(logits / c)`` (Gemma 2), or None.
    """

    weight_VD: Tensor
    bias_V: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None


@dataclass(frozen=True)
class FinalLayers:
    """What lies between the last decoder block and the head.

    Args:
        shape: Of the model.
        norm: The final norm, or None where the architecture has none or hides it.
        projection: From the hidden states' width to the head's, which some OPT models have, or None.
    """

    shape: ModelShape
    norm: Callable[[Tensor], Tensor] | None = None
    projection: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True)
class States:
    """Hidden states of one model on one batch.

    Args:
        final_BTD: After the final norm; what the head is applied to.
        layers: 1-based key layer -> hidden_BTD after that block; the last layer is read after the final norm.
        head: The model's head.
        tail: What comes before the head: for losses that read intermediate layers out. Always there during training.
        input_ids_BT: The tokens that the states are of. Always there during training.
    """

    final_BTD: Tensor
    layers: Mapping[int, Tensor]
    head: Head
    tail: FinalLayers | None = None
    input_ids_BT: Tensor | None = None


@dataclass(frozen=True)
class SpanIndex:
    """The spans of one granularity in a batch, ragged: no padding to the longest list.

    Tokens are numbered flat, ``b * T + t``. Spans are numbered text by text, so the spans of one text are a slice.

    Args:
        token_M: int64, the token of each (token, span) membership.
        span_M: int64, its span, ascending.
        text_S: int64, the text of each span, ascending.
        token_U: int64, the distinct tokens of ``token_M``, ascending.
        multiplicity_U: float32, in how many spans each of them lies.
        spans_per_text: B plain integers, known without asking the device.
    """

    token_M: Tensor
    span_M: Tensor
    text_S: Tensor
    token_U: Tensor
    multiplicity_U: Tensor
    spans_per_text: tuple[int, ...]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> SpanIndex:
        """A copy on ``device``."""
        return _moved(self, device, non_blocking)


@dataclass(frozen=True)
class Example:
    """One text as tokens.

    Args:
        input_ids: int32, prompt and response.
        prompt_length: How many of them are the prompt; the others are supervised.
        spans: Granularity -> (K, 2) int32 half-open token ranges.
        by_student: Whether the student wrote the response, during training.
        prompt_text: The prompt as text.
        prompt_offsets: (prompt_length, 2) int32, the character range of each token of the prompt.
        prompt_cuts: Where the text of prompt and response is cut before it is parsed; none: it is parsed as a whole.
        teacher: The same text in the teacher's tokens, where its tokenizer is another one: with the same spans, in the
            same order.
        matched_R2: int32, the tokens of this text and of ``teacher`` that are predicted from the same text.
        number: What messages call the text: its place in the data set, from 0; -1 where that is unknown. A response
            that is written during training is called as the text that its prompt comes from.
    """

    input_ids: NDArray[np.int32]
    prompt_length: int
    spans: Mapping[str, NDArray[np.int32]]
    by_student: bool = False
    prompt_text: str = ""
    prompt_offsets: NDArray[np.int32] | None = None
    teacher: Example | None = None
    matched_R2: NDArray[np.int32] | None = None
    prompt_cuts: tuple[int, ...] = ()
    number: int = -1

    @property
    def prompt_ids(self) -> NDArray[np.int32]:
        """The tokens of the prompt."""
        return self.input_ids[: self.prompt_length]


@dataclass(frozen=True)
class Batch:
    """A micro-batch: right-padded token ids, what is supervised, and where the spans are.

    Args:
        input_ids_BT: int64.
        attention_mask_BT: int64, 1 on tokens and 0 on padding.
        position_N: int64, flat positions ``b * T + t`` whose next token is supervised.
        target_N: int64, the token that follows each of them.
        spans: Granularity -> index; empty without alignment.
        counts: Unit -> how many of it this micro-batch holds. Loss terms name the unit that they are averaged over, so
            the trainer can divide by the count of the whole global batch before any forward pass.
        by_student_B: bool, whether the student wrote the response; None: it wrote none of them.
        teacher: The same texts in the teacher's tokens, where its tokenizer is another one, with the same spans in the
            same order; None: the two share a tokenizer.
        matched_R: int64, flat positions of this batch from which the next token is predicted at the same place of the
            text as from ``matched_teacher_R``; None where the tokenizer is shared.
        matched_teacher_R: int64, flat positions of ``teacher``.
        number_B: int64, what messages call the texts, see ``Example.number``; None: all are unknown.
    """

    input_ids_BT: Tensor
    attention_mask_BT: Tensor
    position_N: Tensor
    target_N: Tensor
    spans: Mapping[str, SpanIndex] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    by_student_B: Tensor | None = None
    teacher: Batch | None = None
    matched_R: Tensor | None = None
    matched_teacher_R: Tensor | None = None
    number_B: Tensor | None = None

    @property
    def text_N(self) -> Tensor:
        """int64, the text of each supervised position."""
        return self.position_N // self.input_ids_BT.shape[1]

    @property
    def attended_A(self) -> Tensor:
        """int64, the flat positions ``b * T + t`` that are no padding."""
        return self.attention_mask_BT.flatten().nonzero().squeeze(1)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """A copy on ``device``."""
        return _moved(self, device, non_blocking)


@dataclass(frozen=True)
class LossTerm:
    """One term of the loss on one micro-batch.

    Args:
        name: As logged, e.g. ``kl`` or ``dsa``; terms of one name (one per key layer) are logged as one.
        sum: Scalar float32 tensor with gradient: the sum over the micro-batch, not the mean.
        unit: What the sum is divided by, a key of ``Batch.counts``.
        weight: Factor in the total; a term of weight 0 is logged and otherwise without effect.
    """

    name: str
    sum: Tensor
    unit: str
    weight: float = 1.0


LossTerms = tuple[LossTerm, ...]
"""The total loss is the sum over terms of ``weight * sum / (count of its unit in the global batch)``."""


@dataclass(frozen=True)
class Progress:
    """How far training has come, for schedules inside a loss."""

    step: int
    total_steps: int
    epoch: float


@dataclass(frozen=True)
class Likelihood:
    """How probable a model finds a text after its prompt: the sum of -log p over its tokens, and how many these are."""

    nats: float
    tokens: int


@dataclass(frozen=True)
class Generations:
    """The responses of one model to one set of prompts, drawn with one seed: what a metric scores.

    Args:
        predictions: Generated texts; may be empty strings.
        references: For each prediction, at least one reference.
        questions: For each prediction, what was asked: instruction and input, without the template around them.
        likelihoods: Gives the first reference's likelihood under the model, for each prediction; the model is loaded
            and run for it, so it is asked by metrics that need it alone.
        cache_dir: A folder of the metric's own for what was dear to get; it outlives the run. None: nothing is kept.
    """

    predictions: Sequence[str]
    references: Sequence[Sequence[str]]
    questions: Sequence[str] = ()
    likelihoods: Callable[[], Sequence[Likelihood]] | None = None
    cache_dir: Path | None = None


MeanKind = Literal["arithmetic", "geometric"]
"""How scores are averaged over prompts."""


@dataclass(frozen=True)
class ScoreSet:
    """What a metric says of a list of predictions.

    Args:
        scores: One per prediction, in their order.
        weights: How much each counts in the mean over prompts, e.g. its tokens; none: all alike.
    """

    scores: tuple[float, ...]
    weights: tuple[float, ...] | None = None


def _moved(value: Any, device: torch.device | str, non_blocking: bool) -> Any:
    def move(item: Any) -> Any:
        if hasattr(item, "to"):
            return item.to(device, non_blocking=non_blocking)
        return {key: move(entry) for key, entry in item.items()} if isinstance(item, Mapping) else item

    return type(value)(**{entry.name: move(getattr(value, entry.name)) for entry in fields(value)})
