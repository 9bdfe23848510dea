"""Live display of the stage list, with the progress bars of the running stage."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from rich.cells import cell_len
from rich.console import Console as RichConsole
from rich.console import ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from groundup.core.console.meter import Meter, format_duration

State = Literal["pending", "running", "done", "skipped", "failed"]

_MARKS: dict[State, tuple[str, str, str]] = {  # symbol, ASCII symbol and style of each state
    "pending": ("○", ".", "dim"),
    "running": ("●", ">", "bold cyan"),
    "done": ("✓", "+", "green"),
    "skipped": ("✓", "+", "dim green"),
    "failed": ("✗", "x", "bold red"),
}
_SPINNER, _SPINNER_ASCII = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", "|/-\\"
_MAX_BAR_WIDTH, _MIN_BAR_WIDTH = 30, 8
_REFRESH_PER_SECOND = 5  # a low rate saves CPU time


@dataclass(slots=True)
class StageRow:
    """A row of the stage list."""

    about: str
    state: State = "pending"
    started: float = 0.0
    seconds: float | None = None
    detail: str = ""

    @property
    def elapsed(self) -> float | None:
        """Wall time of the stage in seconds: so far if it is running, otherwise in total."""
        return time.monotonic() - self.started if self.state == "running" else self.seconds


@dataclass(slots=True)
class LiveView:
    """Content of the live display. The library rich renders this object for each frame."""

    rows: Mapping[str, StageRow] = field(default_factory=dict)
    meters: list[Meter] = field(default_factory=list)

    def __rich_console__(self, console: RichConsole, options: ConsoleOptions) -> RenderResult:
        width = max((len(name) for name in self.rows), default=0)
        indent = "    " if self.rows else " "
        if self.rows:
            yield Text()
        for name, row in self.rows.items():
            yield self._stage(name.ljust(width), row, options.ascii_only)
            if row.state == "running":
                yield from self._bars(indent, options)
        if not self.rows:
            yield from self._bars(indent, options)

    def _stage(self, name: str, row: StageRow, ascii_only: bool) -> Text:
        mark, plain, style = _MARKS[row.state]
        if row.state == "running":
            frames = _SPINNER_ASCII if ascii_only else _SPINNER
            mark = plain = frames[int(time.monotonic() * _REFRESH_PER_SECOND) % len(frames)]
        clock = "" if row.elapsed is None else format_duration(row.elapsed)
        return Text.assemble(
            (f" {plain if ascii_only else mark} ", style),
            (f"{name}  ", "bold" if row.state == "running" else "dim" if row.state == "pending" else ""),
            (f"{clock:>7}  ", "cyan" if row.state == "running" else "dim"),
            (row.detail or row.about, "dim"),
            no_wrap=True,
            overflow="ellipsis",
        )

    def _bars(self, indent: str, options: ConsoleOptions) -> RenderResult:
        for meter in self.meters:
            yield from _bar(meter, indent, options)


def _bar(meter: Meter, indent: str, options: ConsoleOptions) -> RenderResult:
    parts = meter.parts()
    label = f"{indent}{meter.label} "
    available = options.max_width - 1 - cell_len(label)
    while len(parts) > 1 and sum(len(part) + 2 for part in parts) + _MIN_BAR_WIDTH > available:
        parts.pop()
    tail = "  ".join(parts)
    line = Text(label, no_wrap=True, overflow="ellipsis")
    if meter.fraction is not None:
        width = max(_MIN_BAR_WIDTH, min(_MAX_BAR_WIDTH, available - len(tail) - 2))
        done = int(width * meter.fraction)
        full, rest = ("#", "-") if options.ascii_only else ("━", "─")  # a thick and a thin line
        line.append(full * done, "cyan").append(rest * (width - done), "dim").append(" ")
    yield line.append(tail, "cyan")
    if meter.fields:
        shown = Text(indent, no_wrap=True, overflow="ellipsis")
        for name, value in meter.fields.items():
            shown.append(f"{name} ", "dim").append(value, "bold")
            if name == meter.curve and not options.ascii_only:
                shown.append(f" {meter.spark()}", "green")
            shown.append("   ")
        yield shown


def start_display(view: LiveView, console: RichConsole) -> Live:
    """Start the live display. Other output through `console` or to stderr appears above the display.

    Args:
        view: Content of the display.
        console: Rich console of the terminal.
    """
    live = Live(
        view,
        console=console,
        refresh_per_second=_REFRESH_PER_SECOND,
        transient=not view.rows,  # the list of stages stays on the screen, but a single bar does not
        redirect_stdout=False,  # results must reach stdout unchanged
        vertical_overflow="visible",
    )
    live.start()
    return live
