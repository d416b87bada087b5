"""The formats of data set rows, and the record that each becomes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

ANSWERS = "assistant"
"""Role of the turns that a model writes."""

CALLS = "tool_calls"
"""Field of a turn that calls tools."""

REASONING = "reasoning_content"
"""Field of a turn with the reasoning before its content."""

NOTHING: tuple[object, ...] = (None, "", [], {})
"""Values of fields that say nothing; 0 and false do."""


@dataclass(frozen=True)
class Instruction:
    """A task that a template renders as a prompt.

    Args:
        instruction: Text of the task.
        input: Context of the task; empty if there is none.
    """

    instruction: str
    input: str = ""


@dataclass(frozen=True)
class Message:
    """One turn of a conversation.

    Args:
        role: Role of the speaker, e.g. ``user`` or ``assistant``.
        content: Text of the turn; None where there are only calls of tools.
        fields: All further fields of the turn that say something, e.g. ``tool_calls`` or ``reasoning_content``.
    """

    role: str
    content: str | None
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The content; the calls as JSON where there is none."""
        return self.content or (json.dumps(self.fields[CALLS], ensure_ascii=False) if CALLS in self.fields else "")


@dataclass(frozen=True)
class Record:
    """One row of a data set.

    Args:
        prompt: A task, a complete prompt, or the turns of a conversation before the answer.
        references: All acceptable answers, at least one; the first is the training response and may be empty.
        answer: The answer as a turn, where it has more than a text; None: the first reference is all of it.
        tools: JSON schemas of the tools of a conversation.
        where: Field of the spec that names the data set, with file and line of the row, for errors.
        teacher_name: Name of the row's teacher where there are several; empty where there is one, or none.
    """

    prompt: Instruction | str | tuple[Message, ...]
    references: tuple[str, ...]
    answer: Message | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    where: str = field(default="", compare=False)
    teacher_name: str = ""

    @property
    def question(self) -> str:
        """The question without any template: instruction and input, the prompt, or the turns of a conversation."""
        if isinstance(self.prompt, str):
            return self.prompt
        if isinstance(self.prompt, Instruction):
            return "\n\n".join(filter(None, (self.prompt.instruction, self.prompt.input)))
        if len(self.prompt) == 1:
            return self.prompt[0].text
        return "\n\n".join(f"{turn.role}: {turn.text}" for turn in self.prompt)


class RowError(ValueError):
    """A row that cannot be used.

    Args:
        problem: What is wrong with the row.
        expected: What is expected instead.
        hint: What to do, as a sentence.
    """

    def __init__(self, problem: str, expected: str, hint: str = "Correct or remove the row."):
        super().__init__(problem)
        self.problem = problem
        self.expected = expected
        self.hint = hint


class _Kind(NamedTuple):
    keys: tuple[str, ...]
    more: tuple[str, ...]
    parse: Callable[[Mapping[str, Any]], Record]


def parse_row(row: object) -> tuple[str, Record]:
    """Parse one row into a record.

    Args:
        row: A decoded row. Unknown keys are ignored, see ``unused_keys``.

    Returns:
        The required keys of the row's format (e.g. ``instruction, output``), and the record.

    Raises:
        RowError: The row has the keys of no format or of several, or a value has the wrong type.
    """
    if not isinstance(row, Mapping):
        raise RowError(f"the row must be an object (got {_short(row)})", _ROW_KINDS)
    complete = [kind for kind in _KINDS if all(key in row for key in kind.keys)]
    if not complete:
        raise RowError(_missing_keys(row), _ROW_KINDS, "Correct or remove the row, or set rename_columns.")
    if len(complete) > 1:
        names = " and ".join(", ".join(kind.keys) for kind in complete)
        raise RowError(f"the row is of several kinds at once ({names})", _ROW_KINDS)
    return ", ".join(complete[0].keys), complete[0].parse(row)


def decode_row(line: bytes) -> object:
    """Decode a line of a JSON Lines file.

    Args:
        line: Bytes of the line.

    Raises:
        RowError: The line is not UTF-8 or not JSON, or an object in it has a key twice.
    """
    try:
        return json.loads(line.decode("utf-8"), object_pairs_hook=_unique_keys)
    except UnicodeDecodeError as error:
        raise RowError(f"the line is not UTF-8 (byte {error.start + 1})", "JSON Lines in UTF-8") from error
    except json.JSONDecodeError as error:
        problem = f"the line is not JSON, or cut off ({error.msg}, column {error.colno})"
        raise RowError(problem, "one JSON object per line") from error
    except RowError:
        raise
    except (ValueError, RecursionError) as error:
        raise RowError(f"the line is not usable JSON ({error})", "one JSON object per line") from error


def scan_row(text: str, start: int) -> tuple[object, int]:
    """Decode the row at a position of a text.

    Args:
        text: JSON, which may go on behind the row.
        start: Offset of the row's first character.

    Returns:
        The row, or a ``RowError`` where an object in it has a key twice; and the offset behind its last character.

    Raises:
        RowError: No whole JSON value begins there.
    """
    try:
        try:
            return json.JSONDecoder(object_pairs_hook=_unique_keys).raw_decode(text, start)
        except RowError as error:
            return error, json.JSONDecoder().raw_decode(text, start)[1]
    except (ValueError, RecursionError) as error:
        problem = f"the row is not JSON, or cut off ({getattr(error, 'msg', error)})"
        raise RowError(problem, "a JSON object") from error


def renamed(row: Mapping[str, Any], new_names: Mapping[str, str]) -> Mapping[str, Any]:
    """Rename keys of a row.

    Args:
        row: A decoded row.
        new_names: Key -> its new name; keys that the row lacks are ignored.

    Raises:
        RowError: The row has a key of a new name already, which is not renamed.
    """
    for key, name in new_names.items():
        if key in row and name in row and name not in new_names:
            raise RowError(f"{_short(key)} is to be read as {name}, which the row has, too", "one key of each name")
    return {new_names.get(key, key): value for key, value in row.items()}


def unused_keys(row: Mapping[str, Any]) -> list[str]:
    """Return the keys of a sound row that hold something and are not used."""
    kind = next(kind for kind in _KINDS if all(key in row for key in kind.keys))
    return [key for key, value in row.items() if key not in (*kind.keys, *kind.more) and value not in NOTHING]


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in values if keys.count(key) > 1)
        raise RowError(f"the key {_short(repeated)} stands twice in one object", "each key once per object")
    return values


def _instruction(row: Mapping[str, Any]) -> Record:
    context = row.get("input")
    task = Instruction(_text(row["instruction"], "instruction"), "" if context is None else _text(context, "input"))
    return Record(task, _references(row["output"], "output"))


def _completion(row: Mapping[str, Any]) -> Record:
    prompt = _text(row["prompt"], "prompt")
    if not prompt:
        raise RowError("prompt is empty", "at least one character")
    return Record(prompt, _references(row["completion"], "completion"))


def _conversation(row: Mapping[str, Any]) -> Record:
    turns = row["messages"]
    if not isinstance(turns, list) or len(turns) < 2:
        raise RowError(f"messages must be a list of at least 2 turns (got {_short(turns)})", _TURNS)
    *prompt, answer = [_message(turn, f"messages[{index}]") for index, turn in enumerate(turns)]
    if answer.role != ANSWERS:
        raise RowError(f"the last message must be the assistant's (got role {answer.role!r})", _TURNS)
    more = bool(answer.fields) or answer.content is None
    return Record(tuple(prompt), (answer.content or "",), answer if more else None, _tools(row.get("tools")))


def _message(turn: object, name: str) -> Message:
    if not isinstance(turn, Mapping) or "role" not in turn or not ("content" in turn or turn.get(CALLS)):
        raise RowError(f"{name} must be an object with role and content (got {_short(turn)})", _TURNS)
    # A field that is null or empty says nothing: tables of rows have every field in each of them.
    more = {key: value for key, value in turn.items() if key not in ("role", "content") and value not in NOTHING}
    for key, value in more.items():
        _field(value, f"{name}.{key}", key)
    content = turn.get("content")
    if content is not None or CALLS not in more:
        content = _content(content, f"{name}.content")
    return Message(_text(turn["role"], f"{name}.role"), content, more)


def _field(value: object, name: str, key: str) -> None:
    """Refuse a further field of a turn that no template can take."""
    if key in _TEXT_FIELDS:
        _text(value, name)
    elif key == CALLS and not (isinstance(value, list) and all(isinstance(call, Mapping) for call in value)):
        raise RowError(f"{name} has the wrong type (got {_short(value)})", "a list of objects")
    else:
        _text(_json(value, name), name)


def _json(value: object, name: str) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise RowError(f"{name} is no JSON value ({error})", "what JSON can represent") from error


def _content(value: object, name: str) -> str:
    """The text of a turn, or of its parts, in the form of models that also read images."""
    if not isinstance(value, list) or not all(isinstance(part, Mapping) for part in value):
        return _text(value, name, "a string, or a list of parts of type text")
    for index, part in enumerate(value):
        if part.get("type") != "text":
            problem = f"{name}[{index}] is no text (got type {_short(part.get('type'))})"
            raise RowError(problem, "parts of type text alone")
    return "".join(_text(part.get("text"), f"{name}[{index}].text") for index, part in enumerate(value))


def _tools(value: object) -> tuple[Mapping[str, Any], ...]:
    """The tools of a row: a list of JSON schemas, or the text of one."""
    if value in NOTHING:
        return ()
    expected = "a list of JSON schemas"
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise RowError(f"tools is a text that is no JSON ({error})", expected) from error
    if not isinstance(value, list) or not all(isinstance(tool, Mapping) for tool in value):
        raise RowError(f"tools has the wrong type (got {_short(value)})", expected)
    _text(_json(value, "tools"), "tools")
    return tuple(value)


def _references(value: object, name: str) -> tuple[str, ...]:
    if isinstance(value, list):
        if not value:
            raise RowError(f"{name} is an empty list", "at least one reference, which may be an empty string")
        return tuple(_text(entry, f"{name}[{index}]") for index, entry in enumerate(value))
    return (_text(value, name, "a string or a list of strings"),)


def _text(value: object, name: str, expected: str = "a string") -> str:
    if not isinstance(value, str):
        raise RowError(f"{name} has the wrong type (got {_short(value)})", expected)
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        half = f"{name} holds half a character (\\u{ord(value[error.start]):04x} at {error.start})"
        raise RowError(half, "both \\u escapes of a character beyond U+FFFF") from error
    return value


def _missing_keys(row: Mapping[str, Any]) -> str:
    for kind in _KINDS:
        missing = [key for key in kind.keys if key not in row]
        if len(missing) < len(kind.keys):
            return f"{', '.join(missing)} is missing (got {', '.join(map(str, row))})"
    return f"no known keys (got {', '.join(map(str, row))})" if row else "no keys"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


_KINDS = (
    _Kind(("instruction", "output"), ("input",), _instruction),
    _Kind(("prompt", "completion"), (), _completion),
    _Kind(("messages",), ("tools",), _conversation),
)
_ROW_KINDS = "instruction and output (and input), or prompt and completion, or messages"
_TURNS = "objects with role and content, the last of the assistant"
_TEXT_FIELDS = (REASONING, "name", "tool_call_id")
