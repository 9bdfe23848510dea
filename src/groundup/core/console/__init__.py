"""What a person sees while work goes on: stages, progress, notes, tables; plain lines without a terminal."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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

_LOG_SECONDS = 10.0  # without a terminal: a line at least this often, and at every tenth of the way,
_LOG_SPACING = 2.0  # but never more often than this
_LOG_WIDTH = 110
_SAMPLE_WIDTH = 88  # a comfortable line

# Text of models and documents may hold terminal commands (ESC, C1) or turn the writing direction around.
_UNSAFE = {
    code: "�"
    for code in (*range(32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
    if chr(code) not in "\n\t"
}


def print_now(text: str) -> None:
    """Write to stdout without buffering."""
    sys.stdout.write(text)
    sys.stdout.flush()


def visible(text: str) -> str:
    """The text with control characters made visible, safe to print on a terminal."""
    return text.replace("\r\n", "\n").translate(_UNSAFE)


class ProgressBar(Protocol):
    """A running piece of work."""

    def advance(self, amount: float = 1) -> None:
        """Say that `amount` more units are done."""
        ...

    def expect(self, total: float) -> None:
        """Say how many units there will be in all, where that has changed."""
        ...

    def show(self, **fields: str) -> None:
        """Show named values beside the bar, e.g. `loss="3.21"`."""
        ...


class Stages(Protocol):
    """The list of stages of a run."""

    def mark(self, name: str, state: State, *, seconds: float | None = None, detail: str = "") -> None:
        """Set a stage's state; `seconds` where it did not run under this list, `detail` for one more fact."""
        ...


class Console:
    """The one way to speak to the person at the terminal. Everything goes to stderr; stdout is for results.

    Args:
        quiet: show warnings and errors only.
        stream: where to write; stderr unless given.

    Without a terminal (a pipe, CI, `TERM=dumb`) or with `NO_COLOR`, everything is plain lines, none of which
    is ever taken back. No text is read as markup.
    """

    def __init__(self, *, quiet: bool = False, stream: TextIO | None = None) -> None:
        self.quiet = quiet
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

    def note(self, text: str) -> None:
        """One line of information."""
        if not self.quiet:
            self._print(Text(visible(redacted(text))))

    def warn(self, text: str) -> None:
        """One line that the user should act on or know; shown even when quiet."""
        self._print(Text.assemble(("warning: ", "bold yellow"), visible(redacted(text))))

    def error(self, error: GroundupError) -> None:
        """Print what is wrong, the rule if there is one, and the fix, even when quiet."""
        for name, text, style in (
            ("error", error.value, "bold red"),
            (" rule", error.rule, "bold"),
            ("  fix", error.fix, "bold green"),
        ):
            if text:
                self._print(Text.assemble((f"{name}: ", style), visible(text)))

    def rule(self, title: str) -> None:
        """A heading over what follows."""
        if not self.quiet:
            self._print(Text(f"\n{visible(title)}", style="bold"))

    def sample(self, title: str, text: str | Sequence[tuple[str, str]]) -> None:
        """A piece of text that a model wrote or a document, set apart.

        Args:
            text: as it is, or in parts, each with its style ("bold green"; "" for none).
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
        """A table; the first column is left-aligned, the others right-aligned."""
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
        """A progress bar with rate and time left.

        Args:
            total: units in all; `None` where nobody knows.
            unit: what is counted, in the plural ("tokens"); "bytes" are shown as kB, MB, GB.
            done: units finished in an earlier run (not in the rate).
            curve: the field of `show` whose history is drawn beside it, e.g. "loss".
        """
        outermost = not self._view.meters
        meter = Meter(visible(redacted(label)), total, unit, done, curve)
        self._view.meters.append(meter)
        opened = self._open()
        try:
            yield meter if self.interactive or self.quiet else _Logged(meter, self.note)
            if outermost:
                self.note(f"    {meter.summary()}" if self._view.rows else meter.summary())
        finally:
            self._view.meters.remove(meter)
            if opened:
                self._close()

    @contextmanager
    def stages(self, names: Mapping[str, str]) -> Iterator[Stages]:
        """The list of stages, shown until the block ends, and then left standing as the summary.

        Args:
            names: name -> what the stage does, in a few words.
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

    def _print(self, text: Text) -> None:
        self._rich.print(text, soft_wrap=True)

    def _open(self) -> bool:
        """Start drawing, unless that is going on (or there is nobody to see it); says whether it did."""
        if self._live is not None or self.quiet or not self.interactive:
            return False
        self._live = start_display(self._view, self._rich)
        return True

    def _close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


class _Logged:
    """A progress that is told in lines: at every tenth of the way, and now and then in between."""

    def __init__(self, meter: Meter, say: Callable[[str], None]) -> None:
        self._meter, self._say = meter, say
        self._said_at, self._said_tenth = meter.started, int(10 * (meter.fraction or 0))

    def advance(self, amount: float = 1) -> None:
        self._meter.advance(amount)
        silent = time.monotonic() - self._said_at
        tenth = int(10 * (self._meter.fraction or 0))
        if silent < _LOG_SPACING or (silent < _LOG_SECONDS and tenth <= self._said_tenth):
            return
        self._said_at, self._said_tenth = time.monotonic(), tenth
        fields = [f"{name} {value}" for name, value in self._meter.fields.items()]
        self._say(f"{self._meter.label}: {', '.join([*self._meter.parts(), *fields]).strip()}")

    def expect(self, total: float) -> None:
        self._meter.expect(total)

    def show(self, **fields: str) -> None:
        self._meter.show(**fields)


class _StageList:
    def __init__(self, rows: Mapping[str, StageRow], say: Callable[[str], None]) -> None:
        self._rows, self._say = rows, say

    def mark(self, name: str, state: State, *, seconds: float | None = None, detail: str = "") -> None:
        row = self._rows[name]
        if state == "running":
            row.started = time.monotonic()
        row.seconds = seconds if seconds is not None else row.elapsed
        row.state, row.detail = state, visible(detail)
        count = f"[{list(self._rows).index(name) + 1}/{len(self._rows)}] {name}"
        took = "" if state == "running" or row.seconds is None else f" in {format_duration(row.seconds)}"
        said = {"running": row.about, "skipped": f"done earlier{took}"}.get(state, f"{state}{took}")
        told = f"{said}, {row.detail}" if row.detail else said
        self._say(f"{count}: {told}")
