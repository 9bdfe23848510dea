"""Parsing of generated text into text and tool calls while the text is generated."""

from __future__ import annotations

import secrets
import string
from dataclasses import dataclass
from enum import Enum, auto

from groundup.inference import TokenEvent
from groundup.tokenizer.tool_format import ToolFormat

_ID_LENGTH = 9  # chat templates of Mistral accept only IDs of nine letters and digits
_ID_CHARACTERS = string.ascii_letters + string.digits


@dataclass(frozen=True, slots=True)
class TextPiece:
    """A piece of the text that a model writes before its tool calls."""

    text: str


@dataclass(frozen=True, slots=True)
class CallStart:
    """The start of a tool call.

    Attributes:
        index: Number of tool calls before this call.
        id: ID of the call, which the result of the call refers to.
        name: Name of the function.
    """

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class ArgumentsPiece:
    """A piece of the arguments of a tool call, which are a JSON object."""

    index: int
    text: str


Piece = TextPiece | CallStart | ArgumentsPiece


class _State(Enum):
    START = auto()
    TEXT = auto()
    NAME = auto()
    ARGUMENTS = auto()
    BETWEEN = auto()


class ToolCallParser:
    """Parser of the text of one answer, which a grammar forces into the format of the model's tool calls.

    Args:
        format: Format of the tool calls, or None if all of the answer is text.
        after_text: Whether calls may follow text. Otherwise they are recognized only at the start of the answer.
    """

    def __init__(self, format: ToolFormat | None = None, *, after_text: bool = True) -> None:
        self._format = format
        self._after_text = after_text and format is not None and not format.is_bare
        self._state = _State.START
        self._waiting = ""  # unparsed text, which may be the start of a marker
        self._num_calls = 0
        self._json = _JsonObject()

    @property
    def has_calls(self) -> bool:
        """Whether a tool call has started."""
        return self._num_calls > 0

    def parse(self, event: TokenEvent) -> list[Piece]:
        """Return the pieces that are complete after the next event of the answer."""
        if self._format is None:
            return [TextPiece(event.text)] if event.text else []
        self._waiting += event.text
        pieces: list[Piece] = []
        while self._waiting and self._step(self._format, pieces):
            pass
        if event.finish_reason is not None and self._waiting and self._state in (_State.START, _State.TEXT):
            pieces.append(TextPiece(self._waiting))
        return pieces

    def _step(self, format: ToolFormat, pieces: list[Piece]) -> bool:
        """Parse the next part of the waiting text, and return whether to continue with the rest."""
        match self._state:
            case _State.START:
                return self._start(format)
            case _State.TEXT:
                return self._text(format, pieces)
            case _State.NAME:
                return self._name(format, pieces)
            case _State.ARGUMENTS:
                return self._arguments(pieces)
            case _State.BETWEEN:
                return self._between(format)

    def _start(self, format: ToolFormat) -> bool:
        """Recognize calls that occur only at the start of an answer."""
        if not self._after_text:
            for begin in (format.opening, format.tag + format.opening):
                if self._waiting.startswith(begin):
                    return self._after(len(begin), _State.NAME)
                if begin.startswith(self._waiting):
                    return False
        self._state = _State.TEXT
        return True

    def _text(self, format: ToolFormat, pieces: list[Piece]) -> bool:
        found, end = -1, len(self._waiting)
        if self._after_text:
            found = self._waiting.find(format.marker)
            overlaps = range(min(len(format.marker), end), 0, -1)
            held = next((n for n in overlaps if self._waiting.endswith(format.marker[:n])), 0)
            # White space between the text and a call is part of neither.
            end = len(self._waiting[: end - held if found < 0 else found].rstrip())
        if end:
            pieces.append(TextPiece(self._waiting[:end]))
        if found < 0:
            self._waiting = self._waiting[end:]
            return False
        begin = found + len(format.opening)
        if len(self._waiting) < begin:
            self._waiting = self._waiting[found:]
            return False
        return self._after(begin, _State.NAME)

    def _name(self, format: ToolFormat, pieces: list[Piece]) -> bool:
        name, middle, _ = self._waiting.partition(format.middle)
        if not middle:
            return False
        call_id = "".join(secrets.choice(_ID_CHARACTERS) for _ in range(_ID_LENGTH))
        pieces.append(CallStart(self._num_calls, call_id, name))
        self._num_calls += 1
        self._json = _JsonObject()
        return self._after(len(name) + len(middle), _State.ARGUMENTS)

    def _arguments(self, pieces: list[Piece]) -> bool:
        end = self._json.end_in(self._waiting)
        pieces.append(ArgumentsPiece(self._num_calls - 1, self._waiting[:end]))
        return self._after(end, _State.BETWEEN if self._json.is_complete else _State.ARGUMENTS)

    def _between(self, format: ToolFormat) -> bool:
        separator = format.separator
        if separator is not None and self._waiting.startswith(separator):
            return self._after(len(separator), _State.NAME)
        return False

    def _after(self, end: int, state: _State) -> bool:
        self._waiting, self._state = self._waiting[end:], state
        return True


class _JsonObject:
    """Position in a JSON object that arrives in pieces."""

    def __init__(self) -> None:
        self._depth = 0
        self._quoted = self._escaped = False
        self.is_complete = False

    def end_in(self, text: str) -> int:
        """Return the number of characters of the next text that belong to the object."""
        for position, character in enumerate(text):
            if self._escaped:
                self._escaped = False
            elif self._quoted:
                self._escaped = character == "\\"
                self._quoted = character != '"'
            elif character == '"':
                self._quoted = True
            else:
                self._depth += (character in "{[") - (character in "}]")
                if self._depth == 0:
                    self.is_complete = True
                    return position + 1
        return len(text)
