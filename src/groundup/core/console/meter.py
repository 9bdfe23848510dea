"""State of a progress bar (count, rate, remaining time), and formatting of numbers and durations."""

from __future__ import annotations

import itertools
import math
import time
from collections import deque
from dataclasses import dataclass, field

from groundup.core.plural import singular_of

_WINDOW_SECONDS = 30.0  # averaging window, so a slow first step does not bias the rate
_SPACING_SECONDS = 0.25
_HISTORY = 512
_BLOCKS = "▁▂▃▄▅▆▇█"
_SCALES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def format_count(value: float, unit: str = "") -> str:
    """Format a number with three significant digits and its unit, such as "8.91k tokens", "1 token" or "41.3 MB".

    Args:
        value: Number to format.
        unit: Plural noun. If it is "bytes" or "B", the result is in kB, MB or GB.
    """
    if not math.isfinite(value):
        return f"{value} {unit}".rstrip()
    scale, letter = next(((s, x) for s, x in _SCALES if abs(value) >= s * 0.9995), (1.0, ""))
    scaled = value / scale
    exact = not letter and (float(value).is_integer() or abs(scaled) >= 100)
    digits = 0 if exact else max(0, 2 - math.floor(math.log10(max(abs(scaled), 0.01)) + 1e-3))
    if unit in ("bytes", "B"):
        return f"{scaled:.{digits}f} {letter}B"
    shown = f"{scaled:.{digits}f}{letter}"
    return f"{shown} {singular_of(unit) if shown == '1' else unit}".rstrip()


def format_duration(seconds: float) -> str:
    """Format a duration as minutes and seconds ("2:04") or hours, minutes and seconds ("1:02:03").

    Args:
        seconds: Duration in seconds.
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@dataclass(slots=True)
class Meter:
    """State of a progress bar.

    Attributes:
        label: Text in front of the bar.
        total: Total number of units, or None if it is unknown.
        unit: Plural noun of the units.
        done_before: Number of units that an earlier run finished. They are not used to calculate the rate.
        curve: Name of a value passed to `show`, such as "loss". The history of this value is drawn.
        completed: Number of finished units.
        fields: Maps the name of each shown value to the value.
        started: Time at which the progress bar started.
    """

    label: str
    total: float | None
    unit: str
    done_before: float = 0
    curve: str | None = None
    completed: float = field(init=False)
    fields: dict[str, str] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)
    _recent: deque[tuple[float, float]] = field(init=False)
    _history: list[float] = field(default_factory=list)
    _stride: int = 1
    _shown: int = 0

    def __post_init__(self) -> None:
        self.completed = self.done_before
        self._recent = deque([(self.started, self.completed)])

    def advance(self, amount: float = 1) -> None:
        """Add a number of finished units."""
        first = self.completed == self.done_before
        self.completed += amount
        now = time.monotonic()
        if first:  # the first step may include compilation, so the rate ignores it
            self._recent[0] = (now, self.completed)
        if now - self._recent[-1][0] >= _SPACING_SECONDS:
            self._recent.append((now, self.completed))
        while len(self._recent) > 2 and now - self._recent[0][0] > _WINDOW_SECONDS:
            self._recent.popleft()

    def expect(self, total: float) -> None:
        """Change the total number of units."""
        self.total = total

    def show(self, **fields: str) -> None:
        """Set named values. An empty value removes the name. A value with the name `curve` is added to the history."""
        self.fields = {name: value for name, value in (self.fields | fields).items() if value}
        if self.curve in fields:
            try:
                value = float(fields[self.curve])
            except ValueError:
                return
            self._shown += 1
            if self._shown % self._stride == 0:
                self._history.append(value)
            if len(self._history) > _HISTORY:  # keep every second value of the history
                del self._history[::2]
                self._stride *= 2

    @property
    def fraction(self) -> float | None:
        """Finished fraction from 0 to 1, or None if the total is unknown."""
        return None if not self.total else min(1.0, self.completed / self.total)

    @property
    def seconds(self) -> float:
        """Wall time since the start in seconds."""
        return time.monotonic() - self.started

    @property
    def rate(self) -> float:
        """Units per second over the last 30 seconds. It is 0 before the second step."""
        since, then = self._recent[0]
        elapsed = time.monotonic() - since
        return (self.completed - then) / elapsed if elapsed > 0 else 0.0

    def parts(self) -> list[str]:
        """Return percentage, remaining time, rate and count in this order. Unknown values are left out."""
        rate = self.rate
        known = []
        if self.fraction is not None:
            known.append(f"{100 * self.fraction:3.0f} %")
        if self.completed == self.done_before:
            known.append("starting")
        if rate > 0 and self.total:
            known.append(f"{format_duration(max(0.0, self.total - self.completed) / rate)} left")
        if rate > 0:
            known.append(f"{format_count(rate, self.unit)}/s")
        of = f"{format_count(self.completed)} of " if self.total else ""
        known.append(of + format_count(self.total or self.completed, self.unit))
        return known

    def summary(self) -> str:
        """Return the line that is printed at the end, with the count, the time, the mean rate and the last values."""
        done, seconds = self.completed - self.done_before, self.seconds
        text = f"{self.label}: {format_count(self.completed, self.unit)} in {format_duration(seconds)}"
        if done > 0 and seconds >= 1:
            text += f" ({format_count(done / seconds, self.unit)}/s)"
        return ", ".join([text, *(f"{name} {value}" for name, value in self.fields.items())])

    def spark(self, width: int = 16) -> str:
        """Return the history of the curve as a sparkline of Unicode block characters."""
        history = self._history
        if len(history) < 2:
            return ""
        width = min(width, len(history))
        edges = [len(history) * i // width for i in range(width + 1)]
        means = [sum(history[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]
        means = [value for value in means if math.isfinite(value)] or [0.0]
        low, span = min(means), max(means) - min(means)
        return "".join(_BLOCKS[round((value - low) / span * 7) if span else 0] for value in means)
