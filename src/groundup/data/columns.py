"""Detection of the columns with prompts, responses or messages in a table."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from groundup.core.config import Config, nearest, setting
from groundup.core.errors import ConfigError, DataError
from groundup.core.types import Role
from groundup.corpus.records import FIELD, resolve
from groundup.data.tables import Table, cell_text

# Common column names in data sets, as `_words` returns them. The most specific names come first.
_MESSAGES = ("messages", "conversations", "conversation", "dialogue", "dialog", "turns", "chat", "utterances")
# A column with one of these names contains chats, which are trained on even if the table also has summaries of them.
_CHATS = ("messages", "conversations", "chat")
_PROMPTS = (
    "prompt", "instruction", "question", "query", "problem", "user", "human", "request", "input", "source", "dialogue",
    "dialog", "document", "article", "text", "q",
)  # fmt: skip
_RESPONSES = (
    "response", "completion", "answer", "answers", "output", "reply", "assistant", "solution", "target", "chosen",
    "gpt", "bot", "summary", "highlights", "translation", "a",
)  # fmt: skip
_INPUTS = ("input", "context", "passage")  # Columns with content that the prompt refers to, as in Alpaca and SQuAD.
_SYSTEMS = ("system", "system prompt", "system message")
# Common speaker names in data sets, and the role of each one.
ROLES: dict[str, Role] = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user", "prompter": "user", "customer": "user", "client": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "chatbot": "assistant",
    "model": "assistant", "ai": "assistant", "agent": "assistant",
}  # fmt: skip
# Keys of a turn that contain its speaker, and keys that contain its text.
ROLE_KEYS = ("role", "from", "speaker", "sender", "author", "user_id", "name")
CONTENT_KEYS = ("content", "value", "text", "message", "utterance", "body")
_SAMPLE = 200  # Approximate number of rows from which columns are detected.
_MIN_PROSE_FRACTION = 0.3  # A column is natural language only if this fraction of its cells has several words.


class ConversationSettings(Config):
    """Columns of the conversations in a table. Columns that are not set are detected from their names and content."""

    prompt: str | None = setting(
        None, help='name of the prompt column, or a template such as "{question}\\n{context}"', flag=True
    )
    response: str | None = setting(None, help="name of the response column, or a template", flag=True)
    messages: str | None = setting(None, help="name of the column with lists of messages", flag=True)
    system: str | None = setting(None, help="system message: a column, a template or text", flag=True)
    assistant: str | None = setting(None, help="name of the speaker whose turns are trained as the assistant")


@dataclass(frozen=True, slots=True)
class Columns:
    """Columns to read from a table.

    Either `messages` is set, or both `prompt` and `response` are set.

    Attributes:
        messages: Path of the column or nested field with the lists of turns.
        prompt: Template of the prompt.
        response: Template of the response.
        system: Template of the system message.
        assistant: Name of the speaker who is the assistant, or None if the turns have roles.
    """

    messages: str | None = None
    prompt: str = ""
    response: str = ""
    system: str | None = None
    assistant: str | None = None

    def __str__(self) -> str:
        """Return a short description of the columns, e.g. "question -> answer"."""
        if self.messages is not None:
            return f"conversations in {self.messages}"
        prompt, response = (" + ".join(FIELD.findall(template)) for template in (self.prompt, self.response))
        return f"{prompt} -> {response}"


def find_columns(table: Table, settings: ConversationSettings, *, by_content: bool = True) -> Columns:
    """Return the columns of conversations in a table. Columns that `settings` does not set are detected.

    Args:
        table: The table.
        settings: Columns that the user set.
        by_content: Whether columns may be detected by their content. If True, the only two text columns of a table are
            the prompt and the response, regardless of their names.

    Raises:
        ConfigError: A column in `settings` does not exist, or `messages` is set together with `prompt` or `response`.
        DataError: The columns of prompts and responses were not detected.
    """
    sample = table.rows[:: max(1, len(table.rows) // _SAMPLE)]
    readable = tuple(column for column in table.columns if column and not set(column) & set("{}"))
    table = replace(table, columns=readable)  # A template cannot refer to a column whose name contains braces.
    system = _given_system(table, settings) or _named(_SYSTEMS, [c for c in table.columns if _is_text(c, sample)])
    pair_given = settings.prompt is not None or settings.response is not None
    if settings.messages is not None:
        if pair_given:
            raise ConfigError(
                f"messages = {settings.messages!r} is set together with prompt or response",
                fix="Remove messages, or remove prompt and response.",
            )
        _require_column(table, "messages", settings.messages.split(".")[0], settings.messages)
    messages = settings.messages or (None if pair_given else _find_messages(table, sample))
    if messages is not None and settings.messages is None and _is_described(messages, table, sample):
        settings, messages = settings.model_copy(update={"prompt": messages}), None
    if messages is not None:
        return Columns(messages=messages, system=system, assistant=_assistant_name(table, messages, settings.assistant))
    prompt, response = _template(table, "prompt", settings.prompt), _template(table, "response", settings.response)
    if prompt is None or response is None:
        prompt, response = _find_pair(table, sample, prompt, response, by_content)
    return Columns(prompt=prompt, response=response, system=system)


def fill(template: str, row: Mapping[str, Any], *, whole: bool = False) -> str:
    """Fill a template with the cells of a row, or return "" if all cells that the template refers to are empty.

    Args:
        template: Template with column names in braces.
        row: Row of a table.
        whole: Whether to use all items of a list, one per line, instead of only the first item (see `first_text`).
    """
    read = _all_text if whole else first_text
    values = {path: "\n".join(filter(None, map(read, resolve(row, path)))) for path in FIELD.findall(template)}
    if values and not any(values.values()):
        return ""
    return FIELD.sub(lambda field: values[field[1]], template).strip()


def first_text(value: Any, depth: int = 8) -> str:
    """Return the text of a cell. If the cell is a list, or has SQuAD's form `{"text": [...]}`, use the first item.

    Args:
        value: Value of the cell.
        depth: Maximum nesting depth of lists and mappings. Text that is nested deeper is ignored.
    """
    if isinstance(value, Mapping | list):
        inside = [value.get("text")] if isinstance(value, Mapping) else value
        return next(filter(None, (first_text(each, depth - 1) for each in inside)), "") if depth else ""
    return cell_text(value)


def _all_text(value: Any) -> str:
    """Return all text of a cell. If the cell is a conversation, each turn starts with its speaker."""
    turns = as_turns(value)
    # A string such as "[1, 2]" is a JSON list but not a conversation, so it is used as text.
    if turns is None or (isinstance(value, str) and not all(map(_is_turn, turns))):
        return first_text(value)
    lines = []
    for turn in turns:
        said = [turn.get(key) for key in CONTENT_KEYS] if _is_turn(turn) else [turn]
        if text := next(filter(None, map(first_text, said)), ""):
            lines.append(f"{speaker(turn)}: {text}" if speaker(turn) else text)
    return "\n".join(lines)


def as_turns(value: Any) -> list[Any] | None:
    """Return the list of turns in a cell, which is a JSON string in CSV files, or None if the cell is not a list."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return list(value) if isinstance(value, list) else None


def _find_messages(table: Table, sample: Sequence[Mapping[str, Any]]) -> str | None:
    def holds_turns(column: str) -> bool:
        cells = [as_turns(row.get(column)) for row in sample if row.get(column) is not None]
        return any(cells) and all(cell is not None and all(isinstance(t, dict | list) for t in cell) for cell in cells)

    def lists(column: str) -> bool:
        return any(as_turns(row.get(column)) for row in sample)

    found = [column for column in table.columns if _words(column) in _MESSAGES and lists(column)]
    found.sort(key=lambda column: _MESSAGES.index(_words(column)))
    for column in table.columns if not found else ():
        turns = next((t for row in sample if (t := as_turns(row.get(column)))), None)
        if turns and holds_turns(column) and _is_turn(turns[0]):
            found.append(column)
    return found[0] if found else None


def _is_described(messages: str, table: Table, sample: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether another column contains the response to a conversation, such as its summary."""
    others = [column for column in table.columns if column != messages and _is_text(column, sample)]
    return _words(messages) not in _CHATS and _named(_RESPONSES, others) is not None


def _assistant_name(table: Table, messages: str, given: str | None) -> str | None:
    """Return the name of the speaker who is the assistant, or None if the turns have roles."""
    turns = [turn for row in table.rows for cell in resolve(row, messages) for turn in as_turns(cell) or ()]
    names = Counter(name for turn in turns if isinstance(turn, dict) and (name := speaker(turn)))
    if given is not None:
        if given not in names:
            match = nearest(given, list(names))
            raise ConfigError(
                f"assistant = {given!r}: {table.name} has only the speakers {_counted(names)}",
                fix=f"Did you mean {match!r}?" if match else "Set assistant to the name of one of these speakers.",
            )
        return given
    roles = {key for turn in turns if isinstance(turn, dict) for key in ROLE_KEYS if first_text(turn.get(key))}
    if roles == {"name"} and not all(name.lower() in ROLES for name in names):
        first = names.most_common(1)[0][0]
        raise ConfigError(
            f"{table.name}: a chat of {_counted(names)}, without roles",
            rule="one of the speakers must be the assistant",
            fix=f"Choose the speaker: assistant = {first!r} (on the command line --set 'assistant={first}').",
        )
    return None


def _counted(names: Counter[str], max_names: int = 8) -> str:
    """Return a text that lists the most frequent speakers, each with the number of turns."""
    listed = ", ".join(f"{name} ({count:,})" for name, count in names.most_common(max_names))
    return listed + (f" and {len(names) - max_names:,} more" if len(names) > max_names else "")


def speaker(turn: Any) -> str:
    """Return the name of the speaker of a turn; "" if the turn does not name a speaker."""
    if not isinstance(turn, dict):
        return ""
    return next((name for key in ROLE_KEYS if (name := first_text(turn.get(key)))), "")


def _is_turn(value: Any) -> bool:
    return isinstance(value, dict) and all(any(key in value for key in keys) for keys in (ROLE_KEYS, CONTENT_KEYS))


def _find_pair(
    table: Table, sample: Sequence[Mapping[str, Any]], prompt: str | None, response: str | None, by_content: bool
) -> tuple[str, str]:
    taken = set(FIELD.findall(f"{prompt or ''}{response or ''}"))
    free = [column for column in table.columns if column not in taken and _is_text(column, sample)]
    prose = [column for column in free if _is_language(column, sample)]
    empty = [column for column in table.columns if column not in taken and column not in free]
    if response is None:
        # An empty column is accepted, because its rows are dropped with the reason "empty response".
        response = _named(_RESPONSES, free) or _named(_RESPONSES, empty)
        free = [column for column in free if f"{{{column}}}" != response]
        prose = [column for column in prose if column in free]
    if prompt is None:
        prompt = _named(_PROMPTS, [column for column in prose or free if f"{{{column}}}" != response])
        inputs = [column for column in free if f"{{{column}}}" != prompt and _words(column) in _INPUTS]
        if prompt is not None and len(inputs) == 1:  # Alpaca's input follows the prompt, and a context precedes it.
            prompt = f"{prompt}\n{{{inputs[0]}}}" if _words(inputs[0]) == "input" else f"{{{inputs[0]}}}\n{prompt}"
    left = [column for column in prose if by_content and f"{{{column}}}" not in (prompt, response)]
    if prompt is None and response is None and len(left) == 2:
        # The prompt is the column with more questions, or the first column if neither contains questions.
        prompt = max(left, key=lambda column: _question_fraction(column, sample))
        response = next(column for column in left if column != prompt)
        return f"{{{prompt}}}", f"{{{response}}}"
    if prompt is None and response is not None and len(left) == 1:
        return f"{{{left[0]}}}", response
    if response is None and prompt is not None and len(left) == 1:
        return prompt, f"{{{left[0]}}}"
    if prompt is None or response is None:
        missing = " and ".join(name for name, found in (("prompt", prompt), ("response", response)) if found is None)
        raise DataError(
            f"{table.name}: no {missing} column found in {', '.join(map(repr, table.columns[:12]))}",
            fix='Set prompt = "{COLUMN}" and response = "{COLUMN}", or messages = "COLUMN".',
        )
    return prompt, response


def _named(names: Sequence[str], columns: Sequence[str]) -> str | None:
    """Return a template that refers to the column with the best matching name. An exact match is preferred."""
    for matches in (lambda words, name: words == name, lambda words, name: name in words.split() and len(name) > 1):
        for name in names:
            for column in columns:
                if matches(_words(column), name):
                    return f"{{{column}}}"
    return None


def _words(column: str) -> str:
    """Return the words of a column name. For example, `bestAnswer` and `best_answer` both give "best answer"."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", column)
    return " ".join(re.findall(r"\w+", spaced.replace("_", " "))).lower()


def _cells(column: str, sample: Sequence[Mapping[str, Any]]) -> list[str]:
    return [text for row in sample if (text := first_text(row.get(column)))]


def _is_text(column: str, sample: Sequence[Mapping[str, Any]]) -> bool:
    return any(re.search(r"\w", text) for text in _cells(column, sample))


def _is_language(column: str, sample: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a column contains natural language instead of ids, numbers, links, dates or repeated labels."""
    cells = _cells(column, sample)
    several_words = sum(1 for text in cells if len(re.findall(r"[^\W\d_]+", text)) > 1 and " " in text)
    repeated = len(cells) >= 20 and len(set(cells)) <= len(cells) // 10
    return bool(cells) and several_words >= _MIN_PROSE_FRACTION * len(cells) and not repeated


def _question_fraction(column: str, sample: Sequence[Mapping[str, Any]]) -> float:
    cells = _cells(column, sample)
    return sum(text.endswith(("?", "？", "؟")) for text in cells) / max(1, len(cells))


def _template(table: Table, key: str, given: str | None) -> str | None:
    """Return the column or template that the user set as a template, or None if the user did not set one."""
    if given is None:
        return None
    if given in table.columns:
        return f"{{{given}}}"
    for path in FIELD.findall(given) or [given]:
        _require_column(table, key, path if path in table.columns else path.split(".")[0], given)
    return given.replace("\\n", "\n")  # On the command line, a line break is written as a backslash and n.


def _given_system(table: Table, settings: ConversationSettings) -> str | None:
    if settings.system is None:
        return None
    if not (FIELD.search(settings.system) or settings.system in table.columns):
        if nearest(settings.system, table.columns):  # The setting `system` is probably a mistyped column name.
            _require_column(table, "system", settings.system, settings.system)
        return settings.system
    return _template(table, "system", settings.system)


def _require_column(table: Table, key: str, column: str, given: str) -> None:
    if column in table.columns:
        return
    match = nearest(column, table.columns)
    raise ConfigError(
        f"{key} = {given!r}: {table.name} has no column {column!r}, only {', '.join(table.columns[:12])}",
        fix=f"Did you mean {match!r}?" if match else f"Set {key} to one of these columns.",
    )
