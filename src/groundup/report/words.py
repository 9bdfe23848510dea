"""Figures in words: for people who read, and short forms for those who compare."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from groundup.core.console import format_count
from groundup.core.facts import Estimate

_LARGE = ((1e12, "trillion"), (1e9, "billion"), (1e6, "million"))
UNKNOWN = "–"


def large(value: float) -> str:
    """To two digits, as one says it: "4.1 million", "620,000"."""
    for scale, name in _LARGE:
        if value >= 0.9995 * scale:
            return f"{_two_digits(value / scale)} {name}"
    return f"{value:,.0f}"


def size(count: float) -> str:
    """Bytes as "31.2 MB"."""
    return format_count(count, "bytes")


def count(value: int, one: str, many: str | None = None) -> str:
    """A count with its noun: "1 document", "1,204 documents"."""
    return f"{value:,} {one if value == 1 else many or one + 's'}"


def percent(share: float, digits: int = 1) -> str:
    """A share of 1 as "87.4 %"; what is not quite all or not quite none does not read 100 or 0."""
    shown = f"{100 * share:.{digits}f}"
    if 0 < share < 1 and float(shown) in (0.0, 100.0):
        edge = 10.0**-digits
        return f"< {edge:.{digits}f} %" if share < 0.5 else f"> {100 - edge:.{digits}f} %"
    return f"{shown} %"


def number(value: float | None, digits: int = 3) -> str:
    """A figure with fixed digits."""
    return UNKNOWN if value is None else f"{value:.{digits}f}".replace("-", "−")


def interval(estimate: Estimate | None, digits: int = 3, *, scale: float = 1.0, unit: str = "") -> str:
    """A figure with its interval: "1.747 (1.695–1.795)"; the sign of a negative bound keeps "to" between them."""
    if estimate is None:
        return UNKNOWN
    shown = number(estimate.value * scale, digits) + unit
    if estimate.low is None or estimate.high is None:
        return shown
    between = " to " if estimate.low < 0 else "–"
    return f"{shown} ({number(estimate.low * scale, digits)}{between}{number(estimate.high * scale, digits)})"


def shares(estimate: Estimate | None) -> str:
    """A share of 1 with its interval, in percent."""
    return interval(estimate, 1, scale=100, unit=" %")


def duration(seconds: float) -> str:
    """A time as one says it: "45 seconds", "7 minutes 8 seconds", "2 hours 5 minutes", "3 days 4 hours"."""
    if seconds < 10:
        return f"{seconds:.1f} seconds"
    rest = round(seconds)
    units = (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1))
    first = next(index for index, (_, length) in enumerate(units) if rest >= length)
    parts: list[str] = []
    for name, length in units[first : first + 2]:
        whole, rest = divmod(rest, length)
        if whole or not parts:
            parts.append(count(whole, name))
    return " ".join(parts)


def moment(stamp: str) -> str:
    """A time stamp (ISO 8601) to the minute, in UTC: "2026-11-24 21:58 UTC"."""
    return datetime.fromisoformat(stamp).astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def tick(value: float) -> str:
    """A round count beside an axis: "2M", "500k"."""
    return format_count(value).replace(".00", "").replace(".0", "")


def listed(names: Sequence[str], most: int = 6) -> str:
    """ "a, b and c"; of a long list its beginning and how many more there are."""
    shown = list(names[:most])
    if len(names) > most:
        shown.append(f"{len(names) - most} more")
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else "".join(shown)


def shortened(text: str, most: int) -> str:
    """The beginning of a text, with an ellipsis where something is left out."""
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def _two_digits(value: float) -> str:
    digits = 0 if value >= 10 else 1
    return f"{value:.{digits}f}".removesuffix(".0")
