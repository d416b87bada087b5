"""Reasoning blocks in the answers of models: their marks, and the answer without them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Marks(NamedTuple):
    """The marks around a reasoning block.

    Attributes:
        open: Begins the block.
        close: Ends it.
    """

    open: str
    close: str

    def opened_by(self, text: str) -> bool:
        """Whether the text is a reasoning block or the beginning of one."""
        return text.strip().startswith(self.open)

    def begun_by(self, prompt: str) -> bool:
        """Whether a prompt ends with the beginning of a reasoning block."""
        return prompt.rstrip().endswith(self.open)

    def has_block(self, text: str) -> bool:
        """Whether an answer begins with a whole reasoning block; marks further on are text."""
        return self.opened_by(text) and self.close in text

    def split(self, text: str, opened: bool = False) -> tuple[str, str]:
        """Split an answer into its reasoning, empty where there is none, and the rest.

        Args:
            text: An answer.
            opened: Whether the prompt has begun a reasoning block.
        """
        if self.close not in text or not (opened or self.opened_by(text)):
            return "", text
        reasoning, _, rest = text.partition(self.close)
        return reasoning.strip().removeprefix(self.open).strip(), rest.lstrip()

    def answer(self, text: str, opened: bool = False, finished: bool = True) -> str:
        """Return an answer without its reasoning.

        Args:
            text: A response.
            opened: Whether the prompt has begun a reasoning block.
            finished: Whether the response ended before the token limit.

        Returns:
            What follows the reasoning block at the beginning. Nothing, where the block was cut off at the token limit.
            A finished response that never ends the block that its prompt began is all answer, and so are marks that
            stand further on.
        """
        if self.close in text:
            return self.split(text, opened)[1]
        if self.opened_by(text) or (self.open in text and not finished):
            return text.partition(self.open)[0].rstrip()
        return "" if opened and not finished else text


_MARKS = (
    Marks("<think>", "</think>"),
    Marks("[THINK]", "[/THINK]"),
    Marks("<seed:think>", "</seed:think>"),
    Marks("◁think▷", "◁/think▷"),
)
"""Marks that models use, the most usual first."""


def reasoning_marks(tokenizer: PreTrainedTokenizerBase) -> Marks | None:
    """Find the marks of reasoning blocks in a tokenizer's chat template; None where it has none."""
    template = tokenizer.chat_template
    text = "\n".join(template.values()) if isinstance(template, dict) else template or ""
    return next((marks for marks in _MARKS if marks.open in text or marks.close in text), None)


def marks_to_strip(tokenizer: PreTrainedTokenizerBase, wanted: bool | None) -> Marks | None:
    """Choose the marks of the reasoning blocks that metrics do not see; None: they see all of a response.

    Args:
        tokenizer: Tokenizer of the model.
        wanted: Whether blocks are left out, by the usual marks where the chat template has none; None: only where the
            chat template has such blocks.
    """
    if wanted is False:
        return None
    return reasoning_marks(tokenizer) or (_MARKS[0] if wanted else None)
