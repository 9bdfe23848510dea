"""Formatting of numbers, times and lists for reports."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from groundup.core.console import format_count
from groundup.core.facts import Estimate
from groundup.core.plural import pluralize

_LARGE = ((1e12, "trillion"), (1e9, "billion"), (1e6, "million"))
UNKNOWN = "–"


def approximate(value: float) -> str:
    """Format a count with two significant digits, such as "4.1 million" or "620,000"."""
    for scale, name in _LARGE:
        if value >= 0.9995 * scale:
            return f"{_two_digits(value / scale)} {name}"
    return f"{value:,.0f}"


def size(count: float) -> str:
    """Format a number of bytes, such as "31.2 MB"."""
    return format_count(count, "bytes")


def percent(share: float, digits: int = 1) -> str:
    """Format a fraction as a percentage. Only the exact values 0 and 1 are printed as "0 %" and "100 %"."""
    shown = f"{100 * share:.{digits}f}"
    if 0 < share < 1 and float(shown) in (0.0, 100.0):
        edge = 10.0**-digits
        return f"< {edge:.{digits}f} %" if share < 0.5 else f"> {100 - edge:.{digits}f} %"
    return f"{shown} %"


def number(value: float | None, digits: int = 3) -> str:
    """Format a number with a fixed number of decimals."""
    return UNKNOWN if value is None else f"{value:.{digits}f}".replace("-", "−")


def interval(estimate: Estimate | None, digits: int = 3, *, scale: float = 1.0, unit: str = "") -> str:
    """Format an estimate with its interval, such as "1.747 (1.695–1.795)".

    If a bound is negative, "to" replaces the dash, as in "−0.6 (−0.7 to −0.5)".
    """
    if estimate is None:
        return UNKNOWN
    shown = number(estimate.value * scale, digits) + unit
    if estimate.low is None or estimate.high is None:
        return shown
    between = " to " if estimate.low < 0 else "–"
    return f"{shown} ({number(estimate.low * scale, digits)}{between}{number(estimate.high * scale, digits)})"


def percent_interval(estimate: Estimate | None) -> str:
    """Format an estimate that is a fraction, and its interval, as percentages."""
    return interval(estimate, 1, scale=100, unit=" %")


def duration(seconds: float) -> str:
    """Format a duration with its two largest units, such as "7 minutes 8 seconds"."""
    if seconds < 10:
        return f"{seconds:.1f} seconds"
    rest = round(seconds)
    units = (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1))
    first = next(index for index, (_, length) in enumerate(units) if rest >= length)
    parts: list[str] = []
    for name, length in units[first : first + 2]:
        whole, rest = divmod(rest, length)
        if whole or not parts:
            parts.append(pluralize(whole, name))
    return " ".join(parts)


def format_time(stamp: str) -> str:
    """Format an ISO 8601 time stamp as UTC, such as "2026-11-24 21:58 UTC"."""
    return datetime.fromisoformat(stamp).astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def tick(value: float) -> str:
    """Format the label of an axis tick, such as "2M" or "500k"."""
    return format_count(value).replace(".00", "").replace(".0", "")


def join_names(names: Sequence[str], max_names: int = 6) -> str:
    """Join names as "a, b and c". A long list is shortened to "a, b, c and 6 more"."""
    shown = list(names[:max_names])
    if len(names) > max_names:
        shown.append(f"{len(names) - max_names} more")
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else "".join(shown)


def truncate(text: str, max_chars: int) -> str:
    """Truncate a text to at most `max_chars` characters. A truncated text ends with an ellipsis."""
    return text if len(text) <= max_chars else text[: max_chars - 1].rstrip() + "…"


def _two_digits(value: float) -> str:
    digits = 0 if value >= 10 else 1
    return f"{value:.{digits}f}".removesuffix(".0")
