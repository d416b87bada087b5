"""The contract of base losses."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, get_args

from pydantic import JsonValue

from mta_framework.interfaces.batch_policies import BatchPolicy, BatchPolicyOptions
from mta_framework.interfaces.plugin import Plugin
from mta_framework.types import Batch, LossTerms, ModelShape, Progress, States


class BaseLoss(Plugin):
    """The loss that the alignment loss is added to.

    Attributes:
        TITLE: Name of the loss in tables of results, as papers print it; empty means ``NAME``.
        NEEDS_TEACHER: Whether ``compute`` uses the teacher.
        NEEDS_SHARED_VOCABULARY: Whether it compares probabilities token by token, so that student and teacher must have
            the same vocabulary. If not, ``compute`` must handle a ``batch.teacher`` with tokens of its own.
        NEEDS_ALIGNMENT: Whether ``compute`` returns no terms, so that a spec must have ``alignment``: then the student
            is trained by that alone, and parameters that it does not reach get no gradient.
        TAKES_TOP_TOKENS: Whether ``compute`` works with a teacher behind a server, of which
            ``teacher.top_tokens`` alone is known, as ``chunked_loss.divergence_sum`` does.
        NEEDS_LOG_PROBS: Whether it uses ``batch.log_prob_N``, so that generation keeps log-probabilities.

    Raises:
        TypeError: A class has an option for a batch policy that is not called ``batches``, the name that is read.
    """

    TITLE: ClassVar[str] = ""
    NEEDS_TEACHER: ClassVar[bool] = True
    NEEDS_SHARED_VOCABULARY: ClassVar[bool] = True
    NEEDS_ALIGNMENT: ClassVar[bool] = False
    TAKES_TOP_TOKENS: bool = False
    NEEDS_LOG_PROBS: bool = False

    @abstractmethod
    def compute(self, student: States, teacher: States | None, batch: Batch, progress: Progress) -> LossTerms:
        """Compute the loss on one micro-batch, as sums (``mta_framework.chunked_loss`` does so without whole logits).

        Args:
            student: The student's states, with gradient; ``layers`` has at least those of ``key_layers``.
            teacher: The teacher's states, without gradient; None where ``NEEDS_TEACHER`` is false. They may be
                inference tensors. Read ``final_BTD`` at the positions ``position_N`` alone (of ``batch.teacher`` where
                there is one), and of ``layers`` those of ``key_layers`` at attended tokens: with ``teacher.cache`` all
                else is NaN or not there. With ``TAKES_TOP_TOKENS`` it may have ``top_tokens`` in place of all states.
            batch: Tokens, supervised positions, and the counts by unit.
            progress: Finished steps, for schedules.

        Returns:
            Loss terms, at least one unless ``NEEDS_ALIGNMENT``, whose units are keys of ``batch.counts``; the same
            names and units at every call. A name is lower case letters, digits and ``_``, and neither that of an
            alignment term of the run nor of what is logged anyway (``loss``, ``cross_entropy``, ``learning_rate`` and
            so on); terms of one name have one unit, and are logged as their mean. The sum is a scalar in float32,
            usually in nats. Where the micro-batch has nothing of a term's unit (no supervised token, say), the sum is 0
            and still part of the student's graph: every trained parameter must get a gradient. Inputs must not be
            changed in place.
        """

    def key_layers(self, student: ModelShape, teacher: ModelShape) -> Sequence[tuple[int, int]]:
        """Choose the pairs of layers whose states ``compute`` reads.

        Args:
            student: Shape of the student.
            teacher: Shape of the teacher.

        Returns:
            1-based layers of student and teacher; empty by default.

        Raises:
            ValueError: No such layers exist in these models. Its message reads ``problem; expected NOUN PHRASE.
                What to do.``
        """
        return ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, field in getattr(cls.Params, "model_fields", {}).items():
            kinds = [kind for kind in (field.annotation, *get_args(field.annotation)) if isinstance(kind, type)]
            if name != "batches" and any(issubclass(kind, BatchPolicyOptions) for kind in kinds):
                raise TypeError(f"{cls.__name__}.Params: a batch policy's option must be called batches (got {name})")

    def batch_policy(self) -> BatchPolicy | None:
        """Create the batch policy of one run, by default that of the option ``batches``.

        Returns:
            None, also where there is no such option: every step trains on the data set's responses.
        """
        options = getattr(self.params, "batches", None)
        return options.create() if isinstance(options, BatchPolicyOptions) else None

    def observe(self, values: Mapping[str, float]) -> None:
        """Receive the value of each term after every step; does nothing by default.

        Args:
            values: Mean of each term over its unit in the global batch, by name and without its weight; ``loss`` is the
                weighted total. With several teachers ``loss_NAME`` is that of the texts of one, where it has any.
        """

    def state(self) -> JsonValue:
        """Return whatever later steps depend on besides ``progress``, as JSON for the checkpoint; None by default."""
        return None

    def restore(self, state: JsonValue) -> None:
        """Continue from a checkpoint; does nothing by default.

        Args:
            state: Value that ``state`` returned, after a round trip through JSON.
        """
