"""Console output while a command runs: the list of stages, progress bars, messages and tables."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Protocol, TextIO

from rich import box
from rich.console import Console as RichConsole
from rich.live import Live
from rich.table import Table
from rich.text import Text

from groundup.core.console.live import LiveView, StageRow, State, start_display
from groundup.core.console.meter import Meter, format_count, format_duration
from groundup.core.errors import GroundupError
from groundup.core.redact import redacted

__all__ = ["Console", "ProgressBar", "Stages", "format_count", "format_duration", "print_now", "visible"]

_LOG_SECONDS = 10.0  # maximum time between progress lines if stderr is not a terminal
_MIN_LOG_SECONDS = 2.0
_LOG_WIDTH = 110
_SAMPLE_WIDTH = 88

# Text from models and documents may contain terminal control sequences (ESC, C1), or characters that reverse the
# writing direction.
_UNSAFE = {
    code: "�"
    for code in (*range(32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
    if chr(code) not in "\n\t"
}


def print_now(text: str) -> None:
    """Write text to stdout and flush the buffer.

    Args:
        text: Text to write.
    """
    sys.stdout.write(text)
    sys.stdout.flush()


def visible(text: str) -> str:
    """Replace control characters by visible characters, so that the text can be printed safely on a terminal.

    Args:
        text: Text from a model or a document.
    """
    return text.replace("\r\n", "\n").translate(_UNSAFE)


class ProgressBar(Protocol):
    """Interface of a progress bar."""

    def advance(self, amount: float = 1) -> None:
        """Add a number of finished units."""
        ...

    def expect(self, total: float) -> None:
        """Change the total number of units."""
        ...

    def show(self, **fields: str) -> None:
        """Show named values next to the bar, such as `loss="3.21"`."""
        ...


class Stages(Protocol):
    """Interface of the stage list of a run."""

    def mark(self, name: str, state: State, *, seconds: float | None = None, detail: str = "") -> None:
        """Set the state of a stage and print it.

        Args:
            name: Name of the stage.
            state: New state.
            seconds: Wall time of the stage. Default: the time since the stage was marked as running.
            detail: Additional text after the state.
        """
        ...


class Console:
    """Messages to the user on stderr. Results go to stdout and do not use this class.

    If stderr is not a terminal (a pipe, CI, `TERM=dumb`) or `NO_COLOR` is set, the console only appends lines and never
    overwrites them. Markup in the text is not interpreted.

    Args:
        quiet: Whether to show only warnings and errors.
        stream: Output stream. Default: stderr.
    """

    def __init__(self, *, quiet: bool = False, stream: TextIO | None = None) -> None:
        self.quiet = quiet
        self._hides_progress = quiet
        stream = stream or sys.stderr
        plain = not stream.isatty() or os.environ.get("TERM") == "dumb"
        self.interactive = not (plain or os.environ.get("NO_COLOR") or os.environ.get("CI"))
        self._rich = RichConsole(
            file=stream,
            force_terminal=self.interactive,
            no_color=not self.interactive,
            width=None if self.interactive else _LOG_WIDTH,
            highlight=False,
            markup=False,
            emoji=False,
        )
        self._view = LiveView()
        self._live: Live | None = None

    def progress_only(self) -> Console:
        """Return a console for a command that another command runs: it shows only progress, warnings and errors."""
        other = copy(self)
        other.quiet = True
        return other

    def note(self, text: str) -> None:
        """Print a line of information, unless the console is quiet."""
        if not self.quiet:
            self._print_line(text)

    def warn(self, text: str) -> None:
        """Print a warning, even if the console is quiet."""
        self._print(Text.assemble(("warning: ", "bold yellow"), visible(redacted(text))))

    def error(self, error: GroundupError) -> None:
        """Print an error: the problem and the fix, even if the console is quiet."""
        for name, text, style in (
            ("error", error.value, "bold red"),
            (" rule", error.rule, "bold"),
            ("  fix", error.fix, "bold green"),
        ):
            if text:
                self._print(Text.assemble((f"{name}: ", style), visible(text)))

    def rule(self, title: str) -> None:
        """Print a heading."""
        if not self.quiet:
            self._print(Text(f"\n{visible(title)}", style="bold"))

    def sample(self, title: str, text: str | Sequence[tuple[str, str]]) -> None:
        """Print an indented sample, such as an excerpt of a document or generated text.

        Args:
            title: Heading above the sample.
            text: Text to print, or pairs of text and rich style ("bold green", or "" for no style).
        """
        if self.quiet:
            return
        mark = "|" if self._rich.options.ascii_only else "│"
        parts = [(text, "")] if isinstance(text, str) else text
        body = Text.assemble(*((visible(part), style) for part, style in parts))
        if self.interactive:
            lines = list(body.wrap(self._rich, max(20, min(_SAMPLE_WIDTH, self._rich.width - 6))))
        else:
            lines = list(body.split("\n", allow_blank=True))
        shown = Text.assemble((f"  {mark} ", "cyan"), (visible(title), "dim"))
        for line in lines:
            shown.append(f"\n  {mark} ", "cyan").append_text(line)
        self._print(shown)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table. The first column is left-aligned, and all other columns are right-aligned."""
        if self.quiet:
            return
        self.rule(title)
        table = Table(box=box.SIMPLE_HEAD, show_edge=False)
        for index, column in enumerate(columns):
            table.add_column(Text(visible(column)), justify="right" if index else "left")
        for row in rows:
            table.add_row(*(Text(visible(redacted(cell))) for cell in row))
        self._rich.print(table)

    @contextmanager
    def progress(
        self, label: str, total: float | None, unit: str, *, done: float = 0, curve: str | None = None
    ) -> Iterator[ProgressBar]:
        """Show a progress bar with rate and remaining time inside a `with` block.

        Args:
            label: Text in front of the bar.
            total: Total number of units, or None if it is unknown.
            unit: Plural noun of the units, such as "tokens". If it is "bytes", counts are shown in kB, MB or GB.
            done: Number of units that an earlier run finished. They are not used to calculate the rate.
            curve: Name of a value passed to `show`, such as "loss". The history of this value is drawn next to it.
        """
        outermost = not self._view.meters
        meter = Meter(visible(redacted(label)), total, unit, done, curve)
        self._view.meters.append(meter)
        opened = self._open()
        try:
            yield meter if self.interactive or self._hides_progress else _Logged(meter, self._print_progress)
            if outermost:
                self._print_progress(f"    {meter.summary()}" if self._view.rows else meter.summary())
        finally:
            self._view.meters.remove(meter)
            if opened:
                self._close()

    @contextmanager
    def stages(self, names: Mapping[str, str]) -> Iterator[Stages]:
        """Show the list of stages inside a `with` block. After the block, the list stays on the screen as a summary.

        Args:
            names: Maps the name of each stage to its summary.
        """
        rows = {name: StageRow(about=visible(about)) for name, about in names.items()}
        self._view.rows = rows
        self._open()
        try:
            yield _StageList(rows, self.note if not self.interactive else lambda _: None)
        except BaseException:
            for row in rows.values():
                if row.state == "running":
                    row.seconds, row.state = row.elapsed, "failed"
            raise
        finally:
            self._close()
            self._view.rows = {}

    def _print_progress(self, line: str) -> None:
        if not self._hides_progress:
            self._print_line(line)

    def _print_line(self, line: str) -> None:
        self._print(Text(visible(redacted(line))))

    def _print(self, text: Text) -> None:
        self._rich.print(text, soft_wrap=True)

    def _open(self) -> bool:
        """Start the live display if it is not running. Return whether this call started it."""
        if self._live is not None or self._hides_progress or not self.interactive:
            return False
        self._live = start_display(self._view, self._rich)
        return True

    def _close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


class _Logged:
    """Progress that is printed as lines: one line for each 10 %, and at least one line every 10 seconds."""

    def __init__(self, meter: Meter, write: Callable[[str], None]) -> None:
        self._meter, self._write = meter, write
        self._written_at, self._written_tenth = meter.started, int(10 * (meter.fraction or 0))

    def advance(self, amount: float = 1) -> None:
        self._meter.advance(amount)
        silent = time.monotonic() - self._written_at
        tenth = int(10 * (self._meter.fraction or 0))
        if silent < _MIN_LOG_SECONDS or (silent < _LOG_SECONDS and tenth <= self._written_tenth):
            return
        self._written_at, self._written_tenth = time.monotonic(), tenth
        fields = [f"{name} {value}" for name, value in self._meter.fields.items()]
        self._write(f"{self._meter.label}: {', '.join([*self._meter.parts(), *fields]).strip()}")

    def expect(self, total: float) -> None:
        self._meter.expect(total)

    def show(self, **fields: str) -> None:
        self._meter.show(**fields)


class _StageList:
    def __init__(self, rows: Mapping[str, StageRow], write: Callable[[str], None]) -> None:
        self._rows, self._write = rows, write

    def mark(self, name: str, state: State, *, seconds: float | None = None, detail: str = "") -> None:
        row = self._rows[name]
        if state == "running":
            row.started = time.monotonic()
        row.seconds = seconds if seconds is not None else row.elapsed
        row.state, row.detail = state, visible(detail)
        count = f"[{list(self._rows).index(name) + 1}/{len(self._rows)}] {name}"
        took = "" if state == "running" or row.seconds is None else f" in {format_duration(row.seconds)}"
        text = {"running": row.about, "skipped": f"done earlier{took}"}.get(state, f"{state}{took}")
        self._write(f"{count}: {text}, {row.detail}" if row.detail else f"{count}: {text}")
