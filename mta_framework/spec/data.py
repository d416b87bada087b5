"""The section ``data``: training and validation data, and how they become texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from mta_framework.spec.document import shown
from mta_framework.spec.effects import affects
from mta_framework.spec.section import (
    Contradiction,
    HubId,
    Location,
    Revision,
    Section,
    TeacherName,
    Text,
    exactly_one,
    without_effect,
)

ROWS_EXPECTED = "a file of JSON Lines, a JSON array (either also as .gz) or Parquet"
"""What is expected of the path of a data set, for errors."""


RowKey = Literal["instruction", "input", "output", "prompt", "completion", "messages", "tools"]
"""Key of a row that is read."""


class DatasetSection(Section):
    """One data set: a file or a data set on the hub."""

    path: Location | None = Field(
        None, description="Path of a file of rows: JSON Lines, a JSON array (either also as .gz) or Parquet."
    )
    hub: HubId | None = Field(None, description="Data set id on the Hugging Face hub.")
    revision: Revision | None = Field(None, description="Branch, tag or commit on the hub.")
    split: Text | None = Field(None, description="Split of the hub data set, e.g. train.")
    limit: int | None = Field(None, ge=1, description="Number of rows to use, from the first; null: all.")
    rename_columns: dict[Text, RowKey] | None = Field(
        None,
        description="Key of the rows -> the key that it is read as: instruction, input, output, prompt, completion, "
        "messages or tools; null: keys are read as they are.",
    )

    def contradictions(self) -> Iterator[Contradiction]:
        yield from exactly_one(self, "path", "hub")
        for key, count in Counter((self.rename_columns or {}).values()).items():
            if count > 1:
                problem = f"gives several keys one name (got {shown(self.rename_columns)})"
                hint = f"Name one key that is read as {key}."
                yield Contradiction("rename_columns", ("rename_columns",), problem, "another name for each key", hint)
        if self.hub is None:
            for name in ("revision", "split"):
                yield from without_effect(self, name, "hub", "without hub")
        elif self.split is None:
            yield Contradiction(
                "split",
                ("hub", "split"),
                "must be given with hub (got null)",
                "a split of the data set, e.g. 'train'",
                "Add it.",
            )


_RESERVED_OPTIONS = frozenset(
    {"add_generation_prompt", "chat_template", "continue_final_message", "conversation", "documents", "max_length"}
    | {"messages", "padding", "return_assistant_tokens_mask", "return_dict", "return_tensors", "self", "tokenize"}
    | {"sanitize_control_tokens", "tokenizer_kwargs", "tools", "truncation", "bos_token", "eos_token", "unk_token"}
    | {"sep_token", "pad_token", "cls_token", "mask_token"}
)
"""What the framework, the rows and the tokenizer give to a chat template."""


TemplateOptions = dict[Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")], Any]
"""Variables of a chat template by name."""

ADD_SPECIAL_TOKENS = (
    "Whether prompts get the tokens with which the tokenizer begins a sequence; a chat template writes its own."
)
"""Description of the fields that decide about these tokens."""

SPECIAL_TOKENS_OF_CHAT = "with template chat, which writes the special tokens itself"
"""End of the sentence "has no effect ..." about these fields."""

TEMPLATE_OPTIONS = "Variables of the tokenizer's chat template by name, e.g. enable_thinking."
"""Description of the fields of this type."""


def reserved_options(options: Mapping[str, Any]) -> Iterator[Contradiction]:
    """Yield a contradiction for each template option that is not the user's to give."""
    for name in sorted(options.keys() & _RESERVED_OPTIONS):
        problem = f"must not be given: it comes from rows, tokenizer or framework (got {shown(options[name])})"
        at = f"template_options.{name}"
        yield Contradiction(at, ("template_options",), problem, "a variable of the chat template alone", "Remove it.")


class DataSection(Section):
    """Training and validation data."""

    train: DatasetSection = Field(description="Training set.", examples=[{"path": "train.jsonl"}])
    validation: DatasetSection | None = Field(
        None, description="Validation set, whose loss is computed after each epoch, or every training.eval_steps."
    )
    template: Literal["alpaca", "chat"] = Field(
        "alpaca",
        description="Template that turns instruction rows into prompts: Alpaca's, or the tokenizer's chat template.",
    )
    template_options: TemplateOptions = Field(default_factory=dict, description=TEMPLATE_OPTIONS)
    add_special_tokens: bool = Field(True, description=ADD_SPECIAL_TOKENS)
    teacher_field: Text = Field(
        "teacher", description="Key of a row that names its teacher, one of teachers; only with several teachers."
    )
    default_teacher: TeacherName | None = Field(
        None, description="Teacher of rows that name none; null: every row must name its teacher."
    )
    supervise: Literal["last", "all"] = Field(
        "last", description="Turns of a conversation that are trained: the last one, or all of the assistant."
    )
    max_length: int = Field(
        256, ge=2, description="Maximal number of tokens of prompt and response; longer responses are cut."
    )
    max_prompt_length: int = Field(
        128, ge=1, description="Maximal number of tokens of a prompt; for longer ones see long_prompts."
    )
    long_prompts: Literal["leave_out", "first_tokens"] = Field(
        "leave_out",
        description="What becomes of rows with longer prompts: they are left out, or keep the first tokens of their "
        "prompts (authors' code of MTA), which may cut off the end of the template.",
    )
    parse: Literal["text", "fields"] = Field(
        "text",
        description="Units that are parsed for spans: whole texts, as in the paper, or the fields of a prompt and the "
        "response separately.",
    )
    leading_character: Literal["space", "any"] = Field(
        "space",
        description="Character before a span with which a token of the span may begin: one space, or any, line breaks "
        "included (authors' code of MTA).",
    )
    processes: int | None = Field(
        None,
        ge=1,
        description="Number of processes that parse spans; null: one per core.",
        json_schema_extra=affects("nothing"),
    )
    cache_dir: Location | None = Field(
        None, description="Folder of the span cache; null: output_dir/span-cache.", json_schema_extra=affects("nothing")
    )

    @property
    def cut_prompts_to(self) -> int | None:
        """Number of tokens that longer prompts are cut to; None where they are left out."""
        return self.max_prompt_length if self.long_prompts == "first_tokens" else None

    def contradictions(self) -> Iterator[Contradiction]:
        yield from reserved_options(self.template_options)
        if self.template == "chat":
            yield from without_effect(self, "add_special_tokens", "template", SPECIAL_TOKENS_OF_CHAT)
        if self.max_prompt_length >= self.max_length:
            yield Contradiction(
                "max_prompt_length",
                ("max_prompt_length", "max_length"),
                f"leaves no room for a response (got {self.max_prompt_length})",
                f"less than max_length {self.max_length}",
                "Lower it, or raise max_length.",
            )
