"""What a person sees while work goes on: stages, progress with rate and time left, notes, tables; plain without a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol


class Progress(Protocol):
    """A running piece of work."""

    def advance(self, amount: float = 1) -> None:
        """Say that `amount` more units are done."""
        ...

    def show(self, **fields: str) -> None:
        """Show named values beside the bar, e.g. `loss="3.21"`."""
        ...


class Console:
    """The one way to speak to the person at the terminal. Everything goes to stderr; stdout is for results."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet

    def note(self, text: str) -> None:
        """One line of information."""
        raise NotImplementedError

    def warn(self, text: str) -> None:
        """One line that the user should act on or know; shown even when quiet."""
        raise NotImplementedError

    def sample(self, title: str, text: str) -> None:
        """A piece of text that a model wrote or a document, set apart."""
        raise NotImplementedError

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table; the first column is left-aligned, the others right-aligned."""
        raise NotImplementedError

    @contextmanager
    def progress(self, label: str, total: float | None, unit: str, *, done: float = 0) -> Iterator[Progress]:
        """A progress bar with rate and time left. `done`: units finished in an earlier run (not in the rate)."""
        raise NotImplementedError
        yield
