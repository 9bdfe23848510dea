"""The screen and the keyboard of a conversation; without a terminal, lines in and answers out."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from types import FrameType
from typing import Any, TextIO

from groundup.chat.commands import Action, is_command, run_command
from groundup.chat.session import Session, Turn
from groundup.core.console import Console, visible
from groundup.core.errors import GroundupError

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
