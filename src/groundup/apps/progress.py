"""Progress bar for an application that processes a long input."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from groundup.core.console import Console


class ChunkProgress:
    """A progress bar that counts the chunks of a long input.

    Args:
        console: Console that shows the progress bar.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._stack = ExitStack()
        self._bar: Any = None
        self._done = 0

    def __enter__(self) -> ChunkProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def show(self, done: int, total: int) -> None:
        """Show the number of finished chunks. Start a new progress bar if `done` is 0."""
        if done == 0:
            self._stack.close()
            self._bar, self._done = None, 0
            if total > 1:
                self._bar = self._stack.enter_context(self._console.progress("reading", total, "chunks"))
        elif self._bar is not None:
            self._bar.advance(done - self._done)
            self._done = done
