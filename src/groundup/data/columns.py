"""Detect the columns with prompts and responses in a table, if they are not configured."""

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

# Usual names of these columns in datasets, the most specific first, in the form that `_words` returns.
_MESSAGES = ("messages", "conversations", "conversation", "dialogue", "dialog", "turns", "chat", "utterances")
_CHATS = ("messages", "conversations", "chat")  # chats, which are trained even if another column describes them
_PROMPTS = (
    "prompt", "instruction", "question", "query", "problem", "user", "human", "request", "input", "source", "dialogue",
    "dialog", "document", "article", "text", "q",
)  # fmt: skip
_RESPONSES = (
    "response", "completion", "answer", "answers", "output", "reply", "assistant", "solution", "target", "chosen",
    "gpt", "bot", "summary", "highlights", "translation", "a",
)  # fmt: skip
_INPUTS = ("input", "context", "passage")  # content that a prompt refers to, in Alpaca's and SQuAD's tables
_SYSTEMS = ("system", "system prompt", "system message")
# Speaker names in datasets.
ROLES: dict[str, Role] = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user", "prompter": "user", "customer": "user", "client": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "chatbot": "assistant",
    "model": "assistant", "ai": "assistant", "agent": "assistant",
}  # fmt: skip
# Keys of a turn: the speaker, and the content.
ROLE_KEYS = ("role", "from", "speaker", "sender", "author", "user_id", "name")
CONTENT_KEYS = ("content", "value", "text", "message", "utterance", "body")
_SAMPLE = 200  # rows that columns are detected from
_MIN_PROSE_FRACTION = 0.3  # minimum fraction of cells with several words in a column of natural language


class ConversationRules(Config):
    """Columns of the conversations in a table; omitted ones are detected from names and content."""

    prompt: str | None = setting(
        None, help='column with the prompt, or a template like "{question}\\n{context}"', flag=True
    )
    response: str | None = setting(None, help="column with the response, or a template", flag=True)
    messages: str | None = setting(None, help="column with lists of messages", flag=True)
    system: str | None = setting(None, help="system message: a column, a template, or text", flag=True)
    assistant: str | None = setting(None, help="speaker name that is the assistant")


@dataclass(frozen=True, slots=True)
class Columns:
    """Columns to read: either a path in `messages`, or templates in `prompt` and `response`.

    Attributes:
        messages: Path of the lists of turns.
        prompt: Template of the prompt.
        response: Template of the response.
        system: Template of the system message.
        assistant: Name of the speaker that is the assistant; None: turns have roles.
    """

    messages: str | None = None
    prompt: str = ""
    response: str = ""
    system: str | None = None
    assistant: str | None = None

    def __str__(self) -> str:
        """Return a short description, e.g. "question -> answer"."""
        if self.messages is not None:
            return f"conversations in {self.messages}"
        prompt, response = (" + ".join(FIELD.findall(template)) for template in (self.prompt, self.response))
        return f"{prompt} -> {response}"


def find_columns(table: Table, rules: ConversationRules, *, by_content: bool = True) -> Columns:
    """Return the columns of conversations: configured, or detected by name or content.

    Args:
        table: The table.
        rules: Configured columns.
        by_content: Whether two text columns may be prompt and response regardless of their names.

    Raises:
        ConfigError: A configured column does not exist, or `messages` is set together with `prompt` or `response`.
        DataError: Prompts and responses were not detected.
    """
    sample = table.rows[:: max(1, len(table.rows) // _SAMPLE)]
    readable = tuple(column for column in table.columns if column and not set(column) & set("{}"))
    table = replace(table, columns=readable)  # a template cannot refer to a name with braces
    system = _given_system(table, rules) or _named(_SYSTEMS, [c for c in table.columns if _is_text(c, sample)])
    pair_given = rules.prompt is not None or rules.response is not None
    if rules.messages is not None:
        if pair_given:
            raise ConfigError(
                f"messages = {rules.messages!r} is set together with prompt or response",
                fix="Remove one of them.",
            )
        _require_column(table, "messages", rules.messages.split(".")[0], rules.messages)
    messages = rules.messages or (None if pair_given else _find_messages(table, sample))
    if messages is not None and rules.messages is None and _is_described(messages, table, sample):
        rules, messages = rules.model_copy(update={"prompt": messages}), None
    if messages is not None:
        return Columns(messages=messages, system=system, assistant=_assistant_name(table, messages, rules.assistant))
    prompt, response = _template(table, "prompt", rules.prompt), _template(table, "response", rules.response)
    if prompt is None or response is None:
        prompt, response = _find_pair(table, sample, prompt, response, by_content)
    return Columns(prompt=prompt, response=response, system=system)


def fill(template: str, row: Mapping[str, Any], *, whole: bool = False) -> str:
    """Return the template filled with the cells of a row; "" if all of its columns are empty.

    Args:
        template: Template with column names in braces.
        row: Row of a table.
        whole: Whether to use all items of a list, one per line, instead of the first (see `first_text`).
    """
    read = _all_text if whole else first_text
    values = {path: "\n".join(filter(None, map(read, resolve(row, path)))) for path in FIELD.findall(template)}
    if values and not any(values.values()):
        return ""
    return FIELD.sub(lambda field: values[field[1]], template).strip()


def first_text(value: Any, depth: int = 8) -> str:
    """Return the text of a cell; of several answers (a list, or SQuAD's `{"text": [...]}`) the first.

    Args:
        value: Cell.
        depth: Maximum nesting of lists and mappings; deeper text is ignored.
    """
    if isinstance(value, Mapping | list):
        inside = [value.get("text")] if isinstance(value, Mapping) else value
        return next(filter(None, (first_text(each, depth - 1) for each in inside)), "") if depth else ""
    return cell_text(value)


def _all_text(value: Any) -> str:
    """Return all text of a cell that a prompt refers to; turns of a conversation start with the speaker."""
    turns = as_turns(value)
    if turns is None or (isinstance(value, str) and not all(map(_is_turn, turns))):  # "[1, 2]" is a text
        return first_text(value)
    lines = []
    for turn in turns:
        said = [turn.get(key) for key in CONTENT_KEYS] if _is_turn(turn) else [turn]
        if text := next(filter(None, map(first_text, said)), ""):
            lines.append(f"{speaker(turn)}: {text}" if speaker(turn) else text)
    return "\n".join(lines)


def as_turns(value: Any) -> list[Any] | None:
    """Return the list of turns in a cell (a JSON string in CSV files), or None."""
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
    """Return whether another column describes the conversations, e.g. as a summary, and is the response."""
    others = [column for column in table.columns if column != messages and _is_text(column, sample)]
    return _words(messages) not in _CHATS and _named(_RESPONSES, others) is not None


def _assistant_name(table: Table, messages: str, given: str | None) -> str | None:
    """Return the speaker that is the assistant, in conversations with names instead of roles."""
    turns = [turn for row in table.rows for cell in resolve(row, messages) for turn in as_turns(cell) or ()]
    names = Counter(name for turn in turns if isinstance(turn, dict) and (name := speaker(turn)))
    if given is not None:
        if given not in names:
            match = nearest(given, list(names))
            raise ConfigError(
                f"assistant = {given!r}: {table.name} has no such speaker, only {_counted(names)}",
                fix=f"Did you mean {match!r}?" if match else "Name one of them.",
            )
        return given
    roles = {key for turn in turns if isinstance(turn, dict) for key in ROLE_KEYS if first_text(turn.get(key))}
    if roles == {"name"} and not all(name.lower() in ROLES for name in names):
        first = names.most_common(1)[0][0]
        raise ConfigError(
            f"{table.name}: a chat of {_counted(names)}, without roles",
            rule="the turns of one speaker are trained as the assistant's",
            fix=f"Choose the speaker: assistant = {first!r} (on the command line --set 'assistant={first}').",
        )
    return None


def _counted(names: Counter[str], max_names: int = 8) -> str:
    """Return the most frequent speakers with their number of turns, as text."""
    listed = ", ".join(f"{name} ({count:,})" for name, count in names.most_common(max_names))
    return listed + (f" and {len(names) - max_names:,} more" if len(names) > max_names else "")


def speaker(turn: Any) -> str:
    """Return the speaker of a turn; "" if it is not given."""
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
        response = _named(_RESPONSES, free) or _named(_RESPONSES, empty)  # an empty column is reported row by row
        free = [column for column in free if f"{{{column}}}" != response]
        prose = [column for column in prose if column in free]
    if prompt is None:
        prompt = _named(_PROMPTS, [column for column in prose or free if f"{{{column}}}" != response])
        beside = [column for column in free if f"{{{column}}}" != prompt and _words(column) in _INPUTS]
        if prompt is not None and len(beside) == 1:  # Alpaca's input follows the instruction
            prompt = f"{prompt}\n{{{beside[0]}}}" if _words(beside[0]) == "input" else f"{{{beside[0]}}}\n{prompt}"
    left = [column for column in prose if by_content and f"{{{column}}}" not in (prompt, response)]
    if prompt is None and response is None and len(left) == 2:
        prompt = max(left, key=lambda column: _question_fraction(column, sample))  # the first if neither asks
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
    """Return a template of the column with the best matching name; exact matches come first."""
    for matches in (lambda words, name: words == name, lambda words, name: name in words.split() and len(name) > 1):
        for name in names:
            for column in columns:
                if matches(_words(column), name):
                    return f"{{{column}}}"
    return None


def _words(column: str) -> str:
    """Return the words of a column name: `bestAnswer`, `best_answer`, `Best Answer:` -> "best answer"."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", column)
    return " ".join(re.findall(r"\w+", spaced.replace("_", " "))).lower()


def _cells(column: str, sample: Sequence[Mapping[str, Any]]) -> list[str]:
    return [text for row in sample if (text := first_text(row.get(column)))]


def _is_text(column: str, sample: Sequence[Mapping[str, Any]]) -> bool:
    return any(re.search(r"\w", text) for text in _cells(column, sample))


def _is_language(column: str, sample: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a column contains natural language, not ids, numbers, links, dates or repeated labels."""
    cells = _cells(column, sample)
    several_words = sum(1 for text in cells if len(re.findall(r"[^\W\d_]+", text)) > 1 and " " in text)
    repeated = len(cells) >= 20 and len(set(cells)) <= len(cells) // 10
    return bool(cells) and several_words >= _MIN_PROSE_FRACTION * len(cells) and not repeated


def _question_fraction(column: str, sample: Sequence[Mapping[str, Any]]) -> float:
    cells = _cells(column, sample)
    return sum(text.endswith(("?", "？", "؟")) for text in cells) / max(1, len(cells))


def _template(table: Table, key: str, given: str | None) -> str | None:
    """Return a configured column as a template."""
    if given is None:
        return None
    if given in table.columns:
        return f"{{{given}}}"
    for path in FIELD.findall(given) or [given]:
        _require_column(table, key, path if path in table.columns else path.split(".")[0], given)
    return given.replace("\\n", "\n")  # a shell passes backslash and n


def _given_system(table: Table, rules: ConversationRules) -> str | None:
    if rules.system is None:
        return None
    if not (FIELD.search(rules.system) or rules.system in table.columns):
        if nearest(rules.system, table.columns):  # a mistyped column name, not a system message
            _require_column(table, "system", rules.system, rules.system)
        return rules.system
    return _template(table, "system", rules.system)


def _require_column(table: Table, key: str, column: str, given: str) -> None:
    if column in table.columns:
        return
    match = nearest(column, table.columns)
    raise ConfigError(
        f"{key} = {given!r}: {table.name} has no column {column!r}, only {', '.join(table.columns[:12])}",
        fix=f"Did you mean {match!r}?" if match else "Name one of them.",
    )
