"""The screen and the keyboard of a conversation; without a terminal, lines in and answers out."""

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


class Action(Enum):
    """What is left to the one who shows the conversation."""

    RETRY = auto()
    QUIT = auto()


@dataclass(frozen=True, slots=True)
class Command:
    """One command.

    Attributes:
        argument: what may follow the name, as help shows it.
        about: what it does, in a few words.
        run: does it; returns what to say, or an action.
    """

    argument: str
    about: str
    run: Callable[[Session, str], str | Action]


def is_command(line: str) -> bool:
    """Whether a line is a command; "//" begins a message that begins with "/"."""
    return line.startswith("/") and not line.startswith("//")


def run_command(line: str, session: Session) -> str | Action:
    """Run the command in a line.

    Raises:
        ConfigError: there is no such command, or its argument is wrong.
    """
    name, _, argument = line.removeprefix("/").partition(" ")
    name = _ALIASES.get(name, name)
    if name not in COMMANDS:
        raise unknown_name("command", name, list(COMMANDS), prefix="/")
    return COMMANDS[name].run(session, argument.strip())


def _help(session: Session, argument: str) -> str:
    rows = [(f"/{name} {command.argument}".rstrip(), command.about) for name, command in COMMANDS.items()]
    rows += [('"""', "begins and ends a message of several lines"), ("//...", "a message that begins with /")]
    width = max(len(usage) for usage, _ in rows)
    return "\n".join(f"{usage:{width}}  {about}" for usage, about in rows)


def _reset(session: Session, argument: str) -> str:
    session.reset()
    return "A new conversation."


def _system(session: Session, argument: str) -> str:
    if not argument:
        return f"system: {session.settings.system or 'none'}"
    system = None if argument == "none" else argument
    session.configure(replace(session.settings, system=system))
    return "No system message." if system is None else "The model is told so before the conversation."


def _number(name: str, kind: type[int] | type[float], *, optional: bool = False) -> Callable[[Session, str], str]:
    """A command that shows a number among the settings, or sets it."""

    def command(session: Session, argument: str) -> str:
        if argument:
            value: Any = None
            if not (optional and argument == "none"):
                try:
                    value = kind(argument)
                except ValueError:
                    wanted = "a whole number" if kind is int else "a number"
                    fix = f"Give {wanted}" + (", or none." if optional else ".")
                    raise ConfigError(f"/{name} {argument[:40]}", rule=f"{name} is {wanted}", fix=fix) from None
            session.configure(replace(session.settings, **{name: value}))
        value = getattr(session.settings, name)
        return f"{name} = {'none' if value is None else value}"

    return command


def _undo(session: Session, argument: str) -> str:
    turn = session.undo()
    line = turn.prompt.splitlines()[0] if turn.prompt.strip() else turn.prompt
    return f"Forgotten: {line[:60]!r} and its answer."


def _retry(session: Session, argument: str) -> Action:
    return Action.RETRY


def _quit(session: Session, argument: str) -> Action:
    return Action.QUIT


def _save(session: Session, argument: str) -> str:
    """One line of JSON that `groundup finetune instruct` reads as an example."""
    if not argument:
        raise ConfigError("/save", rule="it needs a file name", fix="Type, for example, /save talk.jsonl.")
    path = expand_home(Path(argument))
    messages = [asdict(message) for message in session.messages]
    try:
        if path.exists():
            raise ConfigError(f"{path} exists", rule="nothing is overwritten", fix="Give another name.")
        with atomic_file(path) as temporary:
            temporary.write_text(json.dumps({"messages": messages}, ensure_ascii=False) + "\n", encoding="utf-8")
    except (OSError, ValueError) as error:  # ValueError: a name that no system has
        said = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path}: {said}", rule="the file must be writable", fix="Choose another.") from error
    turns = len(session.turns)
    return f"{turns} turn{'' if turns == 1 else 's'} in {path}"


COMMANDS = {
    "help": Command("", "show this list", _help),
    "reset": Command("", "begin a new conversation", _reset),
    "system": Command("[TEXT|none]", "what the model is told beforehand", _system),
    "temperature": Command(
        "[NUMBER]", "0 takes the likeliest token; 1 is the model's own distribution", _number("temperature", float)
    ),
    "top_p": Command("[NUMBER]", "draw from the likeliest tokens of this mass", _number("top_p", float)),
    "max_tokens": Command("[NUMBER|none]", "tokens of an answer at most", _number("max_tokens", int, optional=True)),
    "seed": Command("[NUMBER|none]", "the same seed, the same conversation", _number("seed", int, optional=True)),
    "undo": Command("", "forget the last turn", _undo),
    "retry": Command("", "answer the last message again", _retry),
    "save": Command("FILE", "write the conversation as a line of JSON", _save),
    "quit": Command("", "end (also Ctrl-D)", _quit),
}
_ALIASES = {"exit": "quit", "q": "quit", "bye": "quit", "?": "help", "clear": "reset"}


_PROMPT, _MORE = ">>> ", "... "
_BLOCK = '"""'


class Terminal:
    """Reads turns, shows answers as they are written.

    With a keyboard, Ctrl-C stops an answer and not the conversation. Without one, each line of `stdin` is a turn.
    What the model writes is shown with its control characters made visible: it cannot move the cursor, change
    the window's title or paste.

    Args:
        write: takes what the model says, to be shown at once.
        json_lines: write one JSON object for each turn, in ASCII, instead of text.
        stdin: where turns come from, if not from the process's own.
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
        # Python's own line editing prompts on stdout, where only a person may read.
        self._edits = self._keyboard and self._stdin is sys.stdin and sys.stdout.isatty() and not json_lines
        self._reading = False
        self._dropped = 0
        if self._edits:
            _load_line_editing()

    def run(self) -> None:
        """Talk until the input ends or the person leaves."""
        with self._interrupts_stop_answers():
            while (message := self._read_message()) is not None:
                try:
                    if self._handle(message) is Action.QUIT:
                        return
                except GroundupError as error:
                    self._console.error(error)
                    if self._json_lines:
                        kind = type(error).__name__
                        said = {"kind": kind, "value": error.value, "rule": error.rule, "fix": error.fix}
                        self._write_json({"prompt": message, "error": said})

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
        """Let the session answer, and show it as it comes."""
        shown = _SafeText()

        def show(piece: str) -> None:
            self._write(shown.feed(piece))

        turn = answer(None if self._json_lines else show)
        if self._json_lines:
            self._write_json(asdict(turn))
        else:
            rest = shown.flush()
            self._write(rest if (turn.text + rest).endswith("\n") else f"{rest}\n")
        self._say_what_happened(turn)

    def _say_what_happened(self, turn: Turn) -> None:
        if turn.dropped_turns > self._dropped:
            turns = "turn" if turn.dropped_turns == 1 else f"{turn.dropped_turns} turns"
            context = self._session.context_length
            self._console.note(f"(The model no longer sees the oldest {turns}: its context holds {context} tokens.)")
        self._dropped = turn.dropped_turns
        if not self._keyboard:
            return
        if turn.finish_reason == "cancelled":
            self._console.note("(stopped)")
        elif turn.finish_reason == "length":
            full = turn.prompt_tokens + turn.completion_tokens >= self._session.context_length
            self._console.note("(cut: the context is full)" if full else "(cut: /max_tokens allows more)")

    def _read_message(self) -> str | None:
        """The next message or command; None at the end of the input."""
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
                self._console.note("(Ctrl-D or /quit ends.)")
            finally:
                self._reading = False

    @contextmanager
    def _interrupts_stop_answers(self) -> Iterator[None]:
        """With a keyboard, Ctrl-C stops what the model is writing. In a pipe it ends the command, as everywhere."""
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
        # ASCII only: JSON lets some control characters of Unicode stand as they are.
        self._write(json.dumps(value) + "\n")


class _SafeText:
    """Pieces of a model's text, safe to print; a line end that is cut in two stays one."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, piece: str) -> str:
        text = self._held + piece
        self._held = "\r" if text.endswith("\r") else ""
        return visible(text.removesuffix("\r"))

    def flush(self) -> str:
        return visible(self._held)


def _load_line_editing() -> None:
    """Arrow keys and a history of lines in memory, where the system has them. Nothing is kept on disk."""
    with suppress(ImportError):
        import readline  # noqa: F401  importing it is what changes `input`
