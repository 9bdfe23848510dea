"""Terminal interface of a chat session. If stdin is not a terminal, each line of stdin is a message."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from enum import Enum, auto
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from groundup.chat.session import Session, Turn
from groundup.core.config import unknown_name
from groundup.core.console import Console, visible
from groundup.core.errors import ConfigError, GroundupError
from groundup.core.files import atomic_file, expand_home
from groundup.core.plural import pluralize


class Action(Enum):
    """Action that the terminal performs after a chat command."""

    RETRY = auto()
    QUIT = auto()


@dataclass(frozen=True, slots=True)
class Command:
    """A chat command such as /help.

    Attributes:
        argument: Placeholder of the argument that /help shows.
        about: Summary that /help shows.
        run: Function that runs the command. It returns a message to print, or an action for the terminal.
    """

    argument: str
    about: str
    run: Callable[[Session, str], str | Action]


def is_command(line: str) -> bool:
    """Return whether a line is a chat command. A line that starts with "//" is a message that starts with "/".

    Args:
        line: Line that the user typed.
    """
    return line.startswith("/") and not line.startswith("//")


def run_command(line: str, session: Session) -> str | Action:
    """Run a chat command.

    Args:
        line: Name of the command, followed by its argument.
        session: Session that the command changes.

    Returns:
        A message to print, or an action for the terminal.

    Raises:
        ConfigError: The command is unknown, or its argument is invalid.
    """
    name, _, argument = line.removeprefix("/").partition(" ")
    name = _ALIASES.get(name, name)
    if name not in COMMANDS:
        raise unknown_name("command", name, list(COMMANDS), prefix="/")
    return COMMANDS[name].run(session, argument.strip())


def _help(session: Session, argument: str) -> str:
    rows = [(f"/{name} {command.argument}".rstrip(), command.about) for name, command in COMMANDS.items()]
    rows += [('"""', "start and end a message with several lines"), ("//...", "send a message that starts with /")]
    width = max(len(usage) for usage, _ in rows)
    return "\n".join(f"{usage:{width}}  {about}" for usage, about in rows)


def _reset(session: Session, argument: str) -> str:
    session.reset()
    return "Started a new conversation."


def _system(session: Session, argument: str) -> str:
    if not argument:
        return f"system: {session.settings.system or 'none'}"
    system = None if argument == "none" else argument
    session.configure(replace(session.settings, system=system))
    return "Removed the system message." if system is None else "Set the system message."


def _number(name: str, kind: type[int] | type[float], *, optional: bool = False) -> Callable[[Session, str], str]:
    """Return a chat command that shows or changes a numeric setting."""

    def command(session: Session, argument: str) -> str:
        if argument:
            value: Any = None
            if not (optional and argument == "none"):
                try:
                    value = kind(argument)
                except ValueError:
                    required = "a whole number" if kind is int else "a number"
                    fix = f"Give {required}" + (", or none." if optional else ".")
                    raise ConfigError(f"/{name} {argument[:40]}: not {required}", fix=fix) from None
            session.configure(replace(session.settings, **{name: value}))
        value = getattr(session.settings, name)
        return f"{name} = {'none' if value is None else value}"

    return command


def _undo(session: Session, argument: str) -> str:
    turn = session.undo()
    line = turn.prompt.splitlines()[0] if turn.prompt.strip() else turn.prompt
    return f"Removed {line[:60]!r} and its answer."


def _retry(session: Session, argument: str) -> Action:
    return Action.RETRY


def _quit(session: Session, argument: str) -> Action:
    return Action.QUIT


def _index(session: Session, argument: str) -> str:
    if argument:
        session.open_index(None if argument == "none" else expand_home(Path(argument)))
    if session.index is None:
        return "index: none"
    return f"index: {session.index.directory} ({pluralize(len(session.index.documents), 'document')})"


def _save(session: Session, argument: str) -> str:
    """Append the conversation to a file as a line of JSON, in the format that `groundup finetune instruct` reads."""
    if not argument:
        raise ConfigError("/save: no file name", fix="Type /save chat.jsonl, for example.")
    path = expand_home(Path(argument))
    messages = [asdict(message) for message in session.messages]
    try:
        if path.exists():
            raise ConfigError(f"{path} already exists", fix="Give another name.")
        with atomic_file(path) as temporary:
            temporary.write_text(json.dumps({"messages": messages}, ensure_ascii=False) + "\n", encoding="utf-8")
    except (OSError, ValueError) as error:  # a null character in the file name raises ValueError
        problem = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot write {path}: {problem}", fix="Choose another file.") from error
    return f"Saved {pluralize(len(session.turns), 'turn')} to {path}."


COMMANDS = {
    "help": Command("", "show this list", _help),
    "reset": Command("", "start a new conversation", _reset),
    "system": Command("[TEXT|none]", "show or set the system message", _system),
    "temperature": Command(
        "[NUMBER]", "show or set the sampling temperature; 0 is greedy", _number("temperature", float)
    ),
    "top_p": Command("[NUMBER]", "show or set the probability for nucleus sampling", _number("top_p", float)),
    "max_tokens": Command(
        "[NUMBER|none]",
        "show or set the maximum number of tokens per answer",
        _number("max_tokens", int, optional=True),
    ),
    "seed": Command("[NUMBER|none]", "show or set the random seed", _number("seed", int, optional=True)),
    "index": Command("[DIR|none]", "show or set the index whose documents answer", _index),
    "undo": Command("", "remove the last turn", _undo),
    "retry": Command("", "generate the last answer again", _retry),
    "save": Command("FILE", "save the conversation as a line of JSON", _save),
    "quit": Command("", "quit (also Ctrl-D)", _quit),
}
_ALIASES = {"exit": "quit", "q": "quit", "bye": "quit", "?": "help", "clear": "reset"}


_PROMPT, _MORE = ">>> ", "... "
_BLOCK = '"""'


class Terminal:
    """Reads messages and prints the streamed answers.

    If stdin is a terminal, Ctrl-C stops the answer but not the session. If stdin is not a terminal, each line of
    `stdin` is a message. Control characters in answers are replaced, so that the model's output cannot control the
    terminal.

    Args:
        session: Session that generates the answers.
        console: Console for messages and errors.
        write: Function that is called with each piece of an answer.
        json_lines: Whether to write an ASCII JSON object for each turn instead of text.
        stdin: Stream that messages are read from. Default: `sys.stdin`.
    """

    def __init__(
        self,
        session: Session,
        console: Console,
        write: Callable[[str], object],
        *,
        json_lines: bool = False,
        stdin: TextIO | None = None,
    ) -> None:
        self._session = session
        self._console = console
        self._write = write
        self._json_lines = json_lines
        self._stdin = stdin or sys.stdin
        self._keyboard = self._stdin.isatty()
        # Python's line editing prints the prompt to stdout, so stdout must also be a terminal.
        self._edits = self._keyboard and self._stdin is sys.stdin and sys.stdout.isatty() and not json_lines
        self._reading = False
        self._dropped = 0
        if self._edits:
            _load_line_editing()

    def run(self) -> None:
        """Run the session until the input ends or the user types /quit."""
        with self._interrupts_stop_answers():
            while (message := self._read_message()) is not None:
                try:
                    if self._handle(message) is Action.QUIT:
                        return
                except GroundupError as error:
                    self._console.error(error)
                    if self._json_lines:
                        kind = type(error).__name__
                        report = {"kind": kind, "value": error.value, "rule": error.rule, "fix": error.fix}
                        self._write_json({"prompt": message, "error": report})

    def _handle(self, message: str) -> Action | None:
        if is_command(message):
            reply = run_command(message, self._session)
            if reply is Action.RETRY:
                self._show(self._session.retry)
            elif isinstance(reply, Action):
                return reply
            else:
                self._console.note(reply)
        elif message.strip():
            self._show(partial(self._session.ask, message[1:] if message.startswith("//") else message))
        return None

    def _show(self, answer: Callable[[Callable[[str], object] | None], Turn]) -> None:
        """Generate an answer and print it while it is generated."""
        shown = _SafeText()

        def show(piece: str) -> None:
            self._write(shown.feed(piece))

        turn = answer(None if self._json_lines else show)
        if self._json_lines:
            self._write_json(asdict(turn))
        else:
            rest = shown.flush()
            self._write(rest if (turn.text + rest).endswith("\n") else f"{rest}\n")
        self._report_turn(turn)

    def _report_turn(self, turn: Turn) -> None:
        if turn.dropped_turns > self._dropped:
            turns = pluralize(turn.dropped_turns, "turn")
            context = self._session.context_length
            self._console.note(f"(Dropped the oldest {turns}, because the context has {context:,} tokens.)")
        self._dropped = turn.dropped_turns
        if not self._keyboard:
            return
        if turn.finish_reason == "cancelled":
            self._console.note("(stopped)")
        elif turn.finish_reason == "length":
            full = turn.prompt_tokens + turn.completion_tokens >= self._session.context_length
            self._console.note("(cut: the context is full)" if full else "(cut: increase /max_tokens for more)")

    def _read_message(self) -> str | None:
        """Return the next message or command. Return None at the end of the input."""
        line = self._read_line(_PROMPT)
        if line is None or not line.startswith(_BLOCK):
            return line
        lines = [line.removeprefix(_BLOCK)]
        while not lines[-1].rstrip().endswith(_BLOCK):
            more = self._read_line(_MORE)
            if more is None:
                self._console.warn(f"the message's closing {_BLOCK} is missing")
                return "\n".join(lines)
            lines.append(more)
        lines[-1] = lines[-1].rstrip().removesuffix(_BLOCK)
        return "\n".join(lines).strip("\n")

    def _read_line(self, prompt: str) -> str | None:
        while True:
            self._reading = True
            try:
                if self._edits:
                    return input(prompt)
                if self._keyboard:
                    sys.stderr.write(prompt)
                    sys.stderr.flush()
                line = self._stdin.readline()
                return line.removesuffix("\n").removesuffix("\r") if line else None
            except EOFError:
                sys.stderr.write("\n")
                return None
            except KeyboardInterrupt:
                if not self._keyboard:
                    raise
                sys.stderr.write("\n")
                self._console.note("(Press Ctrl-D or type /quit to quit.)")
            finally:
                self._reading = False

    @contextmanager
    def _interrupts_stop_answers(self) -> Iterator[None]:
        """Inside the block, Ctrl-C on a terminal stops the answer. If stdin is a pipe, Ctrl-C ends the program."""
        if not self._keyboard or threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number: int, frame: FrameType | None) -> None:
            if self._reading:
                raise KeyboardInterrupt
            self._session.cancel()

        before = signal.signal(signal.SIGINT, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _write_json(self, value: dict[str, Any]) -> None:
        # Write only ASCII characters, because JSON does not escape some Unicode control characters.
        self._write(json.dumps(value) + "\n")


class _SafeText:
    """Makes pieces of generated text safe to print. A CRLF line ending may be split over two pieces."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, piece: str) -> str:
        text = self._held + piece
        self._held = "\r" if text.endswith("\r") else ""
        return visible(text.removesuffix("\r"))

    def flush(self) -> str:
        return visible(self._held)


def _load_line_editing() -> None:
    """Enable line editing with an in-memory history, if the operating system supports it."""
    with suppress(ImportError):
        import readline  # noqa: F401  importing it is what changes `input`
